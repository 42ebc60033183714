"""Several hosts, each in a network namespace of its own: whatever is killed, stopped or cut, the run ends with the bits of one that nobody
disturbed."""
from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_project
from hosts import PORT, Host, await_attempt, events, hosts, nodes, possible
from small_project import digest, mltrain

from mltrain.agent.hosts.crew import SILENCE
from mltrain.api.recipes import checked
from mltrain.beginning import new_run
from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.runs.outcome import read_status
from mltrain.testing.faults import kill, wait_for, worker_pids

# On a laptop without root; in CI a skip is a failure (conftest.py).
pytestmark = pytest.mark.skipif(bool(possible()), reason=possible())
STEPS = ["steps=200", "checkpoint.every=20", "eval_every=0", "checkpoint.keep=3", "launcher.workers=1"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project.make(tmp_path_factory.mktemp("hosts"))


@pytest.fixture(scope="module")
def undisturbed(project: Path) -> str:
    mltrain(project, "launch", "recipe=small", "name=calm", *STEPS)
    return digest(project, "calm")


class Run:
    """One run on three hosts, two of which it needs."""

    def __init__(self, project: Path, name: str, there: list[Host]) -> None:
        self.project, self.hosts = project, there
        composed, problems = checked(["recipe=small", f"name={name}", *STEPS], project)
        assert not problems
        self.path = new_run(composed, ["test"])

    def start(self, *there: Host) -> None:
        words = ["--nodes", "2", "--rendezvous", f"{self.hosts[0].address}:{PORT}", "--workers", "1", "--join-timeout", "60"]
        for host in there:
            host.start(self.path, *words, "--", sys.executable, "-m", "mltrain", "worker", str(self.path), cwd=self.project,
                       environment={"PACE": "0.05"})

    def taking_part(self) -> list[Host]:
        """In the order of their ranks; the first is the controller's."""
        return [next(host for host in self.hosts if host.name == name) for name in nodes(self.path)]

    def spare(self) -> Host:
        return next(host for host in self.hosts if host.name not in nodes(self.path))

    def await_join(self, host: Host, count: int) -> None:
        wait_for(lambda: sum(row["node"] == host.name for row in events(self.path, "node joined")) >= count, 60, f"{host.name} back")

    def end(self, *there: Host, limit: float = 120.0) -> None:
        """All of these agents leave with 0, and the ledger is whole."""
        for host in there:
            assert host.agent is not None and host.agent.wait(limit) == 0, self.printed()
        assert read_status(self.path)["state"] == "done"
        ledger.verify(ledger_file(self.path))
        numbers = [row["attempt"] for row in events(self.path, "attempt started")]
        assert numbers == [*range(1, len(numbers) + 1)]

    def printed(self) -> str:
        return "".join(f"{host.name}\n{(self.path.parent / f'{self.path.name}.{host.name}.out').read_text()}" for host in self.hosts)


@pytest.fixture
def three(project: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Two of them train, the third is a spare that is ready."""
    monkeypatch.chdir(project)
    with hosts(3) as there:
        run = Run(project, request.node.name.partition("[")[0].replace("test_", "")[:40] + f"-{os.getpid()}", there)
        run.start(*there)
        await_attempt(run.path, 1)
        yield run


def last_cause(run: Run) -> str:
    return str(events(run.path, "attempt ended")[-1]["cause"].get("message", ""))


def test_a_worker_an_agent_and_the_controllers_host(three: Run, undisturbed: str) -> None:
    """One after the other: killed, killed, and without power."""
    kill(worker_pids(three.path)[1])
    await_attempt(three.path, 2)
    victim = three.taking_part()[1]
    victim.kill_agent()
    assert victim.name not in await_attempt(three.path, 3), "the spare has taken its place"
    assert "the connection to its agent ended" in last_cause(three)
    controller, heir = three.taking_part()
    controller.lose_power()
    assert await_attempt(three.path, 4) == [heir.name]
    assert "it was the controller" in last_cause(three)
    three.end(heir)
    assert digest(three.project, three.path.name) == undisturbed


@pytest.mark.full
def test_a_host_without_power_is_replaced(three: Run, undisturbed: str) -> None:
    victim, spare = three.taking_part()[1], three.spare()
    victim.lose_power()
    assert spare.name in await_attempt(three.path, 2)
    assert "silent for 3 s" in last_cause(three)
    three.end(three.hosts[0], spare)
    assert digest(three.project, three.path.name) == undisturbed


@pytest.mark.full
def test_without_a_spare_the_run_shrinks_and_grows_back(three: Run, undisturbed: str) -> None:
    spare, victim = three.spare(), three.taking_part()[1]
    spare.kill_agent()
    victim.kill_agent()
    assert await_attempt(three.path, 2) == [three.hosts[0].name]
    three.start(spare)
    assert await_attempt(three.path, 3) == [three.hosts[0].name, spare.name]
    rows = [(row["outcome"], "cause" in row) for row in events(three.path, "attempt ended")]
    assert rows == [("restarted", True), ("restarted", False)], "growing is no failure"
    three.end(three.hosts[0], spare)
    assert digest(three.project, three.path.name) == undisturbed


@pytest.mark.full
def test_a_host_that_is_cut_off_ends_its_workers_and_comes_back(three: Run, undisturbed: str) -> None:
    victim, spare = three.taking_part()[1], three.spare()
    pids = worker_pids(three.path)
    victim.link("down")
    assert spare.name in await_attempt(three.path, 2)
    wait_for(lambda: not os.path.exists(f"/proc/{pids[1]}"), 10, "the isolated worker's death")
    victim.link("up")
    three.await_join(victim, 2)
    three.end(*three.hosts)
    assert digest(three.project, three.path.name) == undisturbed


@pytest.mark.full
def test_a_controller_that_is_cut_off_is_deposed(three: Run, undisturbed: str) -> None:
    controller, heir = three.taking_part()
    controller.link("down")
    assert heir.name in await_attempt(three.path, 2) and controller.name not in nodes(three.path)
    controller.link("up")
    three.await_join(controller, 1)
    three.end(*three.hosts)
    assert digest(three.project, three.path.name) == undisturbed


@pytest.mark.full
@pytest.mark.parametrize("which", [0, 1])
def test_a_stopped_host(three: Run, undisturbed: str, which: int) -> None:
    """A virtual machine that is paused: it goes on later, and must not go on with its work."""
    victim = three.taking_part()[which]
    victim.signal_all(signal.SIGSTOP)
    assert victim.name not in await_attempt(three.path, 2)
    victim.signal_all(signal.SIGCONT)
    three.await_join(victim, 1 if which == 0 else 2)
    three.end(*three.hosts)
    assert digest(three.project, three.path.name) == undisturbed


@pytest.mark.full
def test_a_slow_network_ends_nothing(project: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 ms there and back between any two: another continent."""
    monkeypatch.chdir(project)
    with hosts(3, delay=0.02) as there:
        run = Run(project, f"slow-{os.getpid()}", there)
        run.start(*there)
        await_attempt(run.path, 1)
        run.end(*there, limit=240)
    assert len(events(run.path, "attempt started")) == 1
    assert digest(project, run.path.name) == undisturbed


@pytest.mark.full
def test_storage_that_does_not_answer_for_a_while_ends_nothing(three: Run, undisturbed: str) -> None:
    """The controller can write no row for twice as long as the others wait for a controller that is silent."""
    with open(ledger_file(three.path)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        began = time.monotonic()
        kill(worker_pids(three.path)[1])                       # a failure, so that there is something to write
        wait_for(lambda: time.monotonic() > began + 2 * SILENCE, 10)
        fcntl.flock(file, fcntl.LOCK_UN)
    await_attempt(three.path, 2)
    three.end(*three.hosts)
    assert events(three.path, "node lost") == [] and len(events(three.path, "attempt started")) == 2
    assert digest(three.project, three.path.name) == undisturbed


@pytest.mark.full
def test_a_network_that_stutters_ends_nothing(three: Run, undisturbed: str) -> None:
    """Away for a second at a time: less than a lease."""
    victim = three.taking_part()[1]
    for _ in range(3):
        for state, seconds in (("down", 1.0), ("up", 2.0)):
            victim.link(state)
            until = time.monotonic() + seconds
            wait_for(lambda until=until: time.monotonic() > until, 5)
    three.end(*three.hosts)
    assert len(events(three.path, "attempt started")) == 1
    assert digest(three.project, three.path.name) == undisturbed


@pytest.mark.full
def test_notice_at_one_host_saves_everywhere(three: Run) -> None:
    agent = three.taking_part()[1].agent
    assert agent is not None
    for pid in three.taking_part()[1].pids():                  # `ip netns exec` has become the agent
        if pid == agent.pid:
            kill(pid, signal.SIGTERM)
    assert {host.agent.wait(60) for host in three.hosts if host.agent} == {75}, three.printed()
    assert read_status(three.path)["state"] == "stopped"


@pytest.mark.full
def test_an_unfit_node_is_left_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    (project / "unfit.py").write_text("import os, sys, time\nif os.environ['GROUP_RANK'] == '1' and os.environ['MLTRAIN_ATTEMPT'] == '1':\n"
                                      "    sys.exit(69)\ntime.sleep(1)\n")
    with hosts(3) as there:
        run = project / "runs" / f"unfit-{os.getpid()}"
        for host in there:
            host.start(run, "--nodes", "2", "--rendezvous", f"{there[0].address}:{PORT}", "--", sys.executable, "unfit.py", cwd=project)
        codes = [host.agent.wait(60) for host in there if host.agent]
    assert sorted(codes) == [0, 0, 69]
    assert len(events(run, "node excluded")) == 1
