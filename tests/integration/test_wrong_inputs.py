"""What a user gets for a wrong input, by the command itself: one or two lines that say what, where and what to do; the right exit code;
no traceback; and nothing lost, nothing left behind. One row a case.

HERE run in this process (main() as the command calls it), PROCESSES as processes of their own, WORKERS begin a run that fails there.
More of the same, closer to the code: tests/unit/config/test_wrong_input.py, tests/unit/data/test_hostile_shards.py, test_data_command.py.
"""
from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import wrong_project
from small_project import mltrain
from wrong_project import both, contents, cut, edited_ledger, edited_manifest, flip, in_run, in_step, offset, run, unfinished

from mltrain.cli.main import main
from mltrain.runs import ledger

EIGHT = "step-00000008"

#   the case: command · exit code · what is told · what was done to the project before
HERE = {
    # the command line
    "no such verb": ("lunch recipe=small", 64, "no such verb: lunch | did you mean launch?"),
    "a flag in place of a verb": ("--verbose", 64, "no such verb: --verbose | one of: launch"),
    "launch: an unknown flag": ("launch --fast recipe=small", 64, "--fast | mltrain launch --help"),
    "launch: nothing": ("launch", 64, "key=value | --help"),
    "launch: a flag that takes no value": ("launch recipe=small --detach=yes", 64, "--detach"),
    "check: a misspelt flag": ("check recipe=small --jsn", 64, "--jsn"),
    "launch: no recipe": ("launch steps=3", 64, "no recipe is named | recipe=NAME"),
    "launch: a word without =": ("launch recipe=small fast", 64, "'fast' | key=value"),
    "doctor: a misspelt flag": ("doctor --jsn", 64, "--jsn | mltrain doctor --help"),
    # recipes
    "a recipe that is not there": ("launch recipe=smal", 66, "no recipe is named 'smal' | did you mean 'small'?"),
    "a recipe file that is not there": ("check recipe=./smal.yaml", 66, "recipe=./smal.yaml: no such file"),
    "a recipe that is a folder": ("check recipe=./recipes", 66, "recipe=./recipes: no such file"),
    "a recipe that is no UTF-8": ("check recipe=latin", 78, "recipes/latin.yaml:2: not UTF-8 text | save the file as UTF-8"),
    "a recipe with tabs": ("check recipe=tabs", 78, "recipes/tabs.yaml:2"),
    "two recipes of one name": ("check recipe=twice", 78, "recipe=twice is found twice | recipes/twice/recipe.yaml and recipes/twice.yaml"),
    "a misspelt key in a recipe": ("check recipe=typo", 78, "optimizer.lrr: AdamW takes no such argument (recipes/typo.yaml:2) | 'lr'"),
    "a misspelt key in an override": ("launch recipe=small stpes=3", 78, "stpes: no such key (command line) | did you mean 'steps'?"),
    "no steps": ("check recipe=small steps=0", 78, "steps: 0 makes no sense (command line) | above 0"),
    "negative steps": ("check recipe=small steps=-3", 78, "steps: -3 makes no sense"),
    "a negative sequence": ("check recipe=small data.sequence=-5", 78, "data.sequence: expected int >= 1, got -5"),
    "a model without width": ("check recipe=small task.model.width=0", 78, "task.model.width: expected int >= 1, got 0"),
    "a negative warm-up": ("check recipe=small schedule.warmup=-1", 78, "schedule.warmup=-1"),
    "saves every -1 steps": ("check recipe=small checkpoint.every=-1", 78, "checkpoint | every=-1"),
    "numbers every 0 steps": ("check recipe=small metrics.every=0", 78, "metrics.every: expected int >= 1"),
    "a negative time limit": ("check recipe=small time_limit=-1", 78, "time_limit: -1 makes no sense"),
    "stops before it begins": ("check recipe=small stop_at=0", 78, "stop_at: expected int >= 1"),
    "many nodes on this machine": ("check recipe=small launcher.nodes=1000", 78, "launcher.nodes=1000 | this is one machine"),
    "more workers than micro-batches": ("check recipe=small launcher.workers=16", 78, "8 micro-batches | 16 workers | use fewer workers"),
    "a micro-batch that does not divide": ("check recipe=small micro_batch=3", 78, "micro_batch=3 does not divide | 1 2 4 8 16"),
    "a rate that is no number": ("check recipe=small optimizer.lr=nan", 78, "optimizer.lr: nan is not a finite number"),
    "a batch without end": ("check recipe=small global_batch=1000000000000", 78, "500000000000 micro-batches | set a larger micro_batch"),
    "a mesh that does not divide": ("check recipe=small strategy=hsdp strategy.replicate=3", 78, "strategy.replicate"),
    "exact sums where they cannot be": ("check recipe=small launcher.workers=3 global_batch=18 micro_batch=2 strategy.reduction=exact", 78,
                                        "strategy.reduction"),
    "a target that is not allowed": ("launch recipe=hostile", 78, "os.system is not allowed (recipes/hostile.yaml:2) | allow_targets"),
    "a bomb of aliases": ("check recipe=aliases", 78, "recipes/aliases.yaml:9: more than 64 aliases"),
    "a bomb of interpolations": ("check recipe=doubling", 78, "recipes/doubling.yaml | 1,000 values"),
    "brackets without end": ("check recipe=deep", 78, "recipes/deep.yaml"),
    "a site file that is not there": ("check recipe=small", 66, "MLTRAIN_SITE=nowhere: no such file", {"MLTRAIN_SITE": "nowhere"}),
    "show: no such recipe": ("recipes show smal", 66, "no recipe is named 'smal' | 'small'"),
    "show: which?": ("recipes show", 64, "which recipe?"),
    "copy: where to?": ("recipes copy small", 64, "a recipe and a destination"),
    "copy: over a file": ("recipes copy hello recipes/small.yaml", 64, "recipes/small.yaml is there already"),
    "copy: into a file": ("recipes copy hello file/mine.yaml", 74, "cannot write file/mine.yaml"),
    "recipes: no such action": ("recipes lst", 64, "'lst'"),
    # data
    "no data": ("launch recipe=small data.path=nowhere", 66, "no dataset at nowhere | mltrain data prepare SOURCE... --out nowhere"),
    "data shorter than a sample": ("launch recipe=small data.sequence=100000", 65, "no window of 100000 | smaller data.sequence"),
    "more tokens than the model knows": ("launch recipe=small task.model.vocabulary=100", 78,
                                         "task.model.vocabulary=100: the data has token ids up to 256 | set task.model.vocabulary=257"),
    "a manifest cut short": ("launch recipe=small", 65, "data/manifest.json", lambda p: os.truncate(p / "data/manifest.json", 200)),
    "a manifest that was edited": ("launch recipe=small", 65, "data/manifest.json | totals of split train",
                                   edited_manifest),
    "inspect: a shard's offset far away": ("data inspect data", 65, "train-00000.arrow is damaged | offsets", offset(3, 1 << 60)),
    "verify: no data": ("data verify runs", 66, "no dataset at runs"),
    "prepare: into a file": ("data prepare texts --out file/d", 74, "file/d"),
    "prepare: a package is missing": ("data prepare texts --tokenizer tokenizer.json --out d", 69,
                                      'needs the package tokenizers | pip install "mltrain-core[text]"'),
    # runs
    "status: no such run": ("status nothing", 66, "no run 'nothing' in runs/ | there is base-2"),
    "status: a name with a typo": ("status bsae", 66, "no run 'bsae' | did you mean base"),
    "status: two names": ("status a b", 64, "needs one run, not 2: a b"),
    "status: fits two runs": ("status bas", 64, "'bas' fits 3 runs | basic-20200101-000000-aaaa | give more of the id", wrong_project.twin),
    "status: runs= names nothing": ("status runs=", 64, "runs= names no folder"),
    "status: no such folder": ("status runs=nowhere", 66, "nowhere: there is no such folder"),
    "status: the folder is a file": ("status runs=file", 66, "file: there is no such folder"),
    "status: a cut status.json": ("status base", 65, "status.json: not the status of a run | mltrain resume", in_run("status.json", cut)),
    "status: a status.json of noise": ("status base", 65, "status.json: not the status", in_run("status.json", b"\xff\x00\x80")),
    "status: a status.json that lies": ("status base", 65, "status.json: not the status",
                                        in_run("status.json", '{"state": "running", "beat": "never", "step": "x"}')),
    "logs: no such run": ("logs nothing", 66, "no run 'nothing'"),
    "logs: which?": ("logs", 64, "RUN"),
    "logs: no such rank": ("logs base --rank 7", 66, "has no rank 7 | it has 0"),
    "logs: a rank that is no number": ("logs base --rank one", 64, "--rank one | or all"),
    "logs: no such attempt": ("logs base --attempt 9", 66, "no logs of attempt 9 | it has 1"),
    "cancel: no such run": ("cancel nothing", 66, "no run 'nothing'"),
    "cancel: a limit that is no number": ("cancel base --limit soon", 64, "--limit | 'soon'"),
    "cancel: a cut config.json": ("cancel base", 65, "config.json is damaged | launch the recipe again", in_run("config.json", cut)),
    "resume: no such run": ("resume nothing", 66, "no run 'nothing'"),
    "resume: which?": ("resume steps=30", 64, "needs one run"),
    "resume: an unknown key": ("resume base unknown=1", 78, "unknown: no such key (command line)"),
    "resume: an unknown key of a killed run": ("resume base unknown=1", 78, "unknown: no such key (command line)", unfinished),
    "resume: a wrong key and a step": ("resume base --from 4 stpes=9", 78, "stpes: no such key | 'steps'"),
    "resume: to before where it is": ("resume base stop_at=2", 78, "stop_at=2 | is at step 8 already | --from STEP"),
    "resume: fewer steps than done": ("resume base steps=6", 78, "steps=6 | is at step 8 already"),
    "resume: from a step never saved": ("resume base --from 5", 66, "no valid checkpoint of step 5 | it has 2, 4, 6, 8"),
    "resume: from a word": ("resume base --from last", 64, "--from | 'last'"),
    "resume: a cut config.json": ("resume base steps=9", 65, "config.json is damaged | checkpoint.path=", in_run("config.json", cut)),
    "resume: a config.json of another kind": ("resume base steps=9", 65, "config.json is damaged", in_run("config.json", "[]")),
    "resume: an empty config.json": ("resume base", 65, "config.json is damaged", both(unfinished, in_run("config.json", ""))),
    "resume: an edited ledger": ("resume base", 65, "ledger.jsonl:5: was changed after it was written | --from STEP",
                                 both(unfinished, in_run("ledger.jsonl", edited_ledger))),
    "resume: a ledger without a line": ("resume base steps=9", 65, "ledger.jsonl:2: does not follow",
                                       in_run("ledger.jsonl", wrong_project.without_second_line)),
    "report: no such run": ("report nothing", 66, "no run 'nothing'"),
    "report: into no folder": ("report base --out nowhere/r.html", 64, "there is no folder nowhere"),
    "report: a cut status.json": ("report base --json", 65, "status.json: not the status", in_run("status.json", cut)),
    # checkpoints
    "checkpoint: no such action": ("checkpoint lst base", 64, "'lst'"),
    "checkpoint: no such run": ("checkpoint list nothing", 66, "no run 'nothing'"),
    "checkpoint: a folder without any": ("checkpoint list ./texts", 66, "no checkpoint under"),
    "checkpoint: a step never saved": ("checkpoint verify base step=3", 66, "no checkpoint of step 3 | there are: 2 4 6 8"),
    "checkpoint: a step that is no number": ("checkpoint digest base step=x", 64, "step=x"),
    "checkpoint: runs= names nothing": ("checkpoint list base runs=", 64, "runs="),
    "digest: a flipped bit": ("checkpoint digest base step=8", 65, f"{EIGHT}/rank-00000 | not those that were written",
                              in_step(8, "*.safetensors", flip)),
    "digest: a cut manifest": ("checkpoint digest base step=8", 65, f"no checkpoint of step 8 | {EIGHT}/manifest | checkpoint verify",
                               in_step(8, "manifest.*", cut)),
    "digest: all damaged": ("checkpoint digest base", 65, "no checkpoint | is whole",
                            both(*(in_step(step, "manifest.*", cut) for step in (2, 4, 6, 8)))),
    "export: a flipped bit": ("checkpoint export base --to out", 65, f"{EIGHT}/rank-00000", in_step(8, "*.safetensors", flip)),
    "prune: keep none": ("checkpoint prune base --keep 0", 64, "--keep"),
    # the agent and a worker by hand
    "agent: no command": ("agent", 64, "no command | mltrain agent --workers 2 -- python train.py"),
    "agent: no workers": ("agent --workers 0 -- true", 64, "--workers 0 | from 1"),
    "agent: workers that are no number": ("agent --workers two -- true", 64, "--workers two"),
    "agent: two nodes": ("agent --nnodes 2 -- true", 78, "--nodes 2: where do they meet? | --rendezvous HOST:PORT"),
    "agent: an unknown flag": ("agent --fast -- true", 64, "--fast"),
    "agent: no such program": ("agent -- no-such-program", 64, "cannot start no-such-program"),
    "agent: no such script": ("agent no-such-script.py", 66, "no-such-script.py: there is no such script"),
    "agent: a port that is none": ("agent --master-port 70000 -- true", 64, "--master-port 70000: not a port"),
    "agent: negative restarts": ("agent --restarts -1 -- true", 64, "--restarts"),
    "agent: a run directory that is a file": ("agent --run-dir file -- true", 74, "file: cannot be made: File exists"),
    # storage, secrets, packages
    "runs into a file": ("launch recipe=small runs=file", 74, "file: cannot be made"),
    "runs into no name": ("launch recipe=small name=../up", 78, "name | letters, digits"),
    "checkpoints where nothing can be": ("launch recipe=small checkpoint.path=/proc/nowhere", 74, "/proc/nowhere: cannot be made"),
    "checkpoints into an unknown store": ("check recipe=small checkpoint.path=nonsense://x", 78, "no file system is known for nonsense://x"),
    "secrets that others may read": ("launch recipe=small", 78, "file may be read by others | chmod 600 file", {"MLTRAIN_SECRETS": "file"}),
    "a store whose package is missing": ("launch recipe=small checkpoint.path=s3://b/c", 69,
                                         'checkpoint path s3:// | pip install "mltrain-core[s3]"'),
}

PROCESSES = {
    "a run that is not there": ("status nothing", 66, "no run 'nothing' in runs/"),
    "a misspelt verb": ("statsu", 64, "did you mean status?"),
    "worker: no run": ("worker nowhere", 66, "nowhere is no run of a recipe"),
    "worker: a cut config.json": ("worker runs/base", 65, "config.json is damaged",
                                  both(in_run("config.json", cut), lambda p: run(p).rename(p / "runs" / "base"))),
    "a package that is not there": ("data prepare texts --tokenizer tokenizer.json --out d", 69, 'pip install "mltrain-core[text]"',
                                    {"PYTHONPATH": "blocked"}),
}

#   a run that begins, and fails in its worker; the last line is the agent's: which rank, why, and whether it is started again
WORKERS = {
    "a task that refuses its arguments": ("task.how='refuses its arguments'", 78, "wrong.Task: width must be a multiple of 7"),
    "a loss that raises": ("task.how=raises", 70, "KeyError: 'no such column: image' (wrong.py:17)"),
    "a loss that is a tensor": ("task.how='a tensor'", 70, "Task.loss returned a tensor of shape [], not a Loss | return Loss("),
    "a loss that is no number": ("task.how='not a number'", 70, "step 1: loss nan | lower optimizer.lr or set clip"),
    "a hook that raises": ("task.how='' +callback.own='{_target_: wrong.Hook}'", 70, "RuntimeError: the hook is broken"),
    "a secret that is nowhere": ("task.how='' +callback.own='{_target_: wrong.Hook, key: \"${secret:NOWHERE}\"}'", 78,
                                 "the secret NOWHERE is not set | set it in the environment"),
    "a shard's offset far away": ("task.how=''", 65, "data/train-00000.arrow is damaged | offsets do not rise", offset(3, 1 << 60)),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wrong_project.make(tmp_path_factory.mktemp("original"))


@pytest.fixture
def project(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of this test's own, and the working directory."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-site"))
    copied = wrong_project.copy(original, tmp_path / "project")
    monkeypatch.chdir(copied)
    return copied


def unpack(row: tuple) -> tuple[list[str], int, list[str], Callable[[Path], None], dict[str, str]]:
    """command, exit code, what is told; what was done to the project before, what the environment holds."""
    command, code, told, *more = row
    damage = next((each for each in more if callable(each)), lambda project: None)
    return shlex.split(command), code, told.split(" | "), damage, next((each for each in more if isinstance(each, dict)), {})


def missing_from(said: str, told: list[str], project: Path) -> list[str]:
    return [words for words in [*told] if words.replace("PROJECT", str(project)) not in said]


@pytest.mark.parametrize("row", HERE.values(), ids=HERE)
def test_it_is_told_in_two_lines_and_nothing_is_lost(row, project, capfd, monkeypatch):
    command, code, told, damage, environment = unpack(row)
    damage(project)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for package in ("tokenizers", "s3fs"):
        monkeypatch.setitem(sys.modules, package, None)
    before = contents(project)
    assert main(command) == code
    said = capfd.readouterr().err
    assert missing_from(said, told, project) == [] and said.startswith("mltrain: ") and said.count("\n") <= 2, said
    assert contents(project) == before


@pytest.mark.parametrize("row", PROCESSES.values(), ids=PROCESSES)
def test_by_the_command_itself(row, project):
    command, code, told, damage, environment = unpack(row)
    damage(project)
    before = contents(project)
    said = mltrain(project, *command, code=code, environment={name: str(project / value) for name, value in environment.items()})
    assert missing_from(said, told, project) == [] and "Traceback" not in said and said.count("\n") <= 2, said
    assert contents(project) == before


@pytest.fixture(scope="module")
def failed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, str], str]]:
    """All runs of WORKERS, two at a time: project, its contents before, what was said."""
    def launch(case: str) -> tuple[Path, dict[str, str], str]:
        overrides, code, _, damage, _ = unpack(WORKERS[case])
        project = wrong_project.copy(original, tmp_path_factory.mktemp("worker"))
        damage(project)
        return project, contents(project), mltrain(project, "launch", "recipe=wrong", "name=new", *overrides, code=code)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(WORKERS, pool.map(launch, WORKERS), strict=True))


@pytest.mark.parametrize("case", WORKERS)
def test_a_run_that_fails_in_its_worker_says_why(case, failed):
    project, before, said = failed[case]
    told = [*WORKERS[case][2].split(" | "), "attempt 1: rank 0", "not restarted", "mltrain logs new-"]
    assert missing_from(said, told, project) == [], said
    assert "mltrain/mltrain/" not in said and said.count("Traceback") <= said.count("exited with 70"), said
    assert {name: after for name, after in contents(project).items() if name in before} == before
    assert [row["event"] for row in ledger.read(new(project) / "ledger.jsonl")][-2:] == ["attempt ended", "failed"]


def new(project: Path) -> Path:
    (found,) = (project / "runs").glob("new-2*")
    return found


def test_many_mistakes_are_told_at_once_in_three_lines_each(project, capfd):
    assert main(["launch", "recipe=many"]) == 78
    said = capfd.readouterr().err
    assert said.startswith("mltrain: the recipe has 3 mistakes\n") and said.count("\n") <= 2 + 3 * 3


@pytest.mark.parametrize("recipe", ["aliases", "doubling", "deep"])
def test_a_bomb_costs_less_than_a_fifth_of_a_second(recipe, project, capfd):
    main(["check", "recipe=typo"])                        # the imports are no part of the claim
    began = time.process_time()
    assert main(["check", f"recipe={recipe}"]) == 78
    assert time.process_time() - began < 0.2


def test_a_damaged_run_does_not_hide_the_others(project, capfd):
    wrong_project.twin(project)
    in_run("status.json", cut)(project)
    assert main(["status"]) == 0
    assert [line.split()[1] for line in capfd.readouterr().out.splitlines()[1:]] == ["done", "done", "lost"]


# ── disks, ports, checkpoints: what needs more than a row ────────────────────────────────────────────────────────────────────────
def refused(command: str, code: int, *told: str, capfd: pytest.CaptureFixture | None = None, preexec: Callable | None = None) -> None:
    """The command gets two lines: in this process if there is a capfd to look at, else as one of its own."""
    if capfd and not preexec and not command.startswith("agent"):
        found, said = main(shlex.split(command)), capfd.readouterr().err
    else:
        done = subprocess.run([sys.executable, "-m", "mltrain", *shlex.split(command)], capture_output=True, text=True, timeout=120,
                              stdin=subprocess.DEVNULL, preexec_fn=preexec)
        found, said = done.returncode, done.stderr
    assert found == code and missing_from(said, [*told], Path()) == [] and said.count("\n") <= 2, said


FULL = {
    "launch recipe=small runs=full": "full/small-2",
    "data prepare texts --out full/d": "full/d.partial",
    "recipes copy small full/mine.yaml": "cannot write full/mine.yaml",
    "agent --run-dir full/run -- true": "full/run/lease.json: cannot be written",
    "report base --out full/report.html": "full/report.html: cannot be written",
    "checkpoint export base --to full/out": "full/out",
}


def test_a_full_disk_takes_nothing_and_nothing_is_left_there(project, capfd):
    with wrong_project.full_disk(project / "full") as limit:
        before = contents(project)
        for command, told in FULL.items():
            refused(command, 74, told, capfd=capfd, preexec=limit)
            assert contents(project) == before, command


READ_ONLY = {
    "launch recipe=small": "runs/small-2",
    "resume base steps=12": "runs/base-2",
    "data prepare texts --out runs/d": "runs/d.partial",
    "recipes copy small runs/mine.yaml": "cannot write runs/mine.yaml",
    "agent --run-dir runs/new -- true": "runs/new: cannot be made",
    "report base": "report.html: cannot be written",
}


def test_a_read_only_folder_stays_as_it_is(project, capfd):
    with wrong_project.read_only(run(project)), wrong_project.read_only(project / "runs") as preexec:
        before = contents(project)
        for command, told in READ_ONLY.items():
            refused(command, 74, told, capfd=capfd, preexec=preexec)
            assert contents(project) == before, command


def test_a_run_goes_on_while_the_disk_takes_no_checkpoint_and_says_so_at_its_end(project):
    command = "launch recipe=small name=new steps=8 eval_every=0 launcher.workers=1 launcher.restarts=0 checkpoint.path=tiny"
    with wrong_project.no_room_for_steps(project / "tiny", 4, 8):
        before = contents(project / "tiny")
        assert "step 8 could not be saved" in mltrain(project, *command.split(), code=74)
        assert contents(project / "tiny") == before
    rows = ledger.read(new(project) / "ledger.jsonl")
    assert [(row["event"], row.get("step")) for row in rows if row["event"] in ("save failed", "failed")] == [
        ("save failed", 4), ("save failed", 8), ("failed", 8)]
    assert ledger.verify(new(project) / "ledger.jsonl") == len(rows)


def test_a_port_that_is_taken(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(f"agent --master-port {port} --run-dir mine -- true", 69, f"127.0.0.1:{port}: cannot listen there", "leave")
    assert json.loads(mltrain(project, "status", "./mine", "--json"))[0]["state"] == "failed"


def test_a_run_that_somebody_holds(project):
    holder = subprocess.Popen([sys.executable, "-m", "mltrain", "agent", "--run-dir", "mine", "--", "sleep", "60"], cwd=project)
    try:
        while not (project / "mine" / "attempts").is_dir():
            assert holder.poll() is None
            time.sleep(0.01)
        refused("agent --run-dir mine -- true", 64, "mine is live already", "mltrain logs")
        refused("resume ./mine steps=3", 64, "mine is live: it cannot be changed now", "mltrain cancel mine first")
    finally:
        holder.terminate()
        assert holder.wait(30) == 143


def test_damaged_checkpoints_send_a_resume_to_the_newest_whole_one_and_are_kept(project):
    both(unfinished, in_step(8, "*.safetensors", flip), in_step(6, "*.safetensors", None), in_step(4, "manifest.*", cut))(project)
    kept = {name: digest for name, digest in contents(project).items() if "step-" in name}
    said = mltrain(project, "resume", "base")
    assert missing_from(said, ["goes on after step 2", EIGHT, "step-00000006", "step-00000004"], project) == [] and "Traceback" not in said
    assert [row["event"] for row in ledger.read(run(project) / "ledger.jsonl")].count("checkpoint damaged") == 3
    assert {name: digest for name, digest in contents(project).items() if name in kept} == kept


def test_where_all_checkpoints_are_damaged_nothing_is_begun_anew_or_deleted(project):
    both(unfinished, in_step(8, "manifest.*", cut), *(in_step(step, "*.safetensors", flip) for step in (2, 4, 6)))(project)
    kept = {name: digest for name, digest in contents(project).items() if "step-" in name}
    said = mltrain(project, "resume", "base", code=65)
    assert "no checkpoint under" in said and "to start anew, move the folder away" in said and "not restarted: damaged input" in said
    assert {name: digest for name, digest in contents(project).items() if "step-" in name} == kept


def test_a_resume_from_a_chosen_step_accepts_a_damaged_ledger(project):
    both(unfinished, in_run("ledger.jsonl", edited_ledger))(project)
    mltrain(project, "resume", "base", "--from", "6")
    assert [row["event"] for row in ledger.read(run(project) / "ledger.jsonl")].count("damage accepted") == 1
    refused("resume base stpes=6", 78, "stpes: no such key")          # and no longer 65


def test_a_damaged_status_is_written_anew_by_a_resume(project):
    in_run("status.json", cut)(project)
    assert "is done at step 8: nothing to resume" in mltrain(project, "resume", "base")
    assert json.loads(mltrain(project, "status", "base", "--json"))[0]["state"] == "done"
