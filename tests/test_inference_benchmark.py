"""The inference benchmark on networks small enough for a test: rows, what a failing one looks like, and the record."""
from dataclasses import asdict

import numpy as np
import pytest

from signver_kit import export
from signver_kit.benchmark import BenchmarkFailed, list_presets, load_preset, merge_parameters, notebook_parameters, benchmark_path, read_record, run_benchmark
from signver_kit.cleaner import CleanerConfig, build_cleaner
from signver_kit.training import save_model

QUICK = {"models": ["cleaner"], "formats": ["keras", "openvino"], "batches": [1, 3], "steps": 6, "warmup": 1, "rounds": 2, "sizes": {"cleaner": [16, 24]}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    config = CleanerConfig(channels=(4, 8))
    model = build_cleaner(config)
    model.get_layer("change").kernel.assign(np.random.default_rng(0).normal(0, 0.5, (4, 4, 1, 4)))
    return {"cleaner": str(save_model(model, tmp_path_factory.mktemp("weights") / "cleaner", asdict(config), {}))}


def test_every_row_is_measured_and_a_failing_one_says_why(weights, tmp_path, in_this_process, monkeypatch):
    opened = export.open_export

    class Crowded:
        about, precision = {"bytes": 1}, "float32"

        def __init__(self, path, **options):
            self.own = opened(path, **options)

        def __call__(self, batch):
            if len(batch) > 1:
                raise MemoryError("no room for more than one picture")
            return self.own(batch)

    monkeypatch.setattr(export, "open_export", Crowded)
    result = run_benchmark("inference", None, QUICK | {"formats": ["keras", "openvino", "abacus"], "weights": weights}, out=tmp_path / "run", progress=False)
    record = read_record(result.record_path)
    metrics, rows = record.metrics, record.curves["rows"]
    assert record.error is None and result.exit_code == 0 and {path.stem for path in result.figures} == {"latency", "throughput", "course"}
    assert rows["format"] == ["keras", "openvino", "abacus"] * 2 and rows["batch"] == [1] * 3 + [3] * 3
    assert rows["calls"] == [6, 6, None, 6, None, None]
    for name in ("keras_b1", "openvino_b1", "keras_b3"):
        p50, p95, p99 = (metrics[f"cleaner_{name}_latency_ms_{p}"] for p in ("p50", "p95", "p99"))
        assert 0 < p50 <= p95 <= p99 and metrics[f"cleaner_{name}_images_per_second"] == pytest.approx(1000 * int(name[-1]) / p50)
        assert len(record.curves["calls_ms"][f"cleaner_{name}"]) == 6
    assert metrics["cleaner_keras_b1_difference"] == 0 and metrics["cleaner_openvino_b1_difference"] < export.TOLERANCE["cleaner"]["bfloat16"]
    assert metrics["cleaner_openvino_b3_latency_ms_p50"] is None and "MemoryError: no room" in record.notes["metrics.cleaner_openvino_b3_latency_ms_p50"]
    assert "one of onnx" in record.notes["metrics.cleaner_abacus_b1_latency_ms_p50"]
    assert metrics["cleaner_keras_megabytes"] > 0 and "latency_ms_p50" not in metrics                # the headline is the extractor's, which was not asked for
    assert record.data["sizes"] == {"cleaner": [16, 24]} and record.data["weights"]["cleaner"] and record.environment["runtimes"]["openvino"]


def test_the_headline_is_the_extractor_in_keras_with_one_picture(tmp_path, in_this_process):
    result = run_benchmark("inference", None, QUICK | {"models": ["extractor"], "formats": ["keras"], "batches": [1], "steps": 3, "rounds": 1}, out=tmp_path / "run", progress=False)
    metrics = read_record(result.record_path).metrics
    assert metrics["latency_ms_p50"] == metrics["extractor_keras_b1_latency_ms_p50"] > 0
    assert metrics["latency_ms_p50"] <= metrics["latency_ms_p95"] == metrics["extractor_keras_b1_latency_ms_p95"]


def test_nothing_to_time_is_an_error(tmp_path, in_this_process):
    with pytest.raises(BenchmarkFailed, match="batches of at least 1"):
        run_benchmark("inference", None, QUICK | {"batches": [0]}, out=tmp_path / "run", progress=False)


@pytest.mark.parametrize("preset", list_presets("inference"))
def test_presets_fit_the_notebook(preset):
    merged = merge_parameters(notebook_parameters(benchmark_path("inference")), load_preset("inference", preset))
    assert set(merged["models"]) <= set(export.KINDS) and {one.removesuffix("_float32") for one in merged["formats"]} <= {"keras", *export.FORMATS}
