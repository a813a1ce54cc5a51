"""The cleaning benchmark, run as a user runs it, on sets small enough for a test."""
import math

import pytest

from signver_kit.benchmark import BenchmarkFailed, read_record, run_benchmark


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return run_benchmark("cleaning", "smoke", out=tmp_path_factory.mktemp("run") / "smoke", progress=False)


def test_smoke_measures_every_method_and_leaves_a_record(smoke):
    record = read_record(smoke.record_path)
    metrics = record.metrics
    assert record.error is None and smoke.exit_code == 0
    for prefix in ("", "dirty_", "whitened_", "classical_", "autoencoder_"):
        assert 5 < metrics[f"{prefix}psnr"] < 60 and -1 <= metrics[f"{prefix}ssim"] <= 1, prefix
        assert all(0 <= metrics[f"{prefix}{name}"] <= 1 for name in ("stroke_f", "ink_lost", "stroke_recall")), prefix
    assert metrics["psnr_gain"] == pytest.approx(metrics["psnr"] - metrics["dirty_psnr"]) and metrics["psnr_input"] == metrics["dirty_psnr"]
    assert metrics["dirty_print_left"] == pytest.approx(1, abs=0.2) and metrics["dirty_ink_lost"] < 0.1
    low, high = metrics["psnr_ci"]
    assert low <= metrics["psnr"] + 0.5 and high >= metrics["psnr"] - 0.5
    assert {path.stem for path in smoke.figures} >= {"pairs", "training", "before_after_each", "drawn_blindly", "ten_worst"}
    assert record.data["trained_on"] == {"classical": [], "autoencoder": ["synthetic"], "unet": ["synthetic"]} and len(record.data["sha256"]) == 64
    assert metrics["autoencoder_steps"] >= 10 and metrics["unet_steps"] >= 10 and record.curves["history_unet"]["loss"]


def test_smoke_verifies_before_dirty_and_cleaned(smoke):
    metrics = read_record(smoke.record_path).metrics
    for name in ("eer_clean", "eer_dirty", "eer_cleaned", "classical_eer_cleaned", "autoencoder_eer_cleaned"):
        assert 0 <= metrics[name] <= 1 and 0 <= metrics[f"{name}_random"] <= 1, name
    assert metrics["without_ink_clean"] == 0 and metrics["without_ink_unet"] >= 0
    assert metrics["eer_clean"] <= metrics["eer_dirty"] + 0.05, "dirt does not help"
    assert metrics["dirty_excess_skilled"] == pytest.approx(metrics["eer_dirty"] - metrics["eer_clean"]) and not math.isnan(metrics["cleaned_excess_random"])
    assert metrics["crops_per_second_150x220"] > 0 and metrics["ms_900x400"] > 0 and metrics["pairs_per_second"] > 0 and 0 < metrics["pipeline_ratio"] < 3


def test_training_on_the_tested_is_refused(tmp_path, in_this_process):
    with pytest.raises(BenchmarkFailed, match="name test_signers"):
        run_benchmark("cleaning", "smoke", {"own_pool": 10}, out=tmp_path / "run", progress=False)
