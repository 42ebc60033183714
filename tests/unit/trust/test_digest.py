from __future__ import annotations

import math
from pathlib import Path

from mltrain.trust.digest import canonical, plain, sha256_file, sha256_json


def test_the_order_of_keys_does_not_matter() -> None:
    assert sha256_json({"a": 1, "b": [1, 2]}) == sha256_json({"b": (1, 2), "a": 1})


def test_one_text_for_ever() -> None:
    assert canonical({"b": "ü", "a": [1, 2.5, None, True]}) == '{"a":[1,2.5,null,true],"b":"ü"}'.encode()
    assert sha256_json({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_numbers_that_json_cannot_hold_become_text() -> None:
    assert plain({"x": [math.nan, math.inf], 1: Path("a")}) == {"x": ["nan", "inf"], "1": "a"}


def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 1_000_000)
    assert sha256_file(tmp_path / "f") == "f4096a131e7e6ebfa7a512b5c299e13b065df34d15624ee1202ab394cc4d7e90"
