"""The verification benchmark, run as a user runs it, on sets small enough for a test."""
import cv2
import pytest

from signver_kit.benchmark import BenchmarkFailed, read_record, run_benchmark
from signver_kit.extractor import MetricExtractor
from signver_kit.synthetic import SyntheticSigners


# What the network is does not matter here: one that is quickly built.
QUICK = {"backbone": "signet", "input_size": [72, 96], "width": 2, "embedding_dim": 16}
SMALL = QUICK | {"time_training": False, "epochs": 1, "steps_per_epoch": 2, "references": [1], "draws": 2, "bootstrap_draws": 100}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return run_benchmark("verification", "smoke", QUICK, out=tmp_path_factory.mktemp("run") / "smoke", progress=False)


def test_smoke_leaves_record_notebook_figures_and_models(smoke):
    record = read_record(smoke.record_path)
    assert record.error is None and smoke.exit_code == 0
    for name in ("wi1_skilled_eer", "wi1_random_eer", "wi3_skilled_eer", "frr", "far_skilled", "far_random", "auc_skilled", "hog_wi1_skilled_eer",
                 "fused_wi1_skilled_eer"):
        low, high = record.metrics[f"{name}_ci"]
        assert 0 <= low <= record.metrics[name] <= high <= 1, name
    assert record.metrics["pipeline_ratio"] > 0
    assert record.probes["background_auc"] == pytest.approx(0.5, abs=0.1) and record.probes["duplicates_across_splits"] == 0
    assert record.data["name"] == "synthetic" and record.data["trained_on"] == ["synthetic"] and len(record.data["sha256"]) == 64
    split = record.data["split"][0]
    assert not set(split["train"]) & set(split["test"]) and not set(split["validation"]) & set(split["test"])
    assert record.parameters["synthetic_signers"] == 10 and record.environment["keras"] and record.environment["device"]
    assert {path.stem for path in smoke.figures} >= {"input", "history", "scores", "roc_det", "confusion", "hardest_pairs", "embeddings_2d"}
    assert set(record.curves) >= {"det_wi1_skilled", "det_wi1_random"}


def test_its_models_can_be_used(smoke):
    extractor = MetricExtractor().load(smoke.out / "models" / "fold-1")
    assert extractor.extract([SyntheticSigners(1, seed=5).image("0", "genuine", 0)]).shape == (1, 16)
    assert extractor.card["trained_on"] == ["synthetic"] and extractor.card["recipe"]["loss"]


def test_a_set_whose_paper_gives_forgeries_away_fails_on_raw_pixels(tmp_path, in_this_process):
    """CEDAR's trap in small: genuine on light paper, forged on darker paper."""
    SyntheticSigners(8, seed=2, genuine=5, forgeries=4).write(tmp_path / "set")
    for path in (tmp_path / "set").glob("*/*/*.png"):
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(float)
        paper = 235 if path.parent.name == "genuine" else 215
        cv2.imwrite(str(path), (grey * paper / max(grey.max(), 1)).round().clip(0, paper).astype("uint8"))
    parameters = SMALL | {"dataset": str(tmp_path / "set"), "folds": 2, "fast": True, "validation_signers": 0.5, "signers_per_batch": 2, "weighing_signers": 0,
                          "score": "global", "input": "raw"}
    result = run_benchmark("verification", parameters=parameters, out=tmp_path / "raw", progress=False)
    assert result.exit_code == 3 and "background_auc" in result.record.error
    assert result.record.probes["background_auc"] > 0.9 and "wi1_skilled_eer" in result.record.metrics


def test_trained_on_no_real_image_everybody_is_tested(tmp_path, in_this_process):
    """A set on disk, tested whole by a network that has seen synthetic signers of other seeds only."""
    SyntheticSigners(5, seed=2, genuine=5, forgeries=4).write(tmp_path / "set")
    parameters = SMALL | {"dataset": str(tmp_path / "set"), "train_on": "synthetic", "extra_signers": 8, "extra_genuine": 4, "extra_forgeries": 2,
                          "extra_per_batch": 2, "signers_per_batch": 4, "steering_signers": 6, "weighing_signers": 6}
    record = run_benchmark("verification", parameters=parameters, out=tmp_path / "run", progress=False).record
    assert record.error is None and record.data["trained_on"] == ["synthetic"]
    assert record.data["split"] == [{"train": [], "validation": [], "test": ["0", "1", "2", "3", "4"]}]
    assert {"wi1_skilled_eer", "far_random", "fused_wi1_skilled_eer"} <= set(record.metrics)


def test_synthetic_training_without_signers_is_refused(tmp_path, in_this_process):
    with pytest.raises(BenchmarkFailed, match="extra_signers"):
        run_benchmark("verification", "smoke", {"train_on": "synthetic", "synthetic_signers": 4, "synthetic_genuine": 2, "synthetic_forgeries": 1}, out=tmp_path / "run", progress=False)
