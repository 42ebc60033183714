"""Twelve canaries are planted where secrets are met in real life; a real run with every sink on leaves none of them anywhere."""
from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from small_project import make, mltrain

CANARIES = {
    "environment": "canary-environment-7Gq2",            # ${secret:NAME}, the value in the environment
    "secrets file": "canary-secrets-file-9Xw4",          # ${secret:NAME}, the value in the file that MLTRAIN_SECRETS names
    "not asked for": "canary-not-asked-for-1Lk8",        # another line of that file
    "data url": "canary-data-url-3Bn6",                  # user part of the URL of the data
    "git remote": "canary-git-remote-5Vt0",              # user part of the URL of the remote
    "git patch": "hf_canaryGitPatch2Zp9Rm4Xc7Qw",        # in a change that is not committed
    "untracked": "canary-untracked-8Hs3",                # in .env
    "tracker key": "0c4a2a7900000000000000000000cafe00c4a247",
    "config value": "hf_canaryConfigValue6Jd1Ty5Bv8",    # in clear text in the recipe: refused
    "argv": "hf_canaryCommandLine4Mf0Ku3Nz6",            # on the command line: refused
    "argv url": "canary-argv-url-2Wd5",                  # user part of a URL on the command line: refused
    "unresolved": "ghp_canaryUnresolved7Ea2Ol5Is8",      # of well-known form, in the environment only, printed by user code
}
PROJECT = '''
"""User code that is careless with secrets in every way there is."""
import logging
import os
import sys
from pathlib import Path

from mltrain import Callback
from mltrain.models.language import LanguageModeling


class Careless(LanguageModeling):
    def __init__(self, model, token, ignore=None):
        super().__init__(model, ignore=ignore)
        self.token = token

    def evaluate(self, batch):
        found = super().evaluate(batch)
        return {**found, f"loss of {self.token}": found["loss"]}


class Leaks(Callback):
    def __init__(self, token, other, url):
        self.all = [token, other, url, os.environ["WANDB_API_KEY"], os.environ["GITHUB_TOKEN"]]

    def start(self, progress, result):
        for secret in self.all:
            print("printed", secret)
            print("printed to stderr", secret, file=sys.stderr)
            sys.stdout.writelines(["as lines ", secret, chr(10)])
            logging.warning("logged %s", secret)
        return f"noted {self.all}"

    def step(self, progress, result):
        if progress.step == 6 and os.environ.get("MLTRAIN_ATTEMPT") == "1":
            lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
            Path("command-lines").write_bytes(b" ".join(line for line in lines if b"mltrain" in line or b"wandb" in line))
            raise RuntimeError(f"the server at {self.all[2]} refused {self.all[0]} and {self.all[1]}")
'''
RECIPE = """
defaults: [/recipe/small]
task:
  _target_: careless.Careless
  model: {_target_: mltrain.models.gpt.GPT, vocabulary: 257, width: 16, layers: 1, heads: 2}
  token: "${secret:CANARY_TOKEN}"
data: {path: "${secret:DATA_URL}"}
metrics: {every: 1}
eval_every: 5
steps: 12
launcher: {workers: 1}
callback:
  leaks: {_target_: careless.Leaks, token: "${secret:CANARY_TOKEN}", other: "${secret:OTHER}", url: "${secret:DATA_URL}"}
"""


def git(folder, *words):
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=folder, check=True, capture_output=True, timeout=60)


def plant(folder: Path) -> dict[str, str]:
    """The project with the canaries in it; returns the environment for its launch."""
    make(folder)
    place = folder / f"me:{CANARIES['data url']}@host"           # file:// takes no user part: to it this is a folder's name
    place.mkdir()
    (folder / "data").rename(place / "data")
    (folder / "careless.py").write_text(PROJECT)
    (folder / "recipes" / "careless.yaml").write_text(RECIPE)
    (folder / ".gitignore").write_text("me*\nruns\ntexts\nhome\n")
    git(folder, "init", "-q")
    git(folder, "remote", "add", "origin", f"https://me:{CANARIES['git remote']}@example.org/repo.git")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    with (folder / "hooks.py").open("a") as file:
        file.write(f"KEY = {CANARIES['git patch']!r}\n")
    (folder / ".env").write_text(f"PASSWORD={CANARIES['untracked']}\n")
    keys = folder / "keys.txt"
    keys.write_text(f"OTHER={CANARIES['secrets file']}\nANOTHER={CANARIES['not asked for']}\n")
    keys.chmod(0o600)
    (folder / "home").mkdir()
    return {"HOME": str(folder / "home"), "TMPDIR": str(folder / "home"), "WANDB_MODE": "offline", "WANDB_API_KEY": CANARIES["tracker key"],
            "MLTRAIN_SECRETS": str(keys), "CANARY_TOKEN": CANARIES["environment"], "GITHUB_TOKEN": CANARIES["unresolved"],
            "DATA_URL": f"file://me:{CANARIES['data url']}@host/data"}


def found_in(*places: Path | str) -> dict[str, list[str]]:
    """canary -> where it is."""
    texts = {}
    for place in places:
        if isinstance(place, str):
            texts["what was printed"] = place.encode()
        else:
            texts |= {str(path): path.read_bytes() + path.name.encode() for path in [place, *place.rglob("*")] if path.is_file()}
    hits = {name: [where for where, text in texts.items() if canary.encode() in text] for name, canary in CANARIES.items()}
    return {name: where for name, where in hits.items() if where}


@pytest.fixture(scope="module")
def careless(tmp_path_factory):
    """(project, what was printed, environment) after the run, a report and replays."""
    folder = tmp_path_factory.mktemp("careless")
    environment = plant(folder)
    printed = mltrain(folder, "launch", "recipe=careless", "metrics=all", environment=environment)
    sinks = ("--to", "wandb", "--to", "tensorboard", "--to", "prometheus")
    printed += mltrain(folder, "metrics", "replay", "careless", *sinks, environment=environment)
    for verb, *more in (("report",), ("logs", "--errors"), ("status", "--json")):
        printed += mltrain(folder, verb, "careless", *more, environment=environment)
    return folder, printed, environment


def test_no_canary_is_in_the_run_in_any_tracker_or_in_what_was_printed(careless):
    folder, printed, _ = careless
    assert found_in(folder / "runs", folder / "home", folder / "command-lines", printed) == {}


def test_the_run_did_all_that_could_have_leaked_them(careless):
    """Else the claim above would be empty."""
    folder, printed, _ = careless
    (run,) = (folder / "runs").glob("careless-*")
    log = (run / "attempts" / "0001" / "rank-0.log").read_text()
    assert log.count("printed ***") == log.count("printed to stderr ***") == log.count("as lines ***") == log.count("logged ***") == 5
    assert "the server at *** refused *** and ***" in printed
    assert '"loss of ***"' in (run / "metrics" / "attempt-0002.jsonl").read_text()
    assert "noted ['***', '***'" in (run / "metrics" / "attempt-0001.jsonl").read_text()
    assert "https://***@example.org/repo.git" in (run / "provenance.json").read_text()
    assert len(list(run.glob("wandb/**/*.wandb"))) >= 3 and list(run.glob("tensorboard/*")) and (run / "metrics.prom").exists()
    assert all(word in (folder / "command-lines").read_bytes() for word in (b"launch", b"agent", b"wandb"))


def test_files_with_secrets_are_named_and_not_copied(careless):
    folder, _, _ = careless
    (run,) = (folder / "runs").glob("careless-*")
    provenance = (run / "provenance.json").read_text()
    assert all(f'"{name}"' in provenance for name in (".env", "keys.txt", "hooks.py"))


@pytest.mark.parametrize(("word", "canary"), [
    ("+x.token={}", "config value"), ("name={}", "argv"), ("data.path=https://me:{}@host/data", "argv url")])
def test_a_secret_in_clear_text_is_refused_and_nothing_is_made(careless, word, canary):
    folder, _, environment = careless
    before = sorted((folder / "runs").iterdir())
    printed = mltrain(folder, "launch", "recipe=careless", word.format(CANARIES[canary]), code=78, environment=environment)
    assert "a secret in clear text" in printed
    assert found_in(printed) == {}
    assert sorted((folder / "runs").iterdir()) == before


def test_the_search_finds_what_is_there(careless):
    folder, _, environment = careless
    files = [folder / name for name in (".env", "keys.txt", "hooks.py", ".git/config")]
    planted = found_in(*files, "\n".join(environment.values()))
    assert set(CANARIES) - set(planted) == {"config value", "argv", "argv url"}
    assert os.stat(folder / "keys.txt").st_mode & 0o777 == 0o600
