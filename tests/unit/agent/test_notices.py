"""Who tells that a machine goes: real HTTP servers in the clouds' place, the firmware's files, Slurm's and Kubernetes' variables."""
from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from fake_cloud import ACTION, AWS, AZURE, EVENTS, GOOGLE, LIMIT, NAME, PREEMPTED, REBALANCE, Service, fake_cloud

from mltrain.agent import clouds, notices
from mltrain.agent.clouds import Notice
from mltrain.agent.loop import Loop
from mltrain.errors import ConfigError


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with fake_cloud(request.param) as service:
        yield service


aws, google, azure = (pytest.mark.parametrize("service", [needs], indirect=True) for needs in (AWS, GOOGLE, AZURE))


def in_seconds(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


# ── what each cloud says ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@aws
def test_aws_takes_a_spot_machine(service: Service) -> None:
    cloud = clouds.cloud("aws", service.base)
    assert cloud.look() == []
    service.answers[ACTION] = json.dumps({"action": "terminate", "time": in_seconds(120)})
    (notice,) = cloud.look()
    assert notice.final and notice.source == "AWS" and notice.text.startswith("spot interruption: terminate at 2")
    assert notice.seconds == pytest.approx(119, abs=15)


@aws
def test_a_rebalance_recommendation_is_advice(service: Service) -> None:
    service.answers[REBALANCE] = json.dumps({"noticeTime": in_seconds(0)})
    (notice,) = clouds.cloud("aws", service.base).look()
    assert not notice.final and notice.text.startswith("rebalance recommendation")


@google
def test_google_answers_when_it_changes(service: Service) -> None:
    cloud = clouds.cloud("gcp", service.base)
    service.answers[PREEMPTED] = "FALSE"
    assert cloud.look() == []
    found: list[Notice] = []
    thread = threading.Thread(target=lambda: found.extend(cloud.look()))
    thread.start()
    service.answers[PREEMPTED] = "TRUE"
    service.changed.set()
    thread.join(LIMIT)
    assert [notice.seconds for notice in found] == [30.0] and "last_etag=1" in service.asked[-1]


@azure
def test_azure_names_the_machines_an_event_is_for(service: Service) -> None:
    service.answers[NAME] = "worker_3"
    event = {"EventType": "Preempt", "Resources": ["worker_2"], "NotBefore": formatdate(time.time() + 30, usegmt=True)}
    service.answers[EVENTS] = json.dumps({"DocumentIncarnation": 1, "Events": [event]})
    cloud = clouds.cloud("azure", service.base)
    assert cloud.look() == []
    others = [{**event, "Resources": ["worker_3"], "EventType": kind, "NotBefore": ""} for kind in ("Freeze", "Terminate")]
    service.answers[EVENTS] = json.dumps({"Events": [{**event, "Resources": ["worker_3"]}, *others]})
    preempt, freeze, terminate = cloud.look()
    assert preempt.final and preempt.seconds == pytest.approx(29, abs=15) and "Preempt" in preempt.text
    assert not freeze.final and terminate.final and terminate.seconds == 0


@aws
@pytest.mark.parametrize("text", ["no JSON", "[]", '"a string"'])
def test_an_answer_that_is_not_as_documented_is_none(service: Service, text: str) -> None:
    service.answers[ACTION] = text
    with pytest.raises(clouds.Unanswered):
        clouds.cloud("aws", service.base).look()


@aws
def test_what_a_service_says_fits_one_line(service: Service) -> None:
    service.answers[ACTION] = json.dumps({"action": "stop\n\x1b[31m" + "x" * 1000, "time": "soon"})
    (notice,) = clouds.cloud("aws", service.base).look()
    assert notice.text.isprintable() and len(notice.text) < 300 and notice.seconds is None


# ── which cloud is this? ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("file", "text", "name"), [
    ("sys_vendor", "Amazon EC2\n", "aws"), ("bios_version", "4.11.amazon\n", "aws"), ("sys_vendor", "Google\n", "gcp"),
    ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77\n", "azure"), ("sys_vendor", "Microsoft Corporation\n", ""),
    ("sys_vendor", "QEMU\n", ""), ("nothing", "", "")])
def test_the_firmware_says_which_cloud_this_is(tmp_path: Path, file: str, text: str, name: str) -> None:
    (tmp_path / file).write_text(text)
    assert clouds.which(tmp_path) == name


def test_no_thread_where_there_is_no_cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(notices, "which", lambda: clouds.which(tmp_path))
    before = threading.active_count()
    notices.Notices(Loop(), lambda notice: None).begin(120, {})
    assert threading.active_count() == before and notices.service_of({"MLTRAIN_METADATA": "off"}) is None


@pytest.mark.parametrize("text", ["aws", "ibm=http://127.0.0.1:1", "aws=ftp://host", "http://127.0.0.1:1"])
def test_a_wrong_service_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="MLTRAIN_METADATA"):
        notices.service_of({"MLTRAIN_METADATA": text})


# ── in the agent's loop ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def listen(environment: dict[str, str], count: int) -> list[Notice]:
    """The first notices that come."""
    loop, found = Loop(), []
    notices.Notices(loop, found.append).begin(120, environment)
    loop.after(LIMIT, lambda: found.extend([Notice("nobody", "nothing came")] * count))
    loop.run(lambda: len(found) >= count)
    return found


@aws
def test_advice_and_the_notice_come_once_each(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clouds.Aws, "pause", 0.01)
    service.answers[REBALANCE] = json.dumps({"noticeTime": in_seconds(0)})
    threading.Timer(0.1, lambda: service.answers.update({ACTION: json.dumps({"action": "stop", "time": in_seconds(60)})})).start()
    found = listen({"MLTRAIN_METADATA": f"aws={service.base}"}, 2)
    assert [notice.final for notice in found] == [False, True]


@google
def test_a_service_that_fails_is_told_once_and_asked_again(service: Service, monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(notices, "_RETRY", 0.01)
    service.broken, service.answers[PREEMPTED] = True, "TRUE"

    def mend() -> None:
        give_up = time.monotonic() + LIMIT
        while len(service.asked) < 6 and time.monotonic() < give_up:
            time.sleep(0.01)
        service.broken = False
    threading.Thread(target=mend).start()
    (notice,) = listen({"MLTRAIN_METADATA": f"gcp={service.base}"}, 1)
    assert notice.source == "Google Cloud"
    assert capsys.readouterr().err.count(f"the metadata service of gcp does not answer (GET {PREEMPTED}: 500)") == 1


def test_slurms_end_of_time_comes_with_time_to_save() -> None:
    end = str(int(time.time()) + 3)
    (notice,) = listen({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": end}, 1)
    assert notice.source == "Slurm" and notice.seconds is not None and 0 < notice.seconds <= 0.3


# ── signals and deadlines ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("number", "environment", "source"), [
    (signal.SIGTERM, {}, "signal"), (signal.SIGUSR1, {}, "signal"), (signal.SIGHUP, {"SLURM_JOB_ID": "7"}, "signal"),
    (signal.SIGUSR1, {"SLURM_JOB_ID": "7"}, "Slurm"), (signal.SIGTERM, {"SLURM_JOB_ID": "7"}, "Slurm"),
    (signal.SIGTERM, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes")])
def test_who_stands_behind_a_signal(number: signal.Signals, environment: dict[str, str], source: str) -> None:
    assert notices.of_signal(number, environment).source == source


def test_the_deadline_is_the_least_of_all() -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) + 60)}
    assert notices.of_signal(signal.SIGUSR1, job).seconds == pytest.approx(59.5, abs=10)
    assert notices.seconds_to_leave(Notice("AWS", "", 119), 120) == 117
    assert notices.seconds_to_leave(Notice("AWS", "", 119), 20) == 20
    assert notices.seconds_to_leave(Notice("AWS", "", 0), 120) == 1
    assert notices.seconds_to_leave(Notice("signal", "SIGTERM"), 120) == 120
    assert notices.default_grace(120, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == 28 and notices.default_grace(120, {}) == 120


@pytest.mark.parametrize("end", ["", "NONE", "1", "99999999999"])
def test_a_job_without_a_limit_has_no_end(end: str) -> None:
    assert notices.seconds_of_job({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": end}) is None
    assert notices.seconds_of_job({"SLURM_JOB_END_TIME": str(int(time.time()) + 60)}) is None
