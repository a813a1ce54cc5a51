"""The detection benchmark: what it says of a detector that never fails, of none, of folds, and of boxes that somebody looked at."""
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signver_kit import detector as module
from signver_kit.benchmark import benchmarks_directory, read_record, run_benchmark
from signver_kit.detector import Detector, PageBoxes
from signver_kit.documents import SyntheticPages
from signver_kit.pages import read_coco


def test_smoke_measures_and_leaves_a_record(tmp_path):
    smoke = run_benchmark("detection", "smoke", out=tmp_path / "smoke", progress=False)
    record = read_record(smoke.record_path)
    assert record.error is None and smoke.exit_code == 0
    assert record.data["pages"] == 4 and set(record.data["classes"]) <= {"signature", "initials", "redaction", "date"} and record.parameters["nms_used"] == 0.5
    assert {"map50", "map50_95", "precision", "recall", "recall_at_1fp", "ms_per_page"} <= set(record.metrics)
    assert {path.stem for path in smoke.figures} >= {"froc", "drawn_blindly", "missed", "surest_wrong"}
    assert record.metrics["map50"] > 0.3                                       # the shipped weights, on pages of 60 dpi


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Five labelled pages in COCO's layout."""
    folder = tmp_path_factory.mktemp("pages")
    SyntheticPages(5, seed=40, dpi=50, signers=10).write(folder / "made")
    return folder / "made"


QUICK = {"bootstrap_draws": 5, "speed": False}


def answering(monkeypatch, answer):
    """Detectors that answer with what `answer(number of the page in the set)` gives, by the pages' sizes and order."""
    calls = []

    def look(self, pages, threshold=None, progress=False):
        calls.extend(pages)
        return [answer(len(calls) - 1).above(threshold or 0)]
    monkeypatch.setattr(Detector, "detect_pages", look)
    return calls


def test_a_detector_that_never_fails_has_all_figures_at_one_and_one_that_finds_nothing_at_none(labelled, tmp_path, in_this_process, monkeypatch):
    pages = read_coco(labelled)

    def truth(i):
        boxes, classes = pages.truth(i)
        return PageBoxes(boxes, np.linspace(0.9, 0.8, len(boxes)), classes)

    answering(monkeypatch, truth)
    metrics = read_record(run_benchmark("detection", None, QUICK | {"dataset": str(labelled)}, out=tmp_path / "perfect", progress=False).record_path).metrics
    assert all(metrics[name] == 1 for name in ("map50", "map50_95", "precision", "recall", "recall_at_1fp", "recall_at_tenthfp")) and metrics["false_per_page"] == 0
    answering(monkeypatch, lambda i: PageBoxes(np.zeros((0, 4)), np.zeros(0), ()))
    metrics = read_record(run_benchmark("detection", None, QUICK | {"dataset": str(labelled)}, out=tmp_path / "blind", progress=False).record_path).metrics
    assert metrics["map50"] == metrics["recall"] == metrics["recall_at_1fp"] == 0


def test_boxes_that_somebody_looked_at_are_told_apart(labelled, tmp_path, in_this_process, monkeypatch):
    pages = read_coco(labelled)
    signed = next(i for i in range(5) if "signature" in pages.truth(i)[1])
    stray = np.array([[0.01, 0.01, 0.05, 0.2], [0.01, 0.5, 0.05, 0.9], [0.9, 0.01, 0.99, 0.2]])
    answering(monkeypatch, lambda i: PageBoxes(stray, np.array([0.9, 0.8, 0.7]), ("signature",) * 3) if i == signed else PageBoxes(np.zeros((0, 4)), np.zeros(0), ()))
    name = pages.pages["page"].iloc[signed]
    table = pd.DataFrame([(name, *stray[0], "signature"), (name, *(stray[1] + [0, 0, 0, 0.01]), "print"), ("other", None, None, None, None, "no false box")],
                         columns=["page", "ymin", "xmin", "ymax", "xmax", "verdict"])
    table.to_csv(tmp_path / "judged.csv", index=False)
    metrics = read_record(run_benchmark("detection", None, QUICK | {"dataset": str(labelled), "judged": str(tmp_path / "judged.csv")}, out=tmp_path / "run", progress=False).record_path).metrics
    assert metrics["judged_pages"] == 2 and metrics["judged_false_boxes"] == 2 and metrics["unjudged_false_boxes"] == 1 and metrics["judged_signatures_share"] == 0.5


def test_no_page_is_looked_at_by_weights_that_saw_it(labelled, tmp_path, in_this_process, monkeypatch):
    """Each fold's pool lacks the pages that are tested by it."""
    import signver_kit.detector as detector_module
    pools, tested = [], []
    pages = read_coco(labelled)
    hashes = {pages.read(i).tobytes(): i for i in range(5)}

    def fit(model, source, *, folder=None, initial=None, progress=True):
        pools.append(source.pool)
        return []

    def look(self, seen, threshold=None, progress=False):
        tested.append((len(pools) - 1, hashes[seen[0].tobytes()]))
        return [PageBoxes(np.zeros((0, 4)), np.zeros(0), ())]

    monkeypatch.setattr(detector_module, "fit_detector", fit)
    monkeypatch.setattr(Detector, "detect_pages", look)
    monkeypatch.setattr(detector_module, "build_detector", lambda config, policy="float32": _Stub())
    monkeypatch.setattr(Detector, "load", lambda self, *a, **k: setattr(self, "model", _Stub()) or setattr(self, "card", {"trained_on": []}) or self)
    run_benchmark("detection", None, QUICK | {"dataset": str(labelled), "folds": 2, "fold_synthetic": 0}, out=tmp_path / "run", progress=False)
    kept = {number: {next(i for i in range(5) if np.array_equal(module.pool_page(pages.read(i), *pages.truth(i)).packed, page.packed)) for page in pool} for number, pool in enumerate(pools)}
    assert len(pools) == 2 and sorted(i for _, i in tested) == list(range(5))
    assert all(i not in kept[fold] for fold, i in tested) and all(len(kept[fold]) + sum(f == fold for f, _ in tested) == 5 for fold in kept)


class _Stub:
    def get_weights(self):
        return []

    def set_weights(self, weights):
        pass


def test_judged_boxes_are_of_the_right_form():
    for table in (benchmarks_directory() / "judged").glob("*.csv"):
        rows = pd.read_csv(table, dtype={"page": str})
        assert list(rows.columns) == ["page", "ymin", "xmin", "ymax", "xmax", "verdict"] and rows["verdict"].notna().all()
        boxes = rows[["ymin", "xmin", "ymax", "xmax"]].dropna().to_numpy()
        assert ((boxes >= 0) & (boxes <= 1)).all() and (boxes[:, :2] < boxes[:, 2:]).all()


def test_kept_records_say_which_settings_decided():
    for path in (benchmarks_directory() / "results").glob("detection-*.json"):
        record = json.loads(Path(path).read_text())
        assert record["parameters"]["nms_used"] and record["parameters"]["longest_used"] and record["parameters"]["threshold"] is not None and record["data"]["trained_on"]
