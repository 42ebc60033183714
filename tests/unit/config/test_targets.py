"""Which `_target_` may be named. A hostile one must not even be imported."""
from __future__ import annotations

import sys

import pytest

from mltrain.config.targets import Allowed, resolve
from mltrain.errors import ConfigError

HOSTILE = [
    "os.system", "posix.system", "subprocess.run", "builtins.eval", "builtins.exec", "pickle.loads", "shutil.rmtree",
    "runpy.run_path", "importlib.import_module", "torch.load", "torch.hub.load", "torch.save", "torch.optimx.AdamW",
    "torchvision.io.read_file", "numpy.load", "pathlib.Path.write_text", "mltrain.task.torch.load", "mltrain.data.store.os.system",
    "mltrain.models.gpt.math.sqrt", "torch.nn.functional.torch.load", "torch.nn.modules.linear.math.sqrt",
    "torch.optim.adamw.torch.load", "mltrain.api.launch", "mltrain.cli.main.main", "mltrain.agent.loop.main",
    "mltrain.runs.atomic.write", "mltrain.trust.secret.resolve", "mltrain.config.build.build", "mltrain.extras.require", "mltrain",
    "torch.nn", "torch.optim", "mltrain.task.Task.__init__", "mltrain.task._Batch", "", "mltrain..task", ".mltrain.task.Task",
    "mltrain.task.Task()", "mltrain.task.Task.loss.__globals__", "AdamW", 3, None, ["torch.nn.Linear"], "parts.os.system",
    "parts.system", "parts.Task.__class__", "parts", "parts.missing", "recipes.mine.x",
]


@pytest.mark.parametrize("name", HOSTILE, ids=map(str, HOSTILE))
def test_targets_that_are_refused(project, name):
    with pytest.raises(ConfigError) as error:
        resolve(name, Allowed(str(project.folder)))
    assert "\n" not in error.value.message


def test_a_refused_module_is_not_imported(project):
    mark = project.write("elsewhere/evil_module.py", "raise SystemExit('imported')")
    sys.path.insert(0, str(mark.parent))
    try:
        with pytest.raises(ConfigError, match="not allowed"):
            resolve("evil_module.Thing", Allowed(str(project.folder)))
        assert "evil_module" not in sys.modules
    finally:
        sys.path.remove(str(mark.parent))


@pytest.mark.parametrize("name", ["torch.optim.AdamW", "torch.nn.Linear", "mltrain.task.Task",
                                  "mltrain.optim.schedules.cosine", "parts.Task", "parts.function"])
def test_targets_that_are_allowed(project, name):
    assert resolve(name, Allowed(str(project.folder))).__name__ == name.rpartition(".")[2]


def test_the_site_may_allow_more(project):
    with pytest.raises(ConfigError, match=r"allow_targets: \[fractions.\]"):
        resolve("fractions.Fraction", Allowed())
    assert resolve("fractions.Fraction", Allowed.of(None, site=["fractions"])).__name__ == "Fraction"


def test_a_prefix_is_a_whole_name(project):
    with pytest.raises(ConfigError, match="not allowed"):
        resolve("statistics.NormalDist", Allowed.of(None, site=["stat"]))


def test_the_nearest_name_is_told(project):
    with pytest.raises(ConfigError) as error:
        resolve("torch.optim.AdmaW", Allowed())
    assert "AdamW" in error.value.hint


def test_two_projects_in_one_process_keep_their_own_modules(project, tmp_path):
    other = project.write("other/parts.py", "class Task: kind = 'other'")
    first = resolve("parts.Task", Allowed(str(project.folder)))
    second = resolve("parts.Task", Allowed(str(other.parent)))
    assert second.kind == "other" and not hasattr(first, "kind")


def test_a_module_hidden_by_an_installed_one_is_told(project):
    project.write("json.py", "class Thing: pass")
    with pytest.raises(ConfigError, match="json is hidden by the module"):
        resolve("json.Thing", Allowed(str(project.folder)))


@pytest.mark.parametrize(("text", "told"), [
    ("import nothing_like_this", "No module named 'nothing_like_this'"), ("def f(:", "SyntaxError"),
    ("1 / 0", "ZeroDivisionError: division by zero (broken"),
    ("raise SystemExit(3)", "SystemExit"),
])
def test_a_module_that_fails_is_told_in_one_line(project, text, told):
    name = f"broken{abs(hash(text))}"
    project.write(f"{name}.py", text)
    with pytest.raises(ConfigError) as error:
        resolve(f"{name}.Thing", Allowed(str(project.folder)))
    assert told in error.value.message and "\n" not in error.value.message
