"""The `mltrain` command: finds the verb, imports only what it needs, and turns every error into one or two lines and an exit code."""
from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from importlib import import_module

from mltrain.errors import INTERRUPTED, MltrainError, StorageError

# verb -> (module in mltrain.cli, one line for --help). A verb is a function of that module: arguments in, exit code out.
VERBS = {
    "launch": ("run", "check a recipe, then train it (recipe=NAME key=value ...)"),
    "new": ("new", "make a project of your own to start from"),
    "check": ("run", "find every mistake in a recipe before anything runs"),
    "recipes": ("recipes", "list, show or copy recipes"),
    "data": ("data", "prepare, inspect or verify a dataset"),
    "status": ("jobs", "what runs, and how far it is"),
    "logs": ("jobs", "what a run printed, by rank"),
    "cancel": ("jobs", "stop a run after saving its state"),
    "resume": ("jobs", "go on where a run stopped"),
    "checkpoint": ("checkpoints", "list, verify, export, compare or prune the checkpoints of a run"),
    "report": ("reports", "one page about a run, or several side by side: curves, time, events, origin"),
    "metrics": ("metrics", "write a run's numbers again, into a tracker that missed them"),
    "completion": ("completion", "the script that lets bash, zsh or fish complete all this"),
    "agent": ("agent", "run any command on N workers and restart them when one dies (like torchrun)"),
    "chaos": ("chaos", "break a live run on purpose, to see it go on"),
    "doctor": ("doctor", "look at this machine and this installation"),
    "worker": ("worker", ""),                  # started by the agent
}


def usage() -> str:
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {verb:{width}}  {text}" for verb, (_, text) in VERBS.items() if text)
    return f"""usage: mltrain VERB ...     (mltrain VERB --help explains one)

{rows}

start here:
  mltrain launch recipe=hello            train a small model in 20 seconds
  mltrain recipes list                   what else there is
"""


def main(argv: list[str] | None = None) -> int:
    args = sys.argv[1:] if argv is None else argv
    code = _run(args)
    if argv is None and "torch" in sys.modules and args[0] != "worker":
        _leave(code)
    return code


def _leave(code: int) -> None:
    """Python takes most of a second to take itself apart once torch is imported. Not for a worker: its user's files may still be open."""
    # Python's own end begins so, and has no public name for it: a plain join would wait for ever for the threads of an idle executor.
    threading._shutdown()  # type: ignore[attr-defined]  # typeshed leaves private names out
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0 if args else 64
    if args[0] == "--version":
        from mltrain import __version__
        print(f"mltrain {__version__}")
        return 0
    if args[0] == "__complete":                # the shell asks what can follow
        from mltrain.cli.complete import complete
        return complete(args[1:], VERBS)
    verb, rest = args[0], args[1:]
    if verb not in VERBS:
        from difflib import get_close_matches
        known = [name for name, (_, text) in VERBS.items() if text]
        near = get_close_matches(verb, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "one of: " + " ".join(known)
        print(f"mltrain: no such verb: {verb}\n  {hint}", file=sys.stderr)
        return 64
    try:
        run = getattr(import_module(f"mltrain.cli.{VERBS[verb][0]}"), verb)
        code: int = run(rest)
        sys.stdout.flush()
        return code
    except MltrainError as error:
        from mltrain.api import redacted
        print(f"mltrain: {redacted(str(error))}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:                    # `mltrain status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:                   # a disk or a permission where no room has expected it
        print(f"mltrain: {error.filename or 'the operating system says'}: {error.strerror or error}", file=sys.stderr)
        return StorageError.code


if __name__ == "__main__":
    raise SystemExit(main())
