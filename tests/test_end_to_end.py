"""The end-to-end benchmark, with stand-ins for the models: what it says of a detector that never fails and of one that does, and that a stopped run goes on."""
import json
from collections import Counter
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from signver_kit import documents
from signver_kit.benchmark import BenchmarkInterrupted, list_presets, load_preset, read_record, run_benchmark
from signver_kit.gallery import FunctionExtractor
from signver_kit.descriptors import describe_hog

pytest.importorskip("lancedb")


class Eyes:
    """A detector that knows the pages by heart, and misses what `misses(page, number of the signature)` says."""

    config, card = SimpleNamespace(longest=640), {"sha256": "e" * 64, "trained_on": ["nothing"]}

    def __init__(self, known, misses):
        self.known, self.misses, self.looked = known, misses, Counter()

    def detect_pages(self, greys, threshold=None):
        return [self.look(np.ascontiguousarray(grey)) for grey in greys]

    def look(self, grey):
        number, page = self.known.get(grey.tobytes(), (None, None))
        self.looked[number] += 1
        kept = [k for k, name in enumerate(page.classes) if name == "signature" and not self.misses(number, k)] if page else []
        return _Found(page.boxes[kept] if kept else np.zeros((0, 4)), np.full(len(kept), 0.9), ("signature",) * len(kept))


class _Found(tuple):
    """Boxes, scores, classes: as a triple and by name."""

    def __new__(cls, boxes, scores, classes):
        self = super().__new__(cls, (boxes, scores, classes))
        self.boxes, self.scores, self.classes = boxes, scores, classes
        return self


class Brush:
    """A cleaner that leaves everything as it is."""

    card = {"sha256": "b" * 64, "trained_on": ["nothing"]}

    def clean(self, pictures):
        return [np.float32(picture) / 255 for picture in pictures]


def hand():
    made = FunctionExtractor(describe_hog, "hog")
    made.card, made.config = made.card | {"trained_on": ["nothing"]}, SimpleNamespace(input="binarised")
    return made


@pytest.fixture
def eyes(monkeypatch, in_this_process):
    """The stand-ins take the place of the package's weights; a function that sets what is missed, and gives the detector."""
    from signver_kit.pipeline import SignaturePipeline

    known, load, made = {}, SignaturePipeline.load.__func__, documents.SyntheticPages.page
    state = SimpleNamespace(misses=lambda number, k: False)
    detector = Eyes(known, lambda number, k: state.misses(number, k))

    def page(self, i):
        found = made(self, i)
        known[cv2.cvtColor(found.image, cv2.COLOR_RGB2GRAY).tobytes()] = (i, found)
        return found

    def stand_in(cls, gallery=None, archive=None, detect=True, clean=True, extract=True, **options):
        return load(cls, gallery, archive, detector if detect is True else detect, Brush() if clean is True else clean, hand() if extract is True else extract, **options)

    monkeypatch.setattr(documents.SyntheticPages, "page", page)
    monkeypatch.setattr(SignaturePipeline, "load", classmethod(stand_in))
    detector.state = state
    return detector


CHAIN = {"retrieval_pages": 0, "speed": False, "workers": 0, "bootstrap_draws": 60, "dpi": 60, "pages": 12, "signers": 3, "references": [1], "draws": 2}
SPEED = {"speed": True, "speed_pages": 2, "speed_dpi": 60, "memory_pages": 7, "chunk": 2}
SEARCH = {"dataset": None, "speed": False, "workers": 0, "bootstrap_draws": 60, "dpi": 60, "retrieval_pages": 10, "retrieval_signers": 3, "retrieval_queries": 2, "retrieval_references": [1, 2]}


def test_a_detector_that_never_fails_costs_nothing(eyes, tmp_path):
    run = run_benchmark("end_to_end", None, CHAIN | SPEED, out=tmp_path / "run", progress=False)
    record = read_record(run.record_path)
    found = record.metrics
    assert record.error is None and {path.stem for path in run.figures} == {"waterfall", "scores", "persons", "latency", "memory"}
    assert found["detection_recall"] == found["detection_precision"] == 1 and found["missed"] == found["not_acquired_detected_cleaned"] == 0
    assert found["loss_detected"] == found["loss_detection"] == found["loss_cleaning"] == found["loss_total"] == 0 and found["loss_total_ci"] == [0, 0]
    assert found["eer_labelled"] == found["eer_detected"] == found["eer_chain"] == found["eer_labelled_raw"] and 0 < found["eer_labelled"] < 0.5
    assert record.probes["recall_97"] and record.probes["chain_within_2_points"] and record.probes["duplicates_across_splits"] == 0 and abs(record.probes["label_shuffle_eer"] - 0.5) < 0.2
    assert record.data["forged"] > 0 and record.data["impostors"] == "skilled" and found["persons"] == 3 and "retrieval_map" not in found
    # pages are timed, and memory is read
    assert 0 < found["page_ms_p50"] <= found["page_ms_p95"] <= found["page_ms_p99"] <= found["page_ms_most"] and found["speed_pages"] == len(record.curves["page_ms"]) == 2
    assert record.curves["memory"]["pages"] == [0, 2, 4, 6, 7] and found["page_errors"] == 0 and found["pages_per_second"] > 0 and "rss_slope_mb_per_1000_pages" in found
    assert {f"stage_ms_{name}" for name in ("read", "detect", "clean", "extract", "decide")} <= set(found)


def test_what_the_detector_misses_is_rejected(eyes, tmp_path):
    eyes.state.misses = lambda number, k: (number + k) % 4 == 0
    run = run_benchmark("end_to_end", None, CHAIN, out=tmp_path / "run", progress=False)
    record = read_record(run.record_path)
    found = record.metrics
    assert found["detection_recall"] == pytest.approx(1 - found["missed"] / record.data["signatures"]) and 0.3 < found["detection_recall"] < 0.9
    assert found["frr_chain_cleaned"] > found["frr_detected_cleaned"] and found["far_skilled_chain_cleaned"] <= found["far_skilled_detected_cleaned"]
    assert found["eer_chain"] > found["eer_labelled"] and found["loss_detection"] == pytest.approx(found["eer_chain"] - found["eer_labelled"])
    assert not record.probes["recall_97"] and not record.probes["chain_within_2_points"] and "worst_pages" in {path.stem for path in run.figures} and "page_ms_p95" not in found


def test_a_search_that_was_stopped_goes_on(eyes, tmp_path):
    def stop(number, k):
        if number == 9:
            raise KeyboardInterrupt
        return number == 2
    eyes.state.misses = stop
    with pytest.raises(BenchmarkInterrupted):
        run_benchmark("end_to_end", None, SEARCH, out=tmp_path / "run", progress=False)
    work, before = tmp_path / "run" / "work", Counter(eyes.looked)
    enrolled = (work / "enrolled.json").read_text()
    with open(work / "signed.jsonl", "a") as file:
        file.write('{"page": "0000')                                              # a line that somebody did not live to finish
    eyes.state.misses = lambda number, k: number == 2
    record = read_record(run_benchmark("end_to_end", None, SEARCH, out=tmp_path / "run", progress=False).record_path)
    again = eyes.looked - before
    assert set(again) == {8, 9} and (work / "enrolled.json").read_text() == enrolled       # pages are looked at eight at a time, and the first eight were in
    lines = {line["page"]: line["signers"] for line in map(json.loads, filter(lambda line: line.endswith("}"), (work / "signed.jsonl").read_text().splitlines()))}
    found, wanted = record.metrics, set(record.curves["retrieval"]["signer"])
    assert len(lines) == 10 and found["retrieval_queries"] == 2 == len(wanted)
    relevant = [(page, name) for page, signers in lines.items() for name in wanted & set(signers)]
    assert found["retrieval_found"] == pytest.approx(np.mean([page != "000002" for page, _ in relevant])) and found["retrieval_relevant"] == len(relevant) / 2
    assert found["retrieval_chance"] < found["retrieval_map"] <= found["retrieval_found"] + 1e-9 and 0 < found["retrieval_map_k1"] <= 1


def test_presets_ask_for_what_they_are_called():
    presets = {name: load_preset("end_to_end", name) for name in list_presets("end_to_end")}
    assert set(presets) == {"ssbi", "letters", "retrieval", "speed", "synthetic", "smoke"}
    assert presets["ssbi"]["dataset"] == "ssbi_sheets" and presets["retrieval"]["retrieval_pages"] == 5000 and presets["speed"]["memory_pages"] == 1000 and presets["letters"]["forged"] > 0
