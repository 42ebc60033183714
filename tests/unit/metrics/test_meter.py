"""From the result of a step to a record: totals, and rates of the interval."""
from __future__ import annotations

from mltrain.metrics.meter import Meter, memory_bytes
from mltrain.progress import Progress
from mltrain.task import StepResult


def result(step, **changes):
    return StepResult(**{"step": step, "loss": 2.0, "weight": 64.0, "norm": 1.0, "lr": 0.1} | changes)


def test_a_record_carries_the_fields_of_the_contract():
    record = Meter().record(result(1), Progress(1, 8, 1024), seconds=0.5, data_seconds=0.1)
    assert sorted(record) == sorted("kind step time loss norm lr weight samples tokens samples_per_second tokens_per_second step_seconds "
                                    "data_seconds memory_bytes".split())


def test_rates_are_of_the_interval_and_totals_of_the_run():
    meter = Meter()
    meter.record(result(1), Progress(1, 8, 1024), seconds=100.0, data_seconds=0.0)
    record = meter.record(result(11), Progress(11, 88, 11264), seconds=2.0, data_seconds=0.5)
    assert (record["samples"], record["tokens"]) == (88, 11264)
    assert (record["samples_per_second"], record["tokens_per_second"]) == (40.0, 5120.0)
    assert (record["step_seconds"], record["data_seconds"]) == (0.2, 0.05)


def test_after_a_resume_the_first_interval_begins_at_its_start():
    record = Meter(start=Progress(500, 4000, 0)).record(result(510), Progress(510, 4080, 0), seconds=2.0, data_seconds=0.0)
    assert (record["samples_per_second"], record["step_seconds"]) == (40.0, 0.2)


def test_time_left_follows_from_the_steps_left():
    record = Meter(steps=110).record(result(10), Progress(10, 80, 0), seconds=5.0, data_seconds=0.0)
    assert (record["steps"], record["eta_seconds"]) == (110, 50.0)


def test_a_skipped_step_is_marked():
    assert Meter().record(result(1, skipped=True), Progress(1, 8, 0), 1.0, 0.0)["skipped"] is True


def test_memory_is_this_process():
    before = memory_bytes()
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert memory_bytes() - before > 32 * 2**20


def test_the_time_of_a_step_is_told_by_phase():
    meter = Meter()
    for step in (1, 2):
        meter.count(result(step, seconds={"compute": 0.1 * step, "collective": 0.5}))
    record = meter.record(result(2), Progress(2, 16, 0), seconds=2.0, data_seconds=0.0)
    assert (round(record["compute_seconds"], 6), record["collective_seconds"]) == (0.15, 0.5)
    assert "compute_seconds" not in meter.record(result(3), Progress(3, 24, 0), seconds=1.0, data_seconds=0.0)
