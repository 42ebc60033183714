"""What a run was, for people and for trackers: report, replay."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mltrain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any



def report(names: Sequence[str], runs: str = "runs") -> dict[str, Any]:
    """What is known of runs, as plain data: {"runs": [...], "differences": [...]}. Raises UsageError (64), MissingInput (66)."""
    from mltrain.report.read import report as report_
    return report_(_named(names, runs)).to_dict()


def write_report(names: Sequence[str], runs: str = "runs", out: str | None = None) -> Path:
    """The same as one HTML file. out: default RUN/report.html; of several runs RUNS/report.html. Returns where it is."""
    from mltrain.report.page import page
    from mltrain.report.read import report as report_
    from mltrain.runs.atomic import write_text
    found = _named(names, runs)
    target = Path(out) if out else (found[0] if len(found) == 1 else Path(runs)) / "report.html"
    if target.is_dir() or not target.parent.is_dir():
        wrong = "is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise UsageError(f"--out {target}: {wrong}", "name a file: --out report.html")
    write_text(target, page(report_(found)))
    return target


def _named(names: Sequence[str], runs: str) -> list[Path]:
    """Each run once, in the order named."""
    from mltrain.runs.layout import find_run
    return list(dict.fromkeys(find_run(Path(runs), name) for name in names))


def replay(run: str, to: Sequence[str], runs: str = "runs", settings: Sequence[str] = ()) -> dict[str, int]:
    """Write a run's numbers again, from its record of truth, into these sinks: wandb, tensorboard, prometheus, trackio, or those of its
    recipe. settings: SINK.key=value, arguments of a sink. Returns how many records each took. Twice is as good as once.
    Raises UsageError (64), MissingInput (66), NodeUnfit (69: a package is missing), StorageError (74)."""
    import json

    from mltrain.config.build import build
    from mltrain.config.targets import Allowed
    from mltrain.metrics.replay import node, read_settings
    from mltrain.metrics.replay import replay as replay_
    from mltrain.runs.layout import config_file, find_run
    from mltrain.runs.lease import is_live
    path = find_run(Path(runs), run)
    if is_live(path):
        raise UsageError(f"{path.name} is live: its own sinks are being written", "replay after it has ended")
    config = json.loads(config_file(path).read_text()) if config_file(path).is_file() else {"tree": {}, "allowed": Allowed().to_dict()}
    own, given = config["tree"].get("metrics", {}).get("sinks") or {}, read_settings(to, settings)
    nodes = {name: node(name, own, given.get(name, {})) for name in dict.fromkeys(to)}
    allowed = Allowed.from_dict(config["allowed"])
    return replay_(path, {name: build(part, allowed=allowed, secrets=True) for name, part in nodes.items()})
