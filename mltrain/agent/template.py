"""The template: a process that has torch imported, one thread, and no device touched. The agent sends it orders; for each it forks a worker
that runs the script, so that a restart pays for no import.

It forks twice: the process between exits, the kernel hands the worker to the agent (a child subreaper), which therefore is the worker's
parent: it can wait for it by pidfd, and the worker dies with it. Orders and answers are JSON packets on one socket, descriptors travel
along:
    order   {"key", "agent", "kind": "worker" | "store" | "ahead" | "warm", ...}
    answer  {"ready", "threads"} once, {"warm", "threads"}, {"key", "pid"}
A process forked ahead ("kind": "ahead") waits for one further order, on a socket of its own.

    template SOCKET MODULES-BEFORE-ORDERS MODULES-WHEN-WARM       (comma-separated lists)
    template store ORDER          one store, without a template         template run ORDER        one worker, likewise
"""
from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import io
import json
import os
import pkgutil
import re
import signal
import socket
import sys
import time
import zipfile
import zipimport
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType, TracebackType
from typing import Any

from mltrain.agent.retreat import Retreat, close
from mltrain.agent.tie import die_with_parent, tie_to
from mltrain.errors import INTERRUPTED, MltrainError
from mltrain.runs.pulse import PAGE_VARIABLE, REPORT_VARIABLE, Page

Order = dict[str, Any]
_LAST_SECONDS = 0.02
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def environment() -> dict[str, str]:
    """Of the template: as the agent's, but one thread each for OpenMP and BLAS (else numpy starts a pool at import, and a fork would
    lose it) and a device count that does not initialise the driver."""
    return {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


def preload(names: list[str]) -> int:
    """Import modules; a missing one is left for the script to miss. Returns the number of threads: a fork keeps only one."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    gc.collect()
    gc.freeze()                                                # the collector must not touch (and so copy) pages shared with the forks
    return len(os.listdir("/proc/self/task"))


def serve(control: socket.socket, early: list[str], late: list[str]) -> tuple[Order, list[int]] | None:
    """Answer orders until the agent closes the socket (None). In a forked worker: returns the order it was forked for."""
    _send(control, {"ready": True, "threads": preload(early)})
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(control, 1 << 18, 8)
        except OSError:                                        # the agent died with an answer of ours unread
            return None
        if not data:
            return None
        order: Order = json.loads(data)
        if order["kind"] == "warm":
            _send(control, {"warm": True, "threads": preload(late)})
            continue
        read, write = os.pipe()
        if (between := os.fork()) == 0:
            if worker := os.fork():
                os.write(write, str(worker).encode())
                os._exit(0)
            for fd in (control.detach(), read, write):
                os.close(fd)
            return order, fds
        os.waitpid(between, 0)                                 # only now is the worker the agent's child, which may wait for it
        _send(control, {"key": order["key"], "pid": int(os.read(read, 32) or 0)})
        for fd in (read, write, *fds):
            os.close(fd)


def stand_by(agent: int, fd: int) -> tuple[Order, list[int]] | None:
    """In a process forked ahead: the order it gets in the end; None if it is not needed."""
    tie_to(agent)
    with socket.socket(fileno=fd) as control:
        data, fds, _, _ = socket.recv_fds(control, 1 << 18, 8)
    return (json.loads(data), fds) if data else None


def _send(control: socket.socket, message: Order) -> None:
    try:
        control.send(json.dumps(message).encode())
    except OSError:                                            # the agent has left meanwhile
        os._exit(0)


def serve_store(order: Order, fds: list[int]) -> None:
    """Host one attempt's TCPStore on a socket that the agent has bound and listens on: workers that came early wait in its backlog."""
    tie_to(order["agent"])
    os.setsid()
    serve_on = importlib.import_module("torch.distributed").TCPStore
    store = serve_on(order["host"], order["port"], is_master=True, wait_for_workers=False, master_listen_fd=fds[0])
    signal.pause()
    del store


def become_worker(order: Order, fds: list[int]) -> int:
    """In a fork: be as a fresh process would be, then run the script. fds: stdout, stderr, pulse page, report socket."""
    tie_to(order["agent"])
    if os.getsid(0) != os.getpid():                            # it is not in its second attempt
        os.setsid()                                            # data-loader children share the group: one killpg ends all of them
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (fds[0], 1), (fds[1], 2)):
        os.dup2(source, target)
        os.close(source)
    os.environ.clear()
    os.environ.update(order["env"])
    os.environ.update({PAGE_VARIABLE: str(fds[2]), REPORT_VARIABLE: str(fds[3])})
    if "numpy" in sys.modules:                                 # seeded when the template imported it: else equal in all ranks
        sys.modules["numpy"].random.seed()
    _use_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    return run_script(order["argv"], order["module"], Page(fds[2]))


def work(order: Order, fds: list[int]) -> int:
    """One attempt; more than one if the agent has sent a fifth descriptor for calling the worker back (`retreat.py`)."""
    while True:
        retreat = Retreat(fds[4]) if order.get("again") else None
        try:
            code = become_worker(order, fds)
        except SystemExit as end:
            if retreat is None or not isinstance(end.code, int):
                raise
            code = end.code
        if retreat is None or not retreat.out(Page(fds[2])):
            return code
        following = retreat.next_order()
        if following is None:
            return code
        close(fds)
        order, fds = following


def run_script(argv: list[str], module: bool, page: Page) -> int:
    """Run it as `python SCRIPT` or `python -m MODULE` would. An exception is noted in the page and printed. Returns the exit code, or
    raises SystemExit like any Python program."""
    for stream in (sys.stdout, sys.stderr):                    # a killed worker's last lines are the ones that matter
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    page.enable_stack()
    sys.argv = argv
    try:
        _run_as_main(argv[0], module)
        _let_threads_end()
        return 0
    except SystemExit:
        _let_threads_end()
        raise                                                  # an ordinary end: atexit functions and thread joins run as in any Python
    except BaseException as error:                             # noqa: BLE001 whatever ends a script ends here, is noted and printed
        code = error.code if isinstance(error, MltrainError) else INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        page.write_record(error, code)
        error.__traceback__ = _of_script(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return code


def _run_as_main(name: str, module: bool) -> None:
    """In a new module `__main__` that stays until Python ends, as under `python SCRIPT`. runpy would take its variables apart at the
    script's end: a DDP model among them then joins gloo's thread while it holds the lock that this thread waits for, for ever."""
    main = sys.modules["__main__"] = ModuleType("__main__")
    path = os.path.join(os.getcwd(), name)
    if module:
        sys.path[0] = os.getcwd()
        code = _code_of(_find(name), main)
    elif zipfile.is_zipfile(path):
        sys.path[0] = path
        code = _code_of(zipimport.zipimporter(path).find_spec("__main__"), main)
    else:
        sys.path[0], main.__file__ = os.path.dirname(os.path.realpath(path)), path
        with open(path, "rb") as file:
            compiled, _ = pkgutil.read_code(file), file.seek(0)        # of a .pyc, else None
            code = compiled or compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _find(module: str) -> ModuleSpec | None:
    """Of a package: its `__main__`."""
    spec = importlib.util.find_spec(module)
    return spec if spec is None or spec.submodule_search_locations is None else _find(f"{module}.__main__")


def _code_of(spec: ModuleSpec | None, main: ModuleType) -> CodeType:
    load = getattr(spec.loader, "get_code", None) if spec else None
    code: CodeType | None = load(spec.name) if spec and load else None
    if spec is None or code is None:
        raise ImportError(f"no module named {sys.argv[0]} that can be run")
    main.__spec__, main.__loader__, main.__package__, main.__file__ = spec, spec.loader, spec.parent, spec.origin
    if spec.name != "__main__":
        sys.argv[0] = str(spec.origin)
    return code


def _let_threads_end() -> None:
    """gloo's threads may wait for Python's lock to let go of the last tensors: torch hangs or aborts if they must while all is taken
    apart (pytorch/pytorch#179291)."""
    if "torch" in sys.modules:
        time.sleep(_LAST_SECONDS)


def _of_script(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without our own frames, as the user's script alone would show it."""
    rest = trace
    while rest and rest.tb_frame.f_code.co_filename == __file__:
        rest = rest.tb_next
    return rest


def _use_threads(threads: int) -> None:
    """Undo the one-thread settings of the template: as many as a fresh process would have used."""
    if threads == 1:
        return
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    with open("/proc/self/maps") as maps:
        libraries = set(re.findall(r"/\S*openblas\S*\.so\S*", maps.read()))
    for path in libraries:                                     # numpy's and scipy's copies, each under a name of its own
        library = ctypes.CDLL(path)
        for name in ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads"):
            if setter := getattr(library, name, None):
                setter(threads)
                break


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.argv[1] == "store":
        order = json.loads(sys.argv[2])
        serve_store(order, [order["fd"]])
        return 0
    if sys.argv[1] == "run":
        signal.signal(signal.SIGINT, signal.default_int_handler)
        order = json.loads(sys.argv[2])
        tie_to(order["agent"])
        return run_script(order["argv"], order["module"], Page(int(os.environ[PAGE_VARIABLE])))
    die_with_parent()
    control = socket.socket(fileno=int(sys.argv[1]))           # SOCK_SEQPACKET: one order a packet
    early, late = ([name for name in names.split(",") if name] for names in sys.argv[2:4])
    served = serve(control, early, late)
    if served and served[0]["kind"] == "ahead":
        served = stand_by(served[0]["agent"], served[1][0])
    if served is None:
        return 0
    signal.signal(signal.SIGINT, signal.default_int_handler)
    order, fds = served
    if order["kind"] == "store":
        serve_store(order, fds)
        return 0
    return work(order, fds)


if __name__ == "__main__":
    sys.exit(main())
