"""The benchmark that fills a gallery and searches it in several ways."""
import numpy as np
import pytest

from signver_kit.benchmark import load_preset, read_record, run_benchmark

pytest.importorskip("faiss")


def test_four_ways_to_search_are_measured_in_one_run(tmp_path, in_this_process):
    run = run_benchmark("gallery", None, {"rows": 1500, "dim": 32, "latent": 16, "queries": 20, "exact_queries": 4, "lance_queries": 2}, out=tmp_path / "run", progress=False)
    record = read_record(run.record_path)
    found = record.metrics
    assert record.error is None and {path.stem for path in run.figures} == {"search"} and record.data["images"] == found["rows"] == 1500 and found["signers"] == 300
    assert record.probes["gallery_exact_agrees_with_flat"] == record.probes["lance_exact_agrees_with_flat"] == 1.0
    for name, count in (("flat", 4), ("gallery_exact", 4), ("lance_exact", 2), ("index", 20), ("ivf", 20), ("lance_index", 20)):
        assert len(record.curves[name]) == count
        assert 0 < found[f"{name}_ms_least"] <= found[f"{name}_ms_p50"] <= found[f"{name}_ms_p95"]
        assert found[f"{name}_ms_p50"] == pytest.approx(np.median(record.curves[name]), abs=1e-3)
    assert found["exact_ratio"] == pytest.approx(found["gallery_exact_ms_p50"] / found["flat_ms_p50"])
    assert found["index_recall_at_build"] >= 0.97 and 0.8 < found["index_recall_at_10"] <= 1 and found["index_probes"] <= found["index_lists"]
    assert all(found[name] > 0 for name in ("import_seconds", "copy_seconds", "index_build_seconds", "lance_index_build_seconds", "disk_mb"))
    assert not (tmp_path / "run" / "work" / "gallery").exists() and not (tmp_path / "run" / "work" / "rows.parquet").exists()  # a gigabyte, at a million rows


def test_presets_ask_for_what_they_are_called():
    assert load_preset("gallery", "million")["rows"] == 1_000_000 and load_preset("gallery", "smoke")["rows"] <= 5000
