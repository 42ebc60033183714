"""What may not grow: the sizes of files, functions and signatures, and what the package may never contain."""
from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "mltrain"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(file.relative_to(PACKAGE)) for file in FILES]

FILE_LINES, FUNCTION_LINES, PARAMETERS, CONTRACT = 400, 80, 12, 6
INVARIANTS = 3      # asserts in the whole package that state an invariant of ours
DRAWERS = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "tools"}
UNPICKLERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
# What unpickles in a call: torch.load and the collectives that send objects.
UNPICKLING_CALLS = {"torch.load", "dist.broadcast_object_list", "dist.all_gather_object", "dist.gather_object", "dist.scatter_object_list",
                    "dist.send_object_list", "dist.recv_object_list"}


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(file)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def classes(file: Path) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(tree(file)) if isinstance(node, ast.ClassDef))


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def test_there_is_something_to_measure():
    assert len(FILES) > 30


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_file_fits_in_the_head(file):
    assert len(file.read_text().splitlines()) <= FILE_LINES


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_function_fits_on_a_screen(file):
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions(file)}
    assert {name: lines for name, lines in long.items() if lines > FUNCTION_LINES} == {}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_signature_can_be_remembered(file):
    assert {node.name: len(parameters(node)) for node in functions(file) if len(parameters(node)) > PARAMETERS} == {}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_contract_is_small(file):
    """Six members; the Callback's seven hooks and two methods of state are the one exception of docs/architecture.md."""
    contracts = [node for node in classes(file) if any(ast.unparse(base).startswith("Protocol") for base in node.bases)]
    public = {node.name: [part.name for part in node.body if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")]
              for node in contracts}
    assert {name: members for name, members in public.items() if len(members) > CONTRACT} == {}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_module_says_what_it_knows(file):
    assert ast.get_docstring(tree(file))


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_file_bears_the_name_of_what_it_knows(file):
    assert file.stem not in DRAWERS and file.parent.name not in DRAWERS


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_nothing_of_ours_unpickles_anything(file):
    imported = {alias.name.partition(".")[0] for node in ast.walk(tree(file)) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module.partition(".")[0] for node in ast.walk(tree(file)) if isinstance(node, ast.ImportFrom) and node.module}
    called = {ast.unparse(node.func).removeprefix("torch.distributed.") for node in ast.walk(tree(file)) if isinstance(node, ast.Call)}
    allowing = {ast.unparse(node) for node in ast.walk(tree(file)) if isinstance(node, ast.keyword) and node.arg == "allow_pickle"}
    assert imported & UNPICKLERS == set()
    assert allowing <= {"allow_pickle=False"}
    assert {call.removeprefix("dist.") for call in called} & {name.removeprefix("dist.") for name in UNPICKLING_CALLS} == set()


def calls_cuda(file: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree(file)) if isinstance(node, ast.Call)
            and (ast.unparse(node.func).endswith(".cuda") or ast.unparse(node.func).startswith("torch.cuda."))}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_device_code_goes_through_torch_accelerator(file):
    assert calls_cuda(file) == set()


def narrows(test: ast.expr) -> bool:
    """Tells the type checker what is known already: isinstance(…), … is not None."""
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], (ast.Is, ast.IsNot))
    return isinstance(test, ast.Call) and ast.unparse(test.func) == "isinstance"


def test_errors_are_raised_and_not_asserted():
    """An assert for a user's mistake gives a traceback instead of a message, and goes away with python -O."""
    asserted = [f"{name}:{node.lineno}" for name, file in zip(NAMES, FILES, strict=True) if not name.startswith("testing/")
                for node in ast.walk(tree(file)) if isinstance(node, ast.Assert) and not narrows(node.test)]
    assert len(asserted) <= INVARIANTS, asserted
