"""The detector: exact ways from page to canvas and back, one box a thing, reproducible batches, resumed training, honest scores, SignVer's call."""
import json
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signver_kit import detector as module
from signver_kit.anchors import LEVELS, anchor_boxes, assign_targets
from signver_kit.augmentation import lift_darkness
from signver_kit.boxes import CLASSES, detection_metrics, iou
from signver_kit.detector import (ANCHOR_SHAPES, DETECTOR_RECIPES, DetectionTraining, Detector, DetectorConfig, Letterbox, PageBoxes, PageSource, build_detector,
                                  calibrate, fit_detector, page_darkness, page_pool, pool_page, read_answers, train_detector)
from signver_kit.documents import SyntheticPages
from signver_kit.images import UnreadableImage, get_image_crops
from signver_kit.pages import open_pages, read_coco, write_tfrecords
from signver_kit.synthetic import SyntheticSigners
from signver_kit.training import WeightsMismatch

from backends import numpy

SMALL = DetectorConfig(width=4, pyramid=8, depth=1, longest=128)
QUICK = DetectionTraining(steps=6, batch=2, window=(128, 128), every=3)


@pytest.fixture(scope="module")
def pages():
    return SyntheticPages(6, seed=11, dpi=60, signers=10)


@pytest.fixture(scope="module")
def pool(pages):
    return page_pool(pages)


@pytest.fixture(scope="module")
def ink():
    signers = SyntheticSigners(2, seed=3, genuine=1, forgeries=0)
    return [lift_darkness(signers.image(k, "genuine", 0)) for k in range(2)]


@pytest.fixture(scope="module")
def untrained():
    keras.utils.set_random_seed(0)
    return Detector(model=build_detector(SMALL), config=SMALL)


@pytest.fixture(scope="module")
def shipped():
    return Detector().load()


def small_network(config=SMALL, policy="float32"):
    """In place of the detector's network one of four layers, with answers of the same shape: made and trained in a moment, where the network does not matter."""
    page, numbers = keras.Input((None, None, 1)), len(config.classes) + 4
    looks = [keras.layers.Conv2D(numbers * len(config.shapes), 1)(keras.layers.AveragePooling2D(2**level, padding="same")(page)) for level in LEVELS]
    return keras.Model(page, keras.layers.Concatenate(axis=1)([keras.layers.Reshape((-1, numbers))(look) for look in looks]))


# ---- page and canvas ----

@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(64, 1200), st.integers(0, 2**32 - 1))
def test_boxes_go_to_the_canvas_and_back_exactly(height, width, longest, seed):
    box = Letterbox.of((height, width), longest)
    corners = np.sort(np.random.default_rng(seed).random((8, 2, 2)), 1).reshape(8, 4)
    assert np.allclose(box.to_page(box.to_canvas(corners)), corners, rtol=0, atol=1e-12)
    assert max(box.size) == longest and all(side % 32 == 0 and 0 <= side - own < 32 for side, own in zip(box.canvas, box.size))
    assert abs(box.size[0] / height - box.size[1] / width) <= 0.5 / min(height, width) + 1e-9 or min(box.size) == 1        # the aspect stays, to half a pixel


def test_a_mark_on_a_page_is_where_the_box_says_on_the_canvas():
    page = np.full((3507, 2480), 255, np.uint8)
    page[2000:2200, 500:1100] = 0
    box = Letterbox.of(page.shape, 640)
    dark = module._on_canvas(page, box)
    rows, columns = (np.flatnonzero((dark > 120).any(axis)) for axis in (1, 0))
    seen = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
    assert np.abs(np.array(seen) - box.to_canvas([[2000 / 3507, 500 / 2480, 2200 / 3507, 1100 / 2480]])[0]).max() <= 1
    assert dark.shape == box.canvas and not dark[:, box.size[1]:].any() and not dark[box.size[0]:].any()


@pytest.mark.parametrize("page, longest", [((0, 10), 640), ((10, 10), 5)])
def test_a_page_without_pixels_has_no_letterbox(page, longest):
    with pytest.raises(ValueError, match="needs pixels"):
        Letterbox.of(page, longest)


def test_darkness_is_the_same_for_a_shaded_page_and_nearly_so_for_an_inverted_one():
    page = np.full((300, 200), 240, np.uint8)
    cv2.putText(page, "signed", (30, 200), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 1.2, 30, 2)
    light = np.linspace(0.6, 1, 200)[None]
    plain, shaded, inverted = (page_darkness(x) for x in (page, np.rint(page * light).astype(np.uint8), 255 - page))
    assert np.abs(plain.astype(int) - shaded).mean() < 2 and np.abs(plain.astype(int) - inverted).mean() < 2
    assert plain.max() > 200 and np.median(plain) == 0
    assert not page_darkness(np.full((50, 60), 200, np.uint8)).any()


# ---- the network ----

@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_the_network_answers_for_every_anchor(untrained, size):
    answers = numpy(untrained.model(np.zeros((2, *size, 1), "float32")))
    assert answers.shape == (2, len(anchor_boxes(size, SMALL.shapes)), 8)
    assert np.allclose(1 / (1 + np.exp(-answers[..., :4])), 0.01, atol=0.01)     # before any training everything is paper


def test_answers_stand_where_their_anchors_are():
    "Ink in one place must change the answers there, not elsewhere: the order of the answers is that of the anchors."
    keras.utils.set_random_seed(1)
    config = replace(SMALL, pyramid=4)
    model = build_detector(config)
    blank, marked = np.zeros((1, 128, 256, 1), "float32"), np.zeros((1, 128, 256, 1), "float32")
    marked[0, 96:100, 224:230] = 1
    change = np.abs(numpy(model(marked) - model(blank)))[0].max(1)
    anchors = anchor_boxes((128, 256), config.shapes)
    fine = np.arange(len(anchors)) < 16 * 32 * len(config.shapes)
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    strongest = middle[fine][np.argsort(-change[fine])[:12]]
    assert np.abs(strongest - [98, 227]).max() < 40


@pytest.mark.parametrize("wrong", [{"longest": 10}, {"nms": 0}, {"limit": 0}, {"classes": ()}, {"classes": ("a", "a")}])
def test_a_config_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="a detector needs"):
        DetectorConfig(**wrong)


def test_other_backbones_and_classes():
    model = build_detector(DetectorConfig(backbone="resnet50", width=4, pyramid=8, depth=0, classes=("stamp",), shapes=((2, 2),)))
    assert model.compute_output_shape((1, 64, 64, 1)) == (1, 64 + 16 + 4 + 1, 5)
    with pytest.raises(ValueError, match="resnet18"):
        build_detector(DetectorConfig(backbone="signet"))


# ---- answers to boxes ----

def answers_for(boxes, classes, box, config, sure=5.0):
    wanted = assign_targets(anchor_boxes(box.canvas, config.shapes), box.to_canvas(boxes), classes)
    return np.concatenate([np.where(wanted[:, :1] == np.arange(len(config.classes)), sure, -9.0), wanted[:, 1:]], 1).astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_perfect_answers_give_the_truth(seed, n):
    rng, box = np.random.default_rng(seed), Letterbox.of((1400, 1000), 640)
    places = np.stack([np.arange(n) / n + 0.02, rng.uniform(0, 0.6, n)], 1)
    boxes = np.concatenate([places, places + np.stack([rng.uniform(0.03, 0.1, n), rng.uniform(0.06, 0.35, n)], 1)], 1)
    classes = rng.integers(0, 4, n)
    found = read_answers(answers_for(boxes, classes, box, DetectorConfig()), box, DetectorConfig(), least=0.5)
    assert len(found.boxes) == n
    order = iou(boxes, found.boxes).argmax(1)
    assert np.allclose(found.boxes[order], boxes, atol=1e-4) and [found.classes[k] for k in order] == [CLASSES[c] for c in classes]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_whatever_the_network_says_the_boxes_are_in_order(seed):
    rng, box = np.random.default_rng(seed), Letterbox.of((300, 200), 128)
    answers = rng.normal(0, 3, (len(anchor_boxes(box.canvas, ANCHOR_SHAPES)), 8)).astype(np.float32) * rng.choice([1, 30])
    found = read_answers(answers, box, SMALL, least=0.3)
    assert len(found.boxes) == len(found.scores) == len(found.classes) <= SMALL.limit
    assert (np.diff(found.scores) <= 0).all() and (found.scores >= 0.3).all() and set(found.classes) <= set(CLASSES)
    assert ((found.boxes >= 0) & (found.boxes <= 1)).all() and (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    overlap = iou(found.boxes, found.boxes) - np.eye(len(found.boxes))
    assert overlap.max(initial=0) <= SMALL.nms + 1e-9                          # whatever the class
    fewer = found.above(0.8)
    assert (fewer.scores >= 0.8).all() and len(fewer.scores) == (found.scores >= 0.8).sum()


def test_calibration_changes_scores_and_nothing_else():
    box, rng = Letterbox.of((300, 200), 128), np.random.default_rng(0)
    answers = rng.normal(-1, 2, (len(anchor_boxes(box.canvas, ANCHOR_SHAPES)), 8)).astype(np.float32)
    raw, mild = read_answers(answers, box, SMALL, least=0.0), read_answers(answers, replace(SMALL, calibration=(2.0, -1.0)) and box, replace(SMALL, calibration=(2.0, -1.0)), least=0.0)
    assert np.allclose(raw.boxes, mild.boxes) and raw.classes == mild.classes
    assert np.allclose(np.log(mild.scores / (1 - mild.scores)), 2 * np.log(raw.scores / (1 - raw.scores)) - 1, atol=1e-6)


def test_a_calibrated_score_is_a_frequency():
    rng, founds, truths = np.random.default_rng(5), [], []
    for _ in range(3000):
        logit = rng.normal(0, 2)
        right = rng.random() < 1 / (1 + np.exp(-(0.7 * logit - 1)))
        founds.append(PageBoxes(np.array([[0.1, 0.1, 0.2, 0.2]]), np.array([1 / (1 + np.exp(-logit))]), ("date",)))
        truths.append((np.array([[0.1, 0.1, 0.2, 0.2]]), ("date" if right else "initials",)))
    a, b = calibrate(truths, founds)
    assert abs(a - 0.7) < 0.1 and abs(b + 1) < 0.15
    a2, b2 = calibrate(truths, [f._replace(scores=1 / (1 + np.exp(-3 * np.log(f.scores / (1 - f.scores)) + 2))) for f in founds], calibration=(3.0, -2.0))
    assert np.isclose(a2, a, rtol=1e-2) and np.isclose(b2, b, rtol=1e-2)          # whatever the scores were made with
    with pytest.raises(ValueError, match="right and wrong"):
        calibrate(truths[:0], founds[:0])
    with pytest.raises(ValueError):
        calibrate(truths[:3], founds[:2])


# ---- training ----

def test_batches_are_a_function_of_the_seed_and_their_number(pool, ink):
    config = replace(QUICK, paste=0.5)
    first, again, other = (PageSource(pool, c, ANCHOR_SHAPES, ink) for c in (config, config, replace(config, seed=1)))
    a, b, c = first.batch(7), again.batch(7), other.batch(7)
    assert all(np.array_equal(x, y) for x, y in zip(a, b)) and not np.array_equal(a[0], c[0])
    assert a[0].shape == (2, 128, 128, 1) and a[0].dtype == np.float32 and 0 <= a[0].min() and a[0].max() <= 1
    assert a[1].shape == (2, len(anchor_boxes((128, 128), ANCHOR_SHAPES)), 5)


def test_every_page_is_shown_once_a_lap(pool):
    source = PageSource([pool[k % 6]._replace(boxes=np.array([[0.1, 0.1, 0.12 + k / 100, 0.3]]), classes=np.array([k % 4])) for k in range(5)],
                        replace(QUICK, changes=module.PageChanges.none(), paste=0.0), ANCHOR_SHAPES)
    seen = [tuple(source.example(k)[2].tolist()) + (round(float(np.ptp(source.example(k)[1][0, [0, 2]])), 2),) for k in range(5)]
    assert len(set(seen)) == 5


def test_boxes_lie_on_ink(pool):
    source = PageSource(pool, replace(QUICK, window=(256, 256), paste=0.0), ANCHOR_SHAPES)
    inked = []
    for k in range(18):
        dark, boxes, _, _ = source.example(k)
        for top, left, bottom, right in np.clip(np.rint(boxes), 0, 256).astype(int):
            inked.append(dark[top:bottom, left:right].max(initial=0) - np.median(dark))
    assert np.median(inked) > 90


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_an_empty_form_is_paper_with_lines_and_the_same_for_a_seed(seed):
    form = module.empty_form(np.random.default_rng(seed), (300, 200))
    assert form.shape == (300, 200) and form.dtype == np.uint8 and np.median(form) >= 215
    assert np.array_equal(form, module.empty_form(np.random.default_rng(seed), (300, 200)))


def test_signatures_on_empty_forms_replace_the_page(pool, ink):
    source = PageSource(pool, replace(QUICK, window=(256, 256), forms=1.0, distract=0.0), ANCHOR_SHAPES, ink)
    classes = [source.example(k)[2] for k in range(8)]
    assert all((found == 0).all() for found in classes) and max(map(len, classes)) >= 2


def test_a_pooled_page_comes_back_to_the_pixel(pages):
    grey = np.random.default_rng(0).integers(0, 256, (301, 200), np.uint8)
    for picture in (grey, grey[::-1], np.dstack([grey] * 3)):
        assert np.array_equal(pool_page(picture, [], []).grey(), picture if picture.ndim == 2 else grey)


def test_pages_of_other_classes_and_no_pages_are_refused(pages):
    with pytest.raises(ValueError, match="some of signature, initials, redaction, date, got stamp"):
        pool_page(pages.page(0).image, [[0, 0, 1, 1]], ["stamp"])
    with pytest.raises(ValueError, match="got none"):
        PageSource([], QUICK, ANCHOR_SHAPES)


def test_a_pool_of_ones_own_pages(pages):
    class Own:
        def __len__(self):
            return 2

        def read(self, i):
            return np.repeat(np.repeat(pages.page(i).image, 3, 0), 3, 1)

        def truth(self, i):
            return pages.page(i).boxes, pages.page(i).classes
    kept = page_pool(Own(), longest=300)
    assert [max(k.grey().shape) for k in kept] == [300, 300] and np.array_equal(kept[1].boxes, pages.page(1).boxes)


class Interrupted(Exception):
    pass


def test_a_run_that_was_cut_short_ends_with_the_same_weights(pool, tmp_path, monkeypatch):
    def model():
        keras.utils.set_random_seed(3)
        return small_network()

    source = PageSource(pool, QUICK, SMALL.shapes)
    whole = model()
    history = fit_detector(whole, source, folder=tmp_path / "whole", progress=False)
    assert [row["step"] for row in history] == [3, 6] and all(np.isfinite(row["loss"]) for row in history)
    batch = source.batch

    def cut(n, *rows):
        if n == 4:
            raise Interrupted
        return batch(n, *rows)

    monkeypatch.setattr(source, "batch", cut)
    with pytest.raises(Interrupted):
        fit_detector(model(), source, folder=tmp_path / "cut", progress=False)
    monkeypatch.undo()
    resumed = model()
    resumed.set_weights([w * 0 for w in resumed.get_weights()])               # all that counts is in the checkpoint
    again = fit_detector(resumed, source, folder=tmp_path / "cut", progress=False)
    assert [row["loss"] for row in again] == [row["loss"] for row in history]
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), resumed.get_weights()))
    with pytest.raises(ValueError, match="learning_rate was"):
        fit_detector(model(), PageSource(pool, replace(QUICK, learning_rate=1.0), SMALL.shapes), folder=tmp_path / "cut", progress=False)


def test_a_loss_that_leaves_the_numbers_stops_the_run(pool):
    with pytest.raises(FloatingPointError, match="learning_rate"):
        fit_detector(small_network(), PageSource(pool, replace(QUICK, learning_rate=1e30, clip_norm=1e30), SMALL.shapes), progress=False)


def test_one_page_can_be_learned(pages):
    "A network that cannot learn one page by heart has a fault between page, anchors and loss."
    page = next(pages.page(i) for i in range(6) if len(pages.page(i).boxes) >= 2)
    keras.utils.set_random_seed(0)
    config = DetectorConfig(width=16, pyramid=16, depth=1, longest=256)
    model = build_detector(config)
    training = DetectionTraining(steps=80, batch=1, window=(256, 256), changes=module.PageChanges.none(), paste=0.0, distract=0.0, learning_rate=5e-3)
    fit_detector(model, PageSource([pool_page(page.image, page.boxes, page.classes)], training, config.shapes), progress=False)
    found = Detector(model=model, config=config).detect_pages([page.image], threshold=0.01)
    assert set(page.classes) == {"signature", "date"}
    assert detection_metrics([(page.boxes, page.classes)], found)["ap50_signature"] > 0.99       # the date is a few pixels high at this size: its IoU is luck


# ---- the detector ----

def test_one_page_in_every_form_gives_the_same(untrained, pages, tmp_path):
    rgb = pages.page(0).image
    cv2.imwrite(str(tmp_path / "page.png"), rgb[..., ::-1])
    forms = [rgb, rgb[None], rgb.astype("float32") / 255, tmp_path / "page.png", str(tmp_path / "page.png"), keras.ops.convert_to_tensor(rgb[None])]
    found = untrained.detect_pages(forms, threshold=0.0)
    assert len(found[0].boxes) and all(np.allclose(f.boxes, found[0].boxes) and np.allclose(f.scores, found[0].scores) for f in found)


def test_pages_do_not_change_one_another(untrained, pages):
    several = [pages.page(i).image for i in range(6)] + [np.full((40, 300), 255, np.uint8)]
    together = untrained.detect_pages(iter(several), threshold=0.0)
    alone = [untrained.detect_pages([page], threshold=0.0)[0] for page in several]
    for a, b in zip(together, alone, strict=True):
        assert np.allclose(a.scores[:20], b.scores[:20], atol=1e-5)
    assert untrained.detect_pages([]) == []


def test_signvers_call(shipped, pages):
    page = SyntheticPages(30, seed=5, dpi=100, signers=20).page(3).image
    boxes, scores, classes, detections = shipped.detect(page[None])
    assert isinstance(boxes, list) and all(isinstance(box, list) and len(box) == 4 for box in boxes) and len(boxes) == len(scores) == len(classes) > 0
    assert all(isinstance(score, float) and 0.5 <= score <= 1 for score in scores) and scores == sorted(scores, reverse=True)
    assert set(classes) <= {1, 2, 3, 4} and [CLASSES[c - 1] for c in classes] == detections["detection_class_names"][0]
    assert detections["detection_boxes"].shape == (1, len(boxes), 4) and detections["num_detections"].tolist() == [len(boxes)]
    assert len(get_image_crops(page, boxes, scores, threshold=0.22)) == len(boxes)


def test_the_threshold_is_obeyed(shipped, pages):
    pictures = [pages.page(i).image for i in range(6)]
    low, high = (Detector(t, shipped.model, shipped.config).detect_pages(pictures) for t in (0.2, 0.9))
    assert sum(len(f.boxes) for f in high) < sum(len(f.boxes) for f in low) and all((f.scores >= 0.9).all() for f in high)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Detector(22)


@pytest.mark.parametrize("page", [np.zeros((2, 50, 50, 3), np.uint8), np.zeros((50, 50, 2), np.uint8), np.zeros(7, np.uint8)])
def test_what_is_no_page_is_refused(untrained, page):
    with pytest.raises(ValueError, match="a page must be|picture"):
        untrained.detect(page)


def test_a_bad_page_is_named(untrained, pages, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImage, match="page 1"):
        untrained.detect_pages([pages.page(0).image, tmp_path / "no.png"])
    with pytest.raises(FileNotFoundError):
        untrained.detect(tmp_path / "none.png")


def test_without_weights():
    with pytest.raises(RuntimeError, match="load"):
        Detector().detect(np.zeros((50, 50), np.uint8))
    with pytest.raises(FileNotFoundError, match="config.json"):
        Detector().load("/nowhere")


def test_save_and_load(untrained, pages, tmp_path):
    untrained.config = replace(untrained.config, calibration=(1.5, 0.25))
    untrained.save(tmp_path, {"trained_on": []})
    loaded = Detector().load(tmp_path)
    assert loaded.config == untrained.config and loaded.card["trained_on"] == []
    a, b = (d.detect_pages([pages.page(2).image], threshold=0.0)[0] for d in (untrained, loaded))
    assert np.allclose(a.boxes, b.boxes) and np.allclose(a.scores, b.scores)
    file = tmp_path / "model.weights.h5"
    file.write_bytes(file.read_bytes()[:-5] + b"wrong")
    with pytest.raises(WeightsMismatch):
        Detector().load(tmp_path)


def test_the_tiny_recipe_from_beginning_to_end(tmp_path):
    detector = train_detector("tiny", tmp_path, progress=False)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["trained_on"] == ["synthetic"] and card["operating_point"]["threshold"] == 0.5 and card["recipe"]["pages"] == DETECTOR_RECIPES["tiny"].pages
    assert detector.config.longest == 256 and (tmp_path / "work" / "last.npz").exists()
    with pytest.raises(ValueError, match="default, tiny"):
        train_detector("large", tmp_path)


def test_signverods_shards_are_trained_on_beside_the_synthetic_pages_and_its_eval_shards_are_not(tmp_path, monkeypatch):
    train, held = SyntheticPages(3, seed=4, dpi=50, signers=10), SyntheticPages(2, seed=5, dpi=50, signers=10)
    for made, split in ((train, "train"), (held, "eval")):
        made.write(tmp_path / split)
        write_tfrecords(read_coco(tmp_path / split / "labels.json"), tmp_path / "signverod" / "tfrecords", split=split)
    pooled = []
    monkeypatch.setattr(module, "build_detector", small_network)
    monkeypatch.setattr(module, "page_pool", lambda pages, *a, **k: pooled.append(pages) or page_pool(pages, *a, **k))
    detector = train_detector("tiny", tmp_path / "out", pages=open_pages(tmp_path / "signverod"), progress=False)
    assert detector.card["trained_on"] == ["synthetic", "signverod"]
    assert [len(pages) for pages in pooled] == [6, 3] and np.allclose(pooled[1].truth(0)[0], read_coco(tmp_path / "train" / "labels.json").truth(0)[0], atol=1e-6)


# ---- the shipped weights ----

def test_the_shipped_weights_are_small_and_say_what_they_were_trained_on():
    folder = module.SHIPPED_DETECTOR
    assert (folder / "model.weights.h5").stat().st_size < 12e6
    card = json.loads((folder / "card.json").read_text())
    assert set(card["trained_on"]) <= {"synthetic", "crossmedia"} and {"precision", "recall", "threshold"} <= set(card["operating_point"])


def test_the_shipped_weights_find_what_is_on_pages_they_have_not_seen(shipped):
    made = SyntheticPages(8, seed=123, dpi=100, signers=30)
    truths = [(made.page(i).boxes, made.page(i).classes) for i in range(8)]
    found = shipped.detect_pages([made.page(i).image for i in range(8)], threshold=0.01)
    assert detection_metrics(truths, found)["map50"] > 0.8


def test_openvino_finds_the_same(shipped):
    page = SyntheticPages(30, seed=5, dpi=100, signers=20).page(3).image
    plain, fast = shipped.detect_pages([page])[0], Detector().load(engine="openvino").detect_pages([page])[0]
    assert plain.classes == fast.classes and np.allclose(plain.boxes, fast.boxes, atol=0.01) and np.allclose(plain.scores, fast.scores, atol=0.05)      # bfloat16, where the processor has it
    with pytest.raises(ValueError, match="keras or openvino"):
        Detector().load(engine="tensorrt")


def test_without_openvino_the_error_says_how_to_get_it(shipped, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        module.openvino_forward(shipped.model)


def test_a_page_of_300_dpi_is_not_covered_with_boxes(shipped):
    page = cv2.resize(SyntheticPages(30, seed=5, dpi=100, signers=20).page(3).image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    assert page.shape[0] > 3000 and len(shipped.detect(page[None])[0]) < 20
    assert shipped.detect(np.full((3507, 2480, 3), 250, np.uint8))[0] == []     # nothing on a blank page
