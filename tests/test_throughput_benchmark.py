"""The throughput benchmark: figures that are there and agree with each other, a configuration that fails, a sweep. Nothing is said about how fast anything is."""
import json

import numpy as np
import pytest

from signver_kit import distribution, throughput
from signver_kit.benchmark import BenchmarkFailed, read_record, run_benchmark
from signver_kit.throughput import failed_row, step_statistics


def test_smoke_measures_and_leaves_a_record(tmp_path, in_this_process, monkeypatch):
    calls = []

    def pretend(command, workers, *, threads, timeout):
        "In place of several processes, whose training together is test_distribution's."
        asked = json.loads(command[-1])
        calls.append((workers, asked["workers"], asked["job"][1], threads))
        speed = {(1, 8): 100.0, (2, 16): 150.0, (2, 8): 120.0}[workers, asked["job"][1]]
        return [f"a word of the backend's\n{json.dumps({'workers': workers, 'batch': asked['job'][1], 'images_per_second': speed})}\n", ""][:workers]
    monkeypatch.setattr(distribution, "run_workers", pretend)
    result = run_benchmark("throughput", "smoke", {"price_per_hour": 3.6, "workers": 2}, out=tmp_path / "smoke", progress=False)
    record, metrics = read_record(result.record_path), result.record.metrics
    assert result.exit_code == 0 and record.error is None and record.environment["backend"] == "tensorflow" and record.environment["precision"] == "float32"
    assert record.parameters["batch"] == 8 and record.parameters["size"] == [64, 96] and record.parameters["threads"] >= 1
    assert metrics["step_ms_p50"] <= metrics["step_ms_p95"] <= metrics["step_ms_p99"] and metrics["timed_steps"] == 6
    assert metrics["images_per_second_p10"] <= metrics["images_per_second"] <= metrics["images_per_second_p90"]
    assert metrics["compile_seconds"] > 0 and metrics["memory_peak_mib"] > 50 and metrics["pipeline_ratio"] > 0
    assert metrics["peak_share"] == pytest.approx(3 * metrics["flops_per_image"] * metrics["images_per_second"] / (1e9 * metrics["peak_gflops"]))
    assert metrics["seconds_per_epoch"] == pytest.approx(60_000 / metrics["images_per_second"]) and metrics["cost_per_epoch"] == pytest.approx(metrics["seconds_per_epoch"] / 1000)
    # the figures are those of the times that are kept
    taken = record.curves["step_seconds"]
    again = step_statistics(np.concatenate(taken["real"]), 8)
    assert all(metrics[name] == pytest.approx(value) for name, value in again.items()) and len(taken["begin"]) == 2
    assert metrics.get("energy_joules_per_image", 0) > 0 or "energy" in record.notes                # one or the other
    assert {path.stem for path in result.figures} == {"steps", "contestants"}
    # scaling: against one worker with the same share of the cores
    assert [call[:3] for call in calls] == [(1, 1, 8), (2, 2, 16), (2, 2, 8)] and len({threads for *_, threads in calls}) == 1
    assert (metrics["workers"], metrics["scaling_efficiency"], metrics["strong_scaling_efficiency"]) == (2, pytest.approx(0.75), pytest.approx(0.6))
    assert metrics["worker_alone_images_per_second"] == 100 and "2 processes on one machine" in record.notes["scaling"]


def test_a_configuration_that_fails_leaves_a_record_that_says_so(tmp_path, in_this_process):
    with pytest.raises(BenchmarkFailed) as failure:
        run_benchmark("throughput", None, {"batch": 7}, out=tmp_path / "odd", progress=False)
    record = read_record(tmp_path / "odd")
    assert record.error.startswith("failed: ValueError: an extractor's batch") and record.metrics == {} and failure.value.result.exit_code == 1


def test_a_sweep_tables_what_worked_and_what_did_not(tmp_path, in_this_process, monkeypatch):
    calls = []

    def pretend(setup, timeout):
        calls.append((setup.batch, setup.precision, timeout))
        if setup.batch == 64:
            return failed_row(setup, "killed by SIGKILL: out of memory, most likely")
        metrics = step_statistics([setup.batch / 100] * 5, setup.batch) | {"batch": setup.batch, "pipeline_ratio": 1.0}
        return {**failed_row(setup, None), "metrics": metrics, "used": {"batch": setup.batch, "precision": setup.precision}, "environment": {"device": "cpu"}}
    monkeypatch.setattr(throughput, "measure_apart", pretend)
    grid = {"batch": [16, 32, 64], "precision": ["float32", "mixed_bfloat16"]}
    result = run_benchmark("throughput", None, {"grid": grid, "timeout": 60}, out=tmp_path / "sweep", progress=False)
    metrics = result.record.metrics
    assert (metrics["configurations"], metrics["failed_configurations"], metrics["best_images_per_second"]) == (6, 2, pytest.approx(100)) and len(calls) == 6
    assert {timeout for *_, timeout in calls} == {60} and [path.stem for path in result.figures] == ["sweep"]
    kept = [read_record(folder) for folder in sorted((tmp_path / "sweep" / "rows").iterdir())]
    assert [record.parameters["batch"] for record in kept] == [16, 16, 32, 32, 64, 64] and kept[5].error.startswith("failed: killed by SIGKILL") and kept[0].error is None
    assert json.loads((tmp_path / "sweep" / "record.json").read_text())["curves"]["sweep"]["batch"] == [16, 16, 32, 32, 64, 64]
