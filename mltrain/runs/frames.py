"""Which part of a traceback is the user's own code: a person wants to see that, not the floors of mltrain and torch that lead to it."""
from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

from mltrain.errors import MltrainError

_LIBRARIES = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
MEETING = "while the ranks met: "
_OTHERS = ("<", *(f"{folder}/" for folder in (Path(__file__).resolve().parents[1], *_LIBRARIES)))


def where(error: BaseException) -> str:
    """file:line of the user's deepest frame; without one, of the deepest at all. An error of ours needs no place of ours: its message
    says where in the input it is."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_OTHERS)]
    shown = theirs or ([] if isinstance(error, MltrainError) else frames)
    return f"{shown[-1].filename}:{shown[-1].lineno}" if shown else ""


def meeting(error: BaseException) -> bool:
    """Did it come while the process group was made? Then the network or somebody on it may be to blame, and not the script."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.name == "init_process_group" and "/torch/distributed/" in frame.filename for frame in frames)


def near(place: str) -> str:
    """A place as seen from the current folder, which is where people start their scripts."""
    try:
        return place.removeprefix(f"{os.getcwd()}/")
    except OSError:                                            # the folder was removed
        return place


def text(error: BaseException) -> str:
    """The traceback as text, from the user's first frame on; all of it where none is theirs."""
    begin: TracebackType | None = error.__traceback__
    while begin and begin.tb_frame.f_code.co_filename.startswith(_OTHERS):
        begin = begin.tb_next
    return "".join(traceback.format_exception(type(error), error, begin or error.__traceback__))
