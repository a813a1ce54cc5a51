"""The realism benchmark, run as a user runs it, on sets small enough for a test."""
import cv2
import numpy as np
import pytest

from signver_kit.benchmark import BenchmarkFailed, load_preset, read_record, run_benchmark
from signver_kit.descriptors import INK_STATISTICS
from signver_kit.synthetic import SyntheticSigners


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return run_benchmark("realism", "smoke", out=tmp_path_factory.mktemp("run") / "smoke", progress=False)


def test_smoke_compares_two_seeds_and_leaves_a_record(smoke):
    record = read_record(smoke.record_path)
    assert record.error is None and smoke.exit_code == 0
    for name in ("realism_auc_statistics", "realism_auc_hog", "real_wi1_skilled_eer", "synthetic_wi1_skilled_eer", "real_wi1_random_eer", "synthetic_wi1_random_eer"):
        low, high = record.metrics[f"{name}_ci"]
        assert 0 <= low <= record.metrics[name] <= high <= 1, name
    names = [name for name in INK_STATISTICS if not name.endswith("_px")]
    assert all(0 <= record.metrics[f"ks_{name}"] <= 1 for name in names) and sorted(record.data["telling"]) == sorted(names)
    assert record.metrics["realism_auc_statistics"] < 0.8, "one generator, two seeds"
    assert "realism_auc_cnn" not in record.metrics and set(record.metrics["auc_genuine_over_skilled"]) == {"real", "synthetic"}
    assert record.data["compared_with"] == "synthetic" and record.data["sha256"] != record.data["synthetic_sha256"]
    for name in names:
        curve = record.curves[f"ecdf_{name}"]
        assert len(curve["real"]) == len(curve["synthetic"]) == len(curve["share"]) <= 50 and curve["real"] == sorted(curve["real"])
    assert {path.stem for path in smoke.figures} == {"side_by_side", "forgeries", "statistics", "what_forgeries_are_like", "distances", "what_gives_it_away", "hog_gap"}


def test_smoke_probes_the_pages(smoke):
    probes = read_record(smoke.record_path).probes
    low, high = probes["page_auc_ci"]
    assert low <= probes["page_auc"] <= high and low < 0.55 and high > 0.45
    assert set(probes["page_auc_by_property"]) > {"paper", "noise", "left", "sharpness"} and probes["page_images"] == 72


def test_a_set_without_forgeries_whose_pen_is_broad_is_told_apart(tmp_path, in_this_process):
    """Written as Cross-media is laid out: one group, writers, genuine signatures only; ink broadened until anybody sees it."""
    signers = SyntheticSigners(12, seed=3, genuine=6, forgeries=0)
    for row in signers.table.itertuples():
        own = int(row.signer) + 1                                       # the name that this writer writes twice: as number n and n + 20
        number = own + 20 * row.index if row.index < 2 else (own + row.index) % 20 + 1
        path = tmp_path / "data" / "crossmedia" / "control" / row.signer / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.erode(signers.set.read(row.path), np.ones((7, 7), np.uint8)))
    parameters = load_preset("realism", "smoke") | {"real": "crossmedia", "synthetic_forgeries": 2, "page_signers": 4, "page_genuine": 2, "page_forgeries": 2}
    result = run_benchmark("realism", parameters=parameters, data=tmp_path / "data", out=tmp_path / "run", progress=False)
    metrics = result.record.metrics
    assert metrics["realism_auc_statistics"] > 0.95 and metrics["ks_stroke"] > 0.8 and "stroke" in result.record.data["telling"][:4]
    assert "real_wi1_skilled_eer" not in metrics and "real_wi1_random_eer" in metrics and list(metrics["auc_genuine_over_skilled"]) == ["synthetic"]
    assert result.record.data["name"] == "crossmedia"


def test_an_unknown_set_is_refused_by_name(tmp_path, in_this_process):
    with pytest.raises(BenchmarkFailed, match="cedar"):
        run_benchmark("realism", "smoke", {"real": "cedra"}, out=tmp_path / "run", progress=False)
