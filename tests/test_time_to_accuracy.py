"""The benchmark that counts minutes of training until the error is small enough."""
import numpy as np
import pytest

from signver_kit.benchmark import format_value, read_record, run_benchmark
from signver_kit.extractor import ExtractorConfig, MetricExtractor, build_extractor

QUICK = {"backbone": "signet", "width": 2, "input_size": [72, 96], "embedding_dim": 16, "steps_per_epoch": 2}


def test_minutes_are_those_of_the_first_epoch_that_is_good_enough(tmp_path, in_this_process):
    config = ExtractorConfig(backbone="signet", width=2, input_size=(72, 96), embedding_dim=16)
    MetricExtractor(build_extractor(config), config).save(tmp_path / "weights", {"trained_on": ["nothing"]})
    recipes = [QUICK | {"name": "plain", "loss": "triplet_semi_hard", "precision": "float32", "forgeries_per_signer": 0, "epochs": 3},
               QUICK | {"name": "begun", "start": str(tmp_path / "weights"), "epochs": 1}]
    run = run_benchmark("time_to_accuracy", None, {"recipes": recipes, "synthetic_signers": 10, "synthetic_genuine": 4, "synthetic_forgeries": 3, "weighing_signers": 3, "draws": 2,
                                                   "targets": [60, 30, 1]}, out=tmp_path / "run", progress=False)
    record = read_record(run.record_path)
    assert record.error is None and {path.stem for path in run.figures} == {"time_to_accuracy"}
    for name in ("plain", "begun"):
        curve = record.curves[name]
        assert curve["minutes"] == sorted(curve["minutes"]) and len(curve["global"]) == len(curve["fused"]) == len(curve["minutes"])
        for kind in ("global", "fused"):
            for target in (60, 30, 1):
                reached = [minutes for minutes, error in zip(curve["minutes"], curve[kind]) if 100 * error <= target]
                assert record.metrics[f"{name}_{kind}_minutes_to_eer_{target}"] == (pytest.approx(reached[0]) if reached else None)
            assert record.metrics[f"{name}_{kind}_lowest_eer"] == pytest.approx(min(curve[kind]))
    assert record.curves["begun"]["minutes"][0] == 0 and len(record.curves["plain"]["minutes"]) == 3     # what weights bring is measured before they are trained on
    assert record.metrics["minutes_to_eer_60"] == record.metrics["begun_global_minutes_to_eer_60"] is not None
    assert record.metrics["plain_training_minutes"] == pytest.approx(record.curves["plain"]["minutes"][-1])
    split = record.data["split"]
    assert not set(split["test"]) & {*split["train"], *split["validation"]}
    assert 0 < record.metrics["untrained_local_eer"] < 0.6 and np.isfinite(record.metrics["plain_images_per_second"])


def test_minutes_are_no_percentage():
    assert format_value("a_minutes_to_eer_25", 1.5) == "1.500" and format_value("a_eer", 0.25) == "25.00 %"
