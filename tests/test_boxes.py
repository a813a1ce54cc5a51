"""Boxes and the scores of detectors: worked by hand, held against pycocotools, and what must be true of any pages."""
import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from signver_kit.boxes import (CLASSES, IOU_THRESHOLDS, OUTSIDE, Froc, OperatingPoint, as_boxes, average_precision, best_iou, box_problems,
                               choose_threshold, detection_metrics, froc, interpolated_ap, iou, kmeans_boxes, match_boxes, non_max_suppression,
                               precision_recall, recall_at)

SEEDS = st.integers(0, 10**6)
SOME = settings(max_examples=60)
A, B, C, D = [0.1, 0.1, 0.2, 0.5], [0.6, 0.5, 0.7, 0.9], [0.3, 0.2, 0.4, 0.6], [0.8, 0.5, 0.9, 0.9]
# six finds for four truths on two pages; by falling score: right, false, right, right, false, false
TRUTHS = [([A, B], ["signature"] * 2), ([C, D], ["signature"] * 2)]
FOUNDS = [([[0.1, 0.14, 0.2, 0.54], [0.6, 0.5, 0.72, 0.9], [0.1, 0.1, 0.22, 0.5]], [0.95, 0.60, 0.45], ["signature"] * 3),
          ([[0.55, 0.1, 0.58, 0.9], [0.3, 0.2, 0.4, 0.51], [0.8, 0.7, 0.9, 1.0]], [0.90, 0.80, 0.30], ["signature"] * 3)]
NOTHING = ([], [], [])


def some_boxes(rng, count, grid=None):
    """Boxes inside the page, with area; on a grid of 1/grid their areas are exact, and ties of IoU are frequent."""
    if grid:
        corner = rng.integers(0, grid - 1, (count, 2))
        return np.hstack([corner, corner + 1 + rng.integers(0, grid - corner, (count, 2)) % (grid // 2)]) / grid
    corner = rng.uniform(0, 0.9, (count, 2))
    return np.hstack([corner, corner + rng.uniform(0.01, 1, (count, 2)) * (1 - corner)])


def some_pages(seed, pages=None, grid=None, most=6, levels=None, classes=CLASSES, ghosts=4):
    """truths and founds with everything that is awkward: empty pages, doubles, wrong classes, tied scores. At least one truth."""
    rng = np.random.default_rng(seed)
    truths, founds = [], []
    for number in range(pages or rng.integers(1, 7)):
        many = rng.integers(number == 0, most + 1)
        boxes, names = some_boxes(rng, many, grid), rng.choice(classes[:1 + seed % len(classes)], many)
        copies = np.repeat(np.arange(many), rng.integers(0, 3, many))
        step = rng.integers(-1, 2, (len(copies), 4)) / grid if grid else rng.normal(0, 0.03, (len(copies), 4))
        near = boxes[copies] + step
        near = np.where((near[:, 2:] > near[:, :2]).all(axis=1, keepdims=True), near, boxes[copies])
        more = rng.integers(0, ghosts + 1)
        found = np.vstack([near, some_boxes(rng, more, grid)])
        found_names = np.concatenate([names[copies], rng.choice(classes, more)]).astype(str)
        scores = rng.random(len(found)) if levels is None else rng.integers(1, levels + 1, len(found)) / levels
        truths.append((boxes, names.tolist()))
        founds.append((found, scores, found_names.tolist()) if rng.random() < 0.85 else NOTHING)
    return truths, founds


# ---- boxes ----

def test_boxes_become_float64():
    assert as_boxes(np.float32([[0, 0, 1, 1]])).dtype == as_boxes([[0, 0, 1, 1]]).dtype == np.float64
    for nothing in ([], (), np.zeros((0, 4)), np.zeros(0, np.float32)):
        assert as_boxes(nothing).shape == (0, 4) and as_boxes(nothing).dtype == np.float64


@pytest.mark.parametrize("wrong, message", [
    (A, r"boxes must be \(N, 4\).*got shape \(4,\).*wrap one box"),
    ([A + [0.9]], r"got shape \(1, 5\)"),
    ([[A]], r"got shape \(1, 1, 4\)"),
    ([A, B[:3]], "must be numbers"),
    ([["a", "b", "c", "d"]], "must be numbers"),
    ([A, [0.1, 0.2, np.nan, 0.4]], r"boxes must be finite, got \[0.1, 0.2, nan, 0.4\] in row 1: .*box_problems"),
    ([[0.1, 0.2, np.inf, 0.4]], "must be finite"),
])
def test_what_is_no_box_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        as_boxes(wrong)


def test_the_name_is_in_the_message():
    with pytest.raises(ValueError, match="^truth must be"):
        as_boxes([[1, 2]], "truth")
    with pytest.raises(ValueError, match="^b must be finite"):
        iou([A], [[0, 0, 1, np.nan]])


def test_problems_are_named():
    boxes = [A, [0.5, 0.1, 0.4, 0.2], [0.1, 0.5, 0.2, 0.4], [0.1, 0.1, 0.1, 0.2], [0.1, 0.2, 0.3, 0.2], [-0.1, 0, 0.5, 0.5], [0.1, 0.1, 0.2, 1.1],
             [100, 200, 300, 400], [0, 0, 1, np.inf], [np.nan] * 4]
    assert box_problems(boxes) == [None, "inverted", "inverted", "empty", "empty", "outside", "outside", "outside", "not finite", "not finite"]
    assert box_problems([]) == []


def test_a_hair_over_the_edge_is_let_pass():
    assert box_problems([[-OUTSIDE, 0, 1 + 0.9 * OUTSIDE, 1], [0, -1.1 * OUTSIDE, 1, 1], [0, 0, 1, 1]]) == [None, "outside", None]


def test_unknown_classes_are_named_last():
    assert box_problems([A, A, [0, 0, 0, 1]], ["date", "stamp", "stamp"]) == [None, "unknown class 'stamp'", "empty"]
    assert box_problems([A], np.array(["stamp"]), known=("stamp",)) == [None]
    assert box_problems([A], [3]) == ["unknown class '3'"]
    with pytest.raises(ValueError, match="got 1 names for 2 boxes"):
        box_problems([A, B], ["date"])
    with pytest.raises(ValueError, match="shape"):
        box_problems(A)


# ---- IoU ----

def test_iou_by_hand():
    assert iou([[0.2, 0.1, 0.6, 0.7]], [[0.3, 0.3, 0.7, 0.9]]).item() == pytest.approx(1 / 3)
    assert iou([[0, 0, 2, 2]], [[0, 0, 1, 1], [1, 1, 3, 3], [2, 2, 3, 3], [0, 0, 2, 2], [5, 0, 6, 2]]) == pytest.approx(np.array([[1 / 4, 1 / 7, 0, 1, 0]]))
    assert iou([], [A]).shape == (0, 1) and iou([A, B], []).shape == (2, 0)


def test_boxes_without_area_have_none_in_common():
    degenerate = [[0.1, 0.1, 0.1, 0.5], [0.3, 0.3, 0.3, 0.3], [0.5, 0.5, 0.2, 0.2]]
    assert not iou(degenerate, degenerate + [A, [0, 0, 1, 1]]).any()


@given(SEEDS)
@SOME
def test_iou_is_symmetric_and_one_for_itself(seed):
    rng = np.random.default_rng(seed)
    a, b = some_boxes(rng, 5), some_boxes(rng, 7)
    both = iou(a, b)
    assert np.array_equal(both, iou(b, a).T)
    assert (both >= 0).all() and (both <= 1).all()
    assert np.allclose(np.diag(iou(a, a)), 1, atol=1e-12)


@given(SEEDS, st.floats(0.01, 5000), st.floats(0.01, 5000), st.floats(-3, 3), st.booleans())
@SOME
def test_iou_does_not_know_the_unit(seed, high, wide, shift, swap):
    rng = np.random.default_rng(seed)
    a, b = some_boxes(rng, 5), some_boxes(rng, 7)
    unit = np.array([high, wide, high, wide])
    axes = [1, 0, 3, 2] if swap else [0, 1, 2, 3]
    assert np.allclose(iou(a, b), iou(((a + shift) * unit)[:, axes], ((b + shift) * unit)[:, axes]), atol=1e-9)


# ---- suppression ----

ROW = [[0.1, 0.2, 0.2, 0.6], [0.1, 0.3, 0.2, 0.7], [0.1, 0.4, 0.2, 0.8]]      # neighbours have IoU 0.6, the outer two 1/3


@pytest.mark.parametrize("scores, options, kept", [
    ([0.7, 0.9, 0.8], {}, [1]),
    ([0.9, 0.8, 0.7], {}, [0, 2]),
    ([0.5, 0.5, 0.5], {}, [0, 2]),
    ([0.7, 0.9, 0.8], {"threshold": 0.65}, [1, 2, 0]),
    ([0.7, 0.9, 0.8], {"threshold": 0.65, "limit": 2}, [1, 2]),
    ([0.9, 0.8, 0.7], {"threshold": 0.3}, [0]),
    ([0.7, 0.9, 0.8], {"classes": ["a", "b", "a"]}, [1, 2, 0]),
    ([0.7, 0.9, 0.8], {"classes": [1, 1, 0]}, [1, 2]),
])
def test_suppression_by_hand(scores, options, kept):
    assert non_max_suppression(ROW, scores, **options).tolist() == kept


def test_an_iou_at_the_threshold_stays():
    pair = [[0, 0, 1, 1], [0, 0, 1, 0.5]]
    assert non_max_suppression(pair, [2, 1], threshold=0.5).tolist() == [0, 1]
    assert non_max_suppression(pair, [2, 1], threshold=0.499).tolist() == [0]


def test_suppression_of_nothing():
    for classes in (None, []):
        kept = non_max_suppression([], [], classes)
        assert kept.shape == (0,) and kept.dtype.kind == "i"


def plain_suppression(boxes, scores, classes, threshold):
    """The same, box by box."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(classes[i] != classes[k] or iou([boxes[i]], [boxes[k]]).item() <= threshold for k in kept):
            kept.append(i)
    return kept


@given(SEEDS, st.floats(0, 1), st.booleans())
@SOME
def test_suppression_as_its_rule_says(seed, threshold, tied):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 30))
    boxes, classes = some_boxes(rng, count, grid=8), rng.choice(CLASSES[:2], count)
    scores = rng.integers(0, 4, count) / 4 if tied else rng.random(count)
    kept = non_max_suppression(boxes, scores, classes, threshold=threshold)
    assert kept[0] == np.argmax(scores) and (np.diff(scores[kept]) <= 0).all() and len(set(kept)) == len(kept)
    for name in classes:
        mine = boxes[kept][classes[kept] == name]
        assert (np.triu(iou(mine, mine), 1) <= threshold).all()
    assert kept.tolist() == plain_suppression(boxes, scores, classes, threshold)
    apart = [np.flatnonzero(classes == name)[non_max_suppression(boxes[classes == name], scores[classes == name], threshold=threshold)] for name in set(classes)]
    assert sorted(kept) == sorted(np.concatenate(apart))


@pytest.mark.parametrize("arguments, options, message", [
    ((ROW, [1, 2]), {}, r"scores must hold one number a box, got shape \(2,\) for 3 boxes"),
    ((ROW, [[1], [2], [3]]), {}, r"got shape \(3, 1\)"),
    ((ROW, [1, 2, np.inf]), {}, "scores must be finite, got inf"),
    (([], [1]), {}, "for 0 boxes"),
    ((ROW, [1, 2, 3], ["a"]), {}, "classes must name every box, got 1 names for 3"),
    ((ROW, [1, 2, 3]), {"threshold": 1.5}, r"threshold must lie in \[0, 1\], got 1.5"),
    ((ROW, [1, 2, 3]), {"threshold": np.nan}, "got nan"),
    ((ROW, [1, 2, 3]), {"limit": 0}, "limit must be a whole number of at least 1, got 0"),
    ((ROW, [1, 2, 3]), {"limit": 2.5}, "got 2.5"),
])
def test_suppression_refuses(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        non_max_suppression(*arguments, **options)


# ---- matching ----

def test_matching_by_hand():
    assert match_boxes(*(TRUTHS[0][0], *FOUNDS[0][:2])).tolist() == [0, 1, -1]
    assert match_boxes(*(TRUTHS[1][0], *FOUNDS[1][:2])).tolist() == [-1, 0, -1]
    assert match_boxes(TRUTHS[1][0], *FOUNDS[1][:2], threshold=0.35).tolist() == [-1, 0, 1]
    assert match_boxes([A], [A, A, A], [0.1, 0.3, 0.3]).tolist() == [-1, 0, -1]            # a tie: the first
    assert match_boxes([], [A], [1]).tolist() == [-1] and match_boxes([A], [], []).tolist() == []


def test_the_surest_chooses_first_even_when_it_does_not_need_to():
    near, far = [0, 0, 1, 1], [0, 0.2, 1, 1.2]
    between = [0, 0.05, 1, 1.05]                                                           # fits both; near a little better
    assert match_boxes([near, far], [between, near], [0.9, 0.8]).tolist() == [0, 1]        # near is taken, and far is still good enough
    assert match_boxes([near, far], [between, near], [0.9, 0.8], threshold=0.7).tolist() == [0, -1]


def test_an_iou_at_the_threshold_is_enough():
    half = [0, 0, 1, 0.5]
    assert match_boxes([[0, 0, 1, 1]], [half], [1], threshold=0.5).tolist() == [0]
    assert match_boxes([[0, 0, 1, 1]], [half], [1], threshold=0.501).tolist() == [-1]
    assert match_boxes([A], [A], [1], threshold=1).tolist() == [0]


@given(SEEDS, st.floats(0.01, 1))
@SOME
def test_each_truth_is_taken_once_and_deserves_it(seed, threshold):
    rng = np.random.default_rng(seed)
    truth, found = some_boxes(rng, int(rng.integers(0, 8)), grid=6), some_boxes(rng, int(rng.integers(0, 12)), grid=6)
    scores = rng.integers(0, 5, len(found)) / 5
    taken = match_boxes(truth, found, scores, threshold)
    hit = np.flatnonzero(taken >= 0)
    overlap = iou(found, truth)
    assert len(set(taken[hit])) == len(hit)
    assert (overlap[hit, taken[hit]] >= threshold - 1e-9).all()
    free = np.setdiff1d(np.arange(len(truth)), taken)
    assert not (overlap[np.ix_(taken < 0, free)] >= threshold).any()                       # nobody left a truth that it could have had
    keep = scores >= 0.5                                                                   # who comes later takes nothing away
    assert np.array_equal(match_boxes(truth, found[keep], scores[keep], threshold), taken[keep])


# ---- average precision ----

def test_precision_and_recall_by_hand():
    precision, recall = precision_recall([1, 0, 1, 1, 0, 0], 4)
    assert precision == pytest.approx([1, 1 / 2, 2 / 3, 3 / 4, 3 / 5, 3 / 6]) and recall == pytest.approx([1 / 4, 1 / 4, 2 / 4, 3 / 4, 3 / 4, 3 / 4])
    with pytest.raises(ValueError, match="got 2 truths and 3 hits"):
        precision_recall([1, 1, 1], 2)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        precision_recall([], 0)


@pytest.mark.parametrize("hits, truths, value", [
    ([1, 0, 1, 1, 0, 0], 4, 63.5 / 101),
    ([1], 1, 1), ([1, 0, 0], 1, 1), ([0, 1], 1, 1 / 2), ([0, 0, 1, 1], 2, 1 / 2), ([1], 2, 51 / 101), ([1, 0, 1], 2, (51 + 50 * 2 / 3) / 101),
    ([], 3, 0), ([0, 0], 3, 0), ([1] * 100, 100, 1),
])
def test_ap_by_hand(hits, truths, value):
    assert interpolated_ap(hits, truths) == pytest.approx(value, abs=1e-12)


def test_average_precision_of_six_boxes():
    assert average_precision(TRUTHS, FOUNDS) == {"signature": pytest.approx(63.5 / 101)}
    # at IoU 0.3 number 6 is right as well: four of six, the last with a precision of 4/6
    assert average_precision(TRUTHS, FOUNDS, iou_threshold=0.3) == {"signature": pytest.approx((26 + 50 * 0.75 + 25 * 4 / 6) / 101)}
    # one box a page: numbers 1 and 2
    assert average_precision(TRUTHS, FOUNDS, limit=1) == {"signature": pytest.approx(26 / 101)}


def test_metrics_of_six_boxes():
    figures = detection_metrics(TRUTHS, FOUNDS, threshold=0.6)
    # IoU of numbers 1, 3, 4: .818, .775, .833, so all three count up to .75 and 1 and 4 up to .80, when the ranks 1 and 4 are right
    at_80 = (26 + 25 * 0.5) / 101
    assert figures == pytest.approx({"map50": 63.5 / 101, "map50_95": (6 * 63.5 / 101 + at_80) / 10, "ap50_signature": 63.5 / 101,
                                     "ap50_95_signature": (6 * 63.5 / 101 + at_80) / 10, "precision": 0.75, "recall": 0.75, "false_per_page": 0.5,
                                     "precision_signature": 0.75, "recall_signature": 0.75})
    assert {type(value) for value in figures.values()} == {float}
    assert set(detection_metrics(TRUTHS, FOUNDS)) == {"map50", "map50_95", "ap50_signature", "ap50_95_signature"}
    nothing = detection_metrics(TRUTHS, FOUNDS, threshold=0.99)
    assert (nothing["precision"], nothing["recall"], nothing["false_per_page"]) == (0, 0, 0)


def test_classes_without_truth_are_left_out_of_the_mean_and_are_false_at_a_threshold():
    stray = [FOUNDS[0], ([A], [0.7], ["date"])]
    figures = detection_metrics(TRUTHS, stray, threshold=0.5)
    assert not any(name.endswith("date") for name in figures)
    assert figures["map50"] == figures["ap50_signature"] == pytest.approx(51 / 101)
    assert figures["false_per_page"] == 1 / 2 and figures["precision"] == 2 / 3 and figures["precision_signature"] == 1
    assert detection_metrics(TRUTHS, stray, threshold=0.5, classes=("signature",))["precision"] == 1          # a known class that is not asked for


def test_a_box_of_the_wrong_class_is_false():
    figures = detection_metrics([([A, B], ["signature", "date"])], [([A, B], [0.9, 0.8], ["signature", "signature"])], threshold=0)
    assert (figures["ap50_signature"], figures["ap50_date"], figures["precision"], figures["recall"]) == (1, 0, 0.5, 0.5)


def test_a_limit_is_for_the_average_and_not_for_the_threshold():
    crowd = [(np.tile(B, (150, 1)), np.linspace(1, 0.5, 150), ["date"] * 150)]
    figures = detection_metrics([([A], ["date"])], [tuple(np.concatenate([part, [last]]) for part, last in zip(crowd[0], (A, 0.4, "date")))], threshold=0.3)
    assert figures["ap50_date"] == 0 and figures["recall"] == 1 and figures["false_per_page"] == 150
    assert detection_metrics([([A], ["date"])], [([A], [0.4], ["date"])])["ap50_date"] == 1


@given(SEEDS)
@SOME
def test_averages_are_fractions_and_perfect_is_one(seed):
    truths, founds = some_pages(seed, grid=8, levels=4 if seed % 2 else None)
    figures = detection_metrics(truths, founds, threshold=0.5)
    assert all(0 <= value <= 1 for name, value in figures.items() if name != "false_per_page")
    assert figures["map50_95"] <= figures["map50"] + 1e-12
    rng = np.random.default_rng(seed)
    apart = [(some_boxes(rng, len(boxes)), names) for boxes, names in truths]              # equal boxes of a class would be fine too
    perfect = detection_metrics(apart, [(boxes, rng.random(len(boxes)), names) for boxes, names in apart], threshold=0)
    assert all(value == 1 for name, value in perfect.items() if name != "false_per_page") and perfect["false_per_page"] == 0


@given(SEEDS)
@SOME
def test_one_more_false_box_never_helps(seed):
    truths, founds = some_pages(seed)
    rng = np.random.default_rng(seed)
    number, name = rng.integers(len(truths)), str(rng.choice(CLASSES))
    boxes, scores, names = founds[number]
    away = [5.0, 5.0, 6.0, 6.0]                                                            # touches no truth
    for score, may_fall in ((-1.0, False), (rng.random(), True)):
        worse = list(founds)
        worse[number] = (np.vstack([as_boxes(boxes), away]), np.append(scores, score), list(names) + [name])
        before, after = detection_metrics(truths, founds, threshold=-2), detection_metrics(truths, worse, threshold=-2)
        for figure in before:
            if figure.startswith(("map", "ap")):
                assert after[figure] <= before[figure] + 1e-12
                assert may_fall or after[figure] == before[figure]                         # below all others it is never looked at
        assert after["precision"] <= before["precision"] and after["recall"] == before["recall"]
        assert after["false_per_page"] == pytest.approx(before["false_per_page"] + 1 / len(truths))


@given(SEEDS)
@SOME
def test_only_the_order_of_the_scores_counts(seed):
    truths, founds = some_pages(seed, levels=5)
    bent = [(boxes, np.asarray(scores, float) ** 3 - 7, names) for boxes, scores, names in founds]
    assert detection_metrics(truths, bent) == detection_metrics(truths, founds)
    assert np.array_equal(froc(truths, bent).recall, froc(truths, founds).recall)


@pytest.mark.parametrize("truths, founds, message", [
    (TRUTHS, FOUNDS[:1], r"one entry a page, got 2 and 1"),
    ([([A], ["Signature"])], [NOTHING], r"truths of page 0: classes must be among .*got 'Signature'"),
    (TRUTHS, [FOUNDS[0], ([A], [0.5], [0])], r"founds of page 1: classes must be among .*got '0': pass names, not numbers"),
    (TRUTHS, [FOUNDS[0], ([A], [0.5, 0.6], ["date"])], r"scores of page 1 must hold one number a box, got shape \(2,\) for 1"),
    (TRUTHS, [FOUNDS[0], ([A], [np.nan], ["date"])], "scores of page 1 must be finite, got nan"),
    (TRUTHS, [FOUNDS[0], ([A], [0.5], [])], "founds of page 1 must have a class for every box, got 0 classes for 1"),
    ([TRUTHS[0], ([A], [])], FOUNDS, "truths of page 1 must have a class for every box"),
    ([TRUTHS[0], ([A[:3]], ["date"])], FOUNDS, r"truths of page 1 must be \(N, 4\)"),
    (TRUTHS, [FOUNDS[0], ([A], ["date"])], r"page 1 must be \(boxes, classes\) in truths .* got 2 and 2"),
    ([([], [])] * 2, FOUNDS, "truths must hold a box of signature.* got none on 2 pages"),
    ([], [], "got none on 0 pages"),
])
@pytest.mark.parametrize("function", [average_precision, detection_metrics, froc, recall_at, choose_threshold])
def test_pages_that_do_not_fit_are_refused(function, truths, founds, message):
    with pytest.raises(ValueError, match=message):
        function(truths, founds)


def test_options_out_of_range_are_refused():
    for call, message in [(lambda: average_precision(TRUTHS, FOUNDS, iou_threshold=50), "iou_threshold must lie"),
                          (lambda: average_precision(TRUTHS, FOUNDS, limit=0), "limit must be"),
                          (lambda: average_precision(TRUTHS, FOUNDS, "signature"), r"classes must be a tuple of names, got 'signature'"),
                          (lambda: detection_metrics(TRUTHS, FOUNDS, classes=("date",)), "a box of date, got none"),
                          (lambda: detection_metrics(TRUTHS, FOUNDS, threshold=np.nan), "threshold must be a number"),
                          (lambda: froc(TRUTHS, FOUNDS, class_name="date"), "a box of date, got none"),
                          (lambda: recall_at(TRUTHS, FOUNDS, -0.1), "false_per_page must be 0 or more, got -0.1"),
                          (lambda: recall_at(TRUTHS, FOUNDS, np.nan), "got nan"),
                          (lambda: choose_threshold(TRUTHS, FOUNDS, beta=0), "beta must be a positive number, got 0")]:
        with pytest.raises(ValueError, match=message):
            call()


# ---- against pycocotools ----

def coco_precision(truths, founds, classes, limit):
    """The reference: AP of each class and IoU threshold, (10, K), -1 for classes without truth. Built as data sets in memory: loadRes refuses an empty list."""
    def data(entries):
        annotations = []
        for number, (boxes, *scores, names) in enumerate(entries, 1):
            for i, (ymin, xmin, ymax, xmax) in enumerate(np.reshape(boxes, (-1, 4)).tolist()):
                annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": classes.index(names[i]) + 1, "iscrowd": 0,
                                    "bbox": [xmin, ymin, xmax - xmin, ymax - ymin], "area": (xmax - xmin) * (ymax - ymin)}
                                   | ({"score": float(scores[0][i])} if scores else {}))
        coco = COCO()
        coco.dataset = {"images": [{"id": number} for number in range(1, len(entries) + 1)], "annotations": annotations,
                        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)]}
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(data(truths), data(founds), "bbox")
        judge.params.maxDets = [limit]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][:, :, :, judge.params.areaRngLbl.index("all"), 0].mean(axis=1)


AWKWARD = {
    "continuous": dict(),
    "equal IoU": dict(grid=8),
    "equal scores": dict(levels=3),
    "equal IoU and scores": dict(grid=6, levels=2, most=9),
    "all scores one": dict(grid=16, levels=1),
    "many pages": dict(pages=25, levels=20),
    "one class": dict(classes=("signature",), grid=8),
    "hundreds of boxes": dict(pages=3, ghosts=700, levels=12, grid=32, most=20),
    "hundreds of boxes of one class": dict(pages=2, ghosts=300, classes=("date",), most=30),
}


def check_against_coco(truths, founds, limit=100):
    classes = list(CLASSES)
    reference = coco_precision(truths, founds, classes, limit)
    present = [k for k, name in enumerate(classes) if any(name in names for _, names in truths)]
    figures = detection_metrics(truths, founds, limit=limit)
    assert set(figures) == {"map50", "map50_95"} | {f"{what}_{classes[k]}" for what in ("ap50", "ap50_95") for k in present}
    for k, name in enumerate(classes):
        assert (reference[:, k] >= 0).all() == (k in present)
        if k in present:
            assert figures[f"ap50_{name}"] == pytest.approx(reference[0, k], abs=1e-9)
            assert figures[f"ap50_95_{name}"] == pytest.approx(reference[:, k].mean(), abs=1e-9)
    assert figures["map50"] == pytest.approx(reference[0, present].mean(), abs=1e-9)
    assert figures["map50_95"] == pytest.approx(reference[:, present].mean(), abs=1e-9)
    for at in (3, 9):
        ours = average_precision(truths, founds, iou_threshold=IOU_THRESHOLDS[at], limit=limit)
        assert ours == pytest.approx({classes[k]: reference[at, k] for k in present}, abs=1e-9)
    return figures


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", AWKWARD)
def test_agrees_with_pycocotools(kind, seed):
    check_against_coco(*some_pages(1000 * seed + list(AWKWARD).index(kind), **AWKWARD[kind]), limit=(100, 100, 100, 100, 10, 1)[seed])


def test_agrees_with_pycocotools_when_nothing_is_found():
    truths, _ = some_pages(5, grid=8)
    assert check_against_coco(truths, [NOTHING] * len(truths))["map50"] == 0


def test_agrees_with_pycocotools_on_six_boxes():
    assert check_against_coco(TRUTHS, FOUNDS)["map50"] == pytest.approx(63.5 / 101)


def test_the_hundred_matters_to_the_comparison():
    kind = "hundreds of boxes of one class"
    pages = [some_pages(1000 * seed + list(AWKWARD).index(kind), **AWKWARD[kind]) for seed in range(4)]      # those compared with a limit of 100
    assert any(detection_metrics(*both) != detection_metrics(*both, limit=1000) for both in pages)


# ---- FROC ----

def test_froc_by_hand():
    curve = froc(TRUTHS, FOUNDS)
    assert isinstance(curve, Froc)
    assert curve.false_per_page.tolist() == [0, 0, 0.5, 0.5, 0.5, 1, 1.5]
    assert curve.recall.tolist() == [0, 0.25, 0.25, 0.5, 0.75, 0.75, 0.75]
    assert curve.threshold.tolist() == [np.inf, 0.95, 0.90, 0.80, 0.60, 0.45, 0.30]
    assert [recall_at(TRUTHS, FOUNDS, at) for at in (0, 0.49, 0.5, 1, 99)] == [0.25, 0.25, 0.75, 0.75, 0.75]
    assert recall_at(TRUTHS, FOUNDS, 1.5, iou_threshold=0.3) == 1
    assert [part.tolist() for part in froc(TRUTHS, [NOTHING] * 2)] == [[0], [0], [np.inf]] and recall_at(TRUTHS, [NOTHING] * 2) == 0


def test_equal_scores_come_together():
    tied = [(boxes, [0.5] * 3, names) for boxes, _, names in FOUNDS]
    assert [part.tolist() for part in froc(TRUTHS, tied)] == [[0, 1.5], [0, 0.75], [np.inf, 0.5]]
    assert recall_at(TRUTHS, tied, 1.49) == 0 and recall_at(TRUTHS, tied, 1.5) == 0.75


def test_froc_of_one_class_counts_its_own_boxes():
    truths = [([A, B], ["signature", "date"])]
    founds = [([A, C, D], [0.9, 0.8, 0.7], ["signature", "date", "signature"])]
    assert froc(truths, founds).recall[-1] == 0.5 and froc(truths, founds).false_per_page[-1] == 2
    alone = froc(truths, founds, class_name="signature")
    assert alone.recall.tolist() == [0, 1, 1] and alone.false_per_page.tolist() == [0, 0, 1]
    assert recall_at(truths, founds, 0, class_name="signature") == 1 and recall_at(truths, founds, 99, class_name="date") == 0


def test_classes_of_ones_own():
    truths, founds = [([A], ["stamp"])], [([A], [0.9], ["stamp"])]
    assert detection_metrics(truths, founds, classes=("stamp",))["map50_95"] == 1
    assert recall_at(truths, founds, 0, class_name="stamp") == recall_at(truths, founds, 0, classes=("stamp",)) == 1
    with pytest.raises(ValueError, match="got 'stamp'.*further names as classes="):
        detection_metrics(truths, founds)


@given(SEEDS)
@SOME
def test_froc_is_what_each_threshold_gives(seed):
    truths, founds = some_pages(seed, grid=8, levels=(None, 4)[seed % 2])
    curve = froc(truths, founds)
    assert (np.diff(curve.recall) >= 0).all() and (np.diff(curve.false_per_page) >= 0).all() and (np.diff(curve.threshold) < 0).all()
    for false, recall, threshold in zip(*curve):
        there = detection_metrics(truths, founds, threshold=threshold)
        assert (there["false_per_page"], there["recall"]) == (false, recall)
    for allowed in (0, 0.3, 1, 2.5):
        assert recall_at(truths, founds, allowed) == max(r for f, r in zip(curve.false_per_page, curve.recall) if f <= allowed)


# ---- the threshold ----

def test_threshold_by_hand():
    point = choose_threshold(TRUTHS, FOUNDS)
    assert point == OperatingPoint(threshold=pytest.approx(0.525), precision=0.75, recall=0.75, false_per_page=0.5, f=0.75)
    assert choose_threshold(TRUTHS, FOUNDS, beta=0.3).threshold == pytest.approx(0.925)
    assert choose_threshold(TRUTHS, FOUNDS, beta=2, iou_threshold=0.3).threshold == pytest.approx(0.15)         # all six; below the last stands 0
    with pytest.raises(AttributeError):
        point.threshold = 0


@pytest.mark.parametrize("scores, threshold", [([0.5], 0.25), ([-2.0], -2.0), ([0.0], 0.0)])
def test_below_the_lowest_score(scores, threshold):
    assert choose_threshold([([A], ["date"])], [([A], scores, ["date"])]).threshold == threshold


def test_neighbouring_scores_leave_no_middle():
    low = 0.5
    high = np.nextafter(low, 1)
    point = choose_threshold([([A], ["date"])], [([A, B], [high, low], ["date"] * 2)])
    assert point.threshold == high and point.f == 1


def test_no_right_box_leaves_nothing_to_choose():
    for founds in ([NOTHING] * 2, [NOTHING, ([A], [0.5], ["signature"])]):
        with pytest.raises(ValueError, match="needs a found box that is right, got none among"):
            choose_threshold(TRUTHS, founds)


@given(SEEDS, st.sampled_from([0.5, 1, 2]))
@SOME
def test_no_threshold_is_better_than_the_chosen_one(seed, beta):
    truths, founds = some_pages(seed, levels=(None, 5)[seed % 2])

    def f(figures):
        p, r = figures["precision"], figures["recall"]
        return (1 + beta**2) * p * r / (beta**2 * p + r) if p + r else 0.0

    best = max(f(detection_metrics(truths, founds, threshold=threshold)) for threshold in froc(truths, founds).threshold)
    if best == 0:
        with pytest.raises(ValueError):
            choose_threshold(truths, founds, beta=beta)
        return
    point = choose_threshold(truths, founds, beta=beta)
    there = detection_metrics(truths, founds, threshold=point.threshold)
    assert (point.precision, point.recall, point.false_per_page) == (there["precision"], there["recall"], there["false_per_page"])
    assert point.f == pytest.approx(f(there)) == pytest.approx(best)


# ---- anchors ----

def test_fit_by_hand():
    assert best_iou([[2, 4]], [[4, 4]]) == 0.5
    assert best_iou([[2, 4], [4, 4]], [[4, 4]]) == 0.75
    assert best_iou([[2, 4], [4, 4]], [[4, 4], [2, 4]]) == 1
    assert best_iou([[1, 100]], [[100, 1]]) == pytest.approx(1 / 199)


def test_groups_are_found():
    rng = np.random.default_rng(0)
    centres = np.array([[0.02, 0.05], [0.05, 0.3], [0.3, 0.08], [0.4, 0.9]])
    sizes = (centres[:, None] * rng.lognormal(0, 0.05, (4, 50, 2))).reshape(-1, 2)
    for seed in range(5):
        assert kmeans_boxes(sizes, 4, seed) == pytest.approx(centres, rel=0.03)


@given(SEEDS, st.integers(1, 6))
@settings(max_examples=30)
def test_prototypes_lie_among_the_sizes(seed, k):
    sizes = np.exp(np.random.default_rng(seed).normal(-2, 0.8, (40, 2)))
    prototypes = kmeans_boxes(sizes, k, seed)
    assert prototypes.shape == (k, 2) and np.array_equal(prototypes, kmeans_boxes(sizes, k, seed))
    assert (prototypes >= sizes.min(axis=0) * (1 - 1e-9)).all() and (prototypes <= sizes.max(axis=0) * (1 + 1e-9)).all()
    assert (np.diff(prototypes.prod(axis=1)) >= 0).all()
    fit = best_iou(sizes, prototypes)
    assert 0 < fit <= 1
    assert fit >= max(best_iou(sizes, sizes[:k]), best_iou(sizes, sizes[-k:])) - 0.05      # at least about as good as any k of the sizes
    assert best_iou(sizes * [7, 0.01], prototypes * [7, 0.01]) == pytest.approx(fit)       # whatever the units of height and width


def test_as_many_prototypes_as_sizes_fit_perfectly():
    sizes = np.array([[1, 2], [2, 1], [3, 3], [3, 3], [1, 2], [5, 1]], float)
    assert best_iou(sizes, kmeans_boxes(sizes, 4)) == pytest.approx(1)


@pytest.mark.parametrize("call, message", [
    (lambda: kmeans_boxes([[1, 2], [1, 2]], 2), "k must be at most the number of different sizes, got k=2 and 1"),
    (lambda: kmeans_boxes([[1, 2]], 0), "k must be a whole number of at least 1, got 0"),
    (lambda: kmeans_boxes([[1, 0]], 1), "sizes must be positive"),
    (lambda: kmeans_boxes([[1, np.nan]], 1), "sizes must be positive"),
    (lambda: kmeans_boxes([], 1), "got none"),
    (lambda: kmeans_boxes([A], 1), r"sizes must be \(N, 2\), \[height, width\], got shape \(1, 4\)"),
    (lambda: best_iou([[1, 2]], [[-1, 2]]), "prototypes must be positive"),
])
def test_sizes_that_are_none_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
