"""wandb (offline), TensorBoard and Prometheus for real: one curve over all attempts, and what a client must not take along."""
from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request
from types import ModuleType, SimpleNamespace

import pytest
from tracker_files import tensorboard_curve, wandb_files, wandb_records, wandb_rows

from mltrain.errors import NodeUnfit
from mltrain.metrics.prometheus import Prometheus
from mltrain.metrics.sink import numbers
from mltrain.metrics.tensorboard import TensorBoard
from mltrain.metrics.wandb import Wandb
from mltrain.metrics.writer import Metrics

# Two attempts: the second begins at the checkpoint of step 2 and does steps 3 and 4 again.
ATTEMPTS = [[1, 2, 3, 4], [3, 4, 5, 6]]


def train(step, attempt=1, **more):
    return {"kind": "train", "step": step, "time": 1.7e9 + step, "loss": step + attempt / 10, "steps": 6, "samples": 8 * step, "tokens": 0,
            "step_seconds": 0.5, "data_seconds": 0.1, **more}


def write(make, run, attempts=ATTEMPTS):
    for attempt, steps in enumerate(attempts, 1):
        metrics = Metrics({"sink": make()}, directory=str(run), attempt=attempt)
        for step in steps:
            metrics.put(train(step, attempt))
        metrics.put({"kind": "evaluate", "step": steps[-1], "time": 1.7e9, "loss": 9.0})
        metrics.close(60)
        assert metrics.dropped() == {}


@pytest.fixture
def run(tmp_path, monkeypatch):
    for variable in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "small-20260101-000000-abcd"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"tree": {"optimizer": {"lr": 0.1}, "data": {"path": "s3://me:password@bucket"}}}))
    return run


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_numbers_are_named_by_kind_and_what_places_them_is_left_out():
    assert dict(numbers({"kind": "train", "step": 3, "steps": 9, "time": 1.0, "loss": 2, "skipped": True, "x": None})) == {
        "train/loss": 2.0, "train/skipped": 1.0}


def test_a_note_has_no_numbers():
    assert list(numbers({"kind": "note", "step": 3, "time": 1.0, "text": "17"})) == []


# ── wandb ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_wandb_is_one_run_with_one_curve_over_all_attempts(run):
    write(Wandb, run)
    first, second = wandb_files(run)
    runs = [record.run for file in (first, second) for record in wandb_records(file) if record.HasField("run")]
    curve = {row["step"]: row["train/loss"] for file in (first, second) for row in wandb_rows(file) if "train/loss" in row}
    metrics = {(record.metric.glob_name, record.metric.step_metric) for record in wandb_records(second) if record.HasField("metric")}
    assert {each.run_id for each in runs} == {run.name}
    assert curve == {1: 1.1, 2: 2.1, 3: 3.2, 4: 4.2, 5: 5.2, 6: 6.2}
    assert ("*", "step") in metrics


def test_wandb_gets_the_recipe_without_secrets_and_nothing_of_the_machine(run):
    write(Wandb, run, [[1]])
    (file,) = wandb_files(run)
    everything = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file() and "wandb" in path.parts)
    config = {item.key: json.loads(item.value_json) for record in wandb_records(file) if record.HasField("run")
              for item in record.run.config.update}
    assert config["optimizer"] == {"lr": 0.1}
    assert config["data"] == {"path": "s3://***@bucket"}
    unwanted = (b"password", socket.gethostname().encode(), sys.argv[0].encode(), b"requirements")
    assert [text for text in unwanted if text in everything] == []


def test_a_run_that_has_no_numbers_leaves_no_empty_curve(run):
    metrics = Metrics({"wandb": Wandb()}, directory=str(run))
    metrics.note("it died while it loaded", 0)
    metrics.close()
    assert wandb_files(run) == []


def test_a_package_with_the_same_interface_is_a_word(run, monkeypatch):
    """A module with trackio's functions (the package itself brings a web server and 80 MB)."""
    calls = []
    tracked = SimpleNamespace(log=lambda row, step: calls.append((step, row)), finish=lambda: calls.append("finish"))
    module = ModuleType("trackio")
    module.init = lambda **arguments: (calls.append(arguments), tracked)[1]
    monkeypatch.setitem(sys.modules, "trackio", module)
    write(lambda: Wandb(project="p", package="trackio"), run, [[1]])
    begun, *rows = calls
    assert (begun["project"], begun["name"], begun["resume"]) == ("p", run.name, "allow")
    assert rows == [(1, {name: value for name, value in numbers(train(1))}), (1, {"evaluate/loss": 9.0}), "finish"]


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(NodeUnfit, match=r'mltrain-core\[wandb\]'):
        Wandb()


# ── TensorBoard ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tensorboard_shows_one_curve_over_all_attempts(run):
    write(TensorBoard, run)
    curve = tensorboard_curve(run / "tensorboard", "train/loss")
    assert [step for step, _ in curve] == [1, 2, 3, 4, 5, 6]
    assert [round(value, 4) for _, value in curve] == [1.1, 2.1, 3.2, 4.2, 5.2, 6.2]


def test_tensorboard_has_what_was_written_before_a_kill(run):
    sink = TensorBoard()
    sink.begin(str(run), 1)
    sink.write(train(1))
    assert tensorboard_curve(run / "tensorboard", "train/samples") == [(1, 8.0)]
    sink.close()


def test_tensorboard_brings_neither_tensorflow_nor_torch(run):
    import subprocess
    code = ("import sys; from mltrain.metrics.tensorboard import TensorBoard; s = TensorBoard(sys.argv[1]);"
            "s.write({'kind': 'train', 'step': 1, 'time': 1.0, 'loss': 1.0}); s.close();"
            "print([m for m in ('torch', 'tensorflow') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, str(run / "tb")], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


# ── Prometheus ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_text_file_has_the_newest_numbers(run):
    (run / "status.json").write_text('{"goodput": 0.75}')
    write(Prometheus, run)
    lines = (run / "metrics.prom").read_text().splitlines()
    label = f'{{run="{run.name}"}}'
    assert f"mltrain_step{label} 6.0" in lines
    assert f"mltrain_loss{label} 6.2" in lines
    assert f"mltrain_samples_total{label} 48.0" in lines
    assert f"mltrain_restarts_total{label} 1.0" in lines
    assert f"mltrain_goodput_ratio{label} 0.75" in lines
    assert f'mltrain_step_seconds{{phase="data",run="{run.name}"}} 0.1' in lines
    assert f'mltrain_step_seconds{{phase="compute",run="{run.name}"}} 0.4' in lines
    assert f'mltrain_evaluation{{name="loss",run="{run.name}"}} 9.0' in lines
    assert f"mltrain_last_step_timestamp{label} 1.700000006e+09" in lines


def test_the_text_file_is_replaced_and_never_half_written(run):
    write(Prometheus, run)
    with (run / "metrics.prom").open() as before:
        write(Prometheus, run, [[7]])
        assert "mltrain_step{" in before.read()               # a reader that came earlier has the whole of the old one
        assert os.fstat(before.fileno()).st_ino != (run / "metrics.prom").stat().st_ino
    assert [path.name for path in run.glob("metrics.prom*")] == ["metrics.prom"]


def test_the_endpoint_listens_on_loopback_alone(run):
    sink = Prometheus(port=0)
    sink.begin(str(run), 1)
    sink.write(train(3))
    address = sink._server.server_address[0]
    page = urllib.request.urlopen(f"http://127.0.0.1:{sink.port}/metrics", timeout=10).read().decode()
    sink.close()
    assert address == "127.0.0.1"
    assert f'mltrain_step{{run="{run.name}"}} 3.0' in page


def test_an_endpoint_is_gone_after_the_run(run):
    sink = Prometheus(port=0)
    sink.begin(str(run), 1)
    sink.write(train(3))
    port = sink.port
    sink.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_port_that_is_taken_costs_the_sink_and_not_the_run(run, capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        metrics = Metrics({"prometheus": Prometheus(port=taken.getsockname()[1])}, directory=str(run))
        for step in range(1, 6):
            metrics.put(train(step))
        metrics.close()
    assert metrics.dropped() == {"prometheus": 5}
    assert "prometheus is switched off" in (run / "metrics" / "attempt-0001.jsonl").read_text()
