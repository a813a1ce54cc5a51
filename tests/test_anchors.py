"""Anchors and their targets: the way to the network and back is exact, every labelled box is somebody's, and the losses are those of the papers."""
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from signver_kit.anchors import (NOT_ASKED, PAPER, DetectionLoss, anchor_boxes, assign_targets, decode_boxes, encode_boxes, fit_shapes, focal_loss, fold_sizes,
                                 giou_loss, smooth_l1)
from signver_kit.boxes import iou

from backends import gradient, numpy

SHAPES = ((1.8, 3.0), (1.3, 4.3), (3.0, 3.0))


def boxes_in(size, rng, n):
    """n boxes of some extent within a picture, in pixels."""
    corner, extent = rng.uniform(0, size, (n, 2)), np.exp(rng.uniform(np.log(4), np.log(size / 2), (n, 2)))
    return np.concatenate([corner, np.minimum(corner + extent, size)], 1) + [0, 0, 1, 1]


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (65, 33)])
def test_every_cell_of_every_level_has_its_anchors_in_its_middle(size):
    anchors = anchor_boxes(size, SHAPES)
    assert len(anchors) == sum(len(SHAPES) * -(-size[0] // s) * -(-size[1] // s) for s in (8, 16, 32, 64)) and anchors.dtype == np.float32
    middle = (anchors[0, :2] + anchors[0, 2:]) / 2
    assert middle.tolist() == [4, 4]
    last = (anchors[-1, :2] + anchors[-1, 2:]) / 2
    assert last.tolist() == [(-(-size[0] // 64) - 0.5) * 64, (-(-size[1] // 64) - 0.5) * 64]
    assert np.allclose(anchors[:3, 2:] - anchors[:3, :2], np.array(SHAPES) * 8)


@pytest.mark.parametrize("shapes", [[], [[1, 0]], [[1, 2, 3]], [1, 2], [[np.nan, 1]]])
def test_shapes_that_are_none_are_refused(shapes):
    with pytest.raises(ValueError, match="positive heights and widths"):
        anchor_boxes((64, 64), shapes)


@given(st.integers(0, 2**32 - 1))
def test_shifts_and_back(seed):
    rng = np.random.default_rng(seed)
    boxes, anchors = boxes_in(400, rng, 20), boxes_in(400, rng, 20)
    anchors[:, 2:] = anchors[:, :2] + np.clip(anchors[:, 2:] - anchors[:, :2], (boxes[:, 2:] - boxes[:, :2]) / 40, None)       # no box is 50 times its anchor
    assert np.allclose(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes, atol=0.01)
    assert np.allclose(encode_boxes(anchors, anchors), 0, atol=1e-2)


def test_a_wild_shift_does_not_overflow():
    assert np.isfinite(decode_boxes(np.full((1, 4), 1e6), np.array([[0, 0, 10, 10]]))).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_every_box_is_somebodys_and_the_targets_lead_to_it(seed, n):
    rng = np.random.default_rng(seed)
    anchors, boxes, classes = anchor_boxes((128, 192), SHAPES), boxes_in(128, rng, n), rng.integers(0, 4, n)
    targets = assign_targets(anchors, boxes, classes)
    responsible = targets[:, 0] >= 0
    assert set(np.unique(targets[~responsible, 0])) <= {PAPER, NOT_ASKED} and not targets[~responsible, 1:].any()
    if not n:
        assert (targets[:, 0] == PAPER).all()
        return
    reached = decode_boxes(targets[responsible, 1:], anchors[responsible])
    overlap = iou(reached, boxes)
    assert np.allclose(overlap.max(1), 1, atol=1e-3)
    assert np.array_equal(classes[overlap.argmax(1)], targets[responsible, 0]) or len(np.unique(boxes, axis=0)) < n
    touched = iou(anchors, boxes).max(1)
    assert (targets[touched >= 0.5, 0] >= 0).all() and (targets[(touched >= 0.4) & ~responsible, 0] == NOT_ASKED).all() and (targets[touched == 0, 0] == PAPER).all()
    overlap = iou(anchors, boxes)
    claims = (overlap >= overlap.max(0) - 1e-9) & (overlap.max(0) > 0)
    found = iou(reached, boxes) > 0.99
    for k in np.flatnonzero(claims.any(0)):                                    # unless others claim its best anchors as well, each box has one
        assert found[:, k].any() or (claims[claims[:, k]].sum(1) > 1).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_anchors_that_nothing_touches_need_not_be_looked_at(seed, n):
    rng = np.random.default_rng(seed)
    anchors, ignored = anchor_boxes((128, 192), SHAPES), boxes_in(128, rng, n)
    targets = assign_targets(anchors, [], [], ignored)
    sides = np.minimum(anchors[:, None, 2:], ignored[:, 2:]) - np.maximum(anchors[:, None, :2], ignored[:, :2])
    share = sides.clip(0).prod(-1).max(1, initial=0) / (anchors[:, 2:] - anchors[:, :2]).prod(-1)              # of all anchors
    assert np.array_equal(targets[:, 0] == NOT_ASKED, share > 0.4) and (targets[share <= 0.4, 0] == PAPER).all()


def test_anchors_in_an_ignored_box_are_not_asked():
    anchors = anchor_boxes((128, 192), SHAPES)
    targets = assign_targets(anchors, [[40, 40, 60, 80]], [1], ignored=[[0, 0, 30, 190]])
    inside = (anchors[:, 2] <= 30) & (anchors[:, 0] >= 0) & (anchors[:, 1] >= 0) & (anchors[:, 3] <= 190)
    assert inside.any() and (targets[inside & (iou(anchors, [[40, 40, 60, 80]])[:, 0] < 0.4), 0] == NOT_ASKED).all()
    assert (targets[anchors[:, 0] > 90, 0] == PAPER).all() and (targets[:, 0] == 1).any()


@given(st.lists(st.tuples(st.floats(2, 500), st.floats(2, 500)), min_size=1, max_size=20), st.integers(-3, 3))
def test_folding_forgets_the_octave_and_keeps_the_aspect(sizes, octave):
    sizes = np.array(sizes)
    folded = fold_sizes(sizes)
    area = np.sqrt(folded.prod(1))
    assert ((area >= 2 * (1 - 1e-9)) & (area < 4 * (1 + 1e-9))).all() and np.allclose(folded[:, 0] / folded[:, 1], sizes[:, 0] / sizes[:, 1])
    again = fold_sizes(sizes * 2.0**octave)
    edge = np.abs(np.log2(area / 2) % 1 - 0.5) > 0.499                           # on the very edge of an octave, rounding decides
    assert np.allclose(again[~edge], folded[~edge])


def test_fitted_shapes_find_the_kinds_that_there_are():
    rng = np.random.default_rng(0)
    kinds = np.array([[20, 20], [12, 80]])
    sizes = np.concatenate([kinds[k] * np.exp(rng.normal(0, 0.02, (50, 2))) * 2.0 ** rng.integers(0, 3, (50, 1)) for k in (0, 1)])
    shapes = fit_shapes(sizes, 2)
    assert np.allclose(sorted(shapes[:, 1] / shapes[:, 0]), [1, 80 / 12], rtol=0.03)
    with pytest.raises(ValueError, match="positive heights"):
        fit_shapes([[0, 3]], 1)


# ---- losses ----

@given(st.floats(-8, 8), st.sampled_from([0.0, 1.0]), st.floats(0, 4), st.floats(0, 1))
def test_focal_loss_is_the_papers_formula(logit, truth, gamma, alpha):
    p = 1 / (1 + np.exp(-logit))
    pt, weight = (p, alpha) if truth else (1 - p, 1 - alpha)
    expected = -weight * (1 - pt)**gamma * np.log(pt)
    assert np.isclose(float(focal_loss(ops.convert_to_tensor(np.float32(truth)), ops.convert_to_tensor(np.float32(logit)), alpha, gamma)), expected, rtol=1e-3, atol=1e-6)


def test_focal_loss_of_an_absurdly_sure_answer_is_finite_and_so_is_its_gradient():
    loss, slope = gradient(lambda logits: ops.sum(focal_loss(np.float32([0, 1, 1]), logits)), np.float32([500, -500, 0]))
    assert np.isfinite(loss) and np.isfinite(slope).all()


@given(st.integers(0, 2**32 - 1))
def test_giou_is_that_of_the_boxes_whatever_the_anchor(seed):
    rng = np.random.default_rng(seed)
    anchors = np.repeat([[40, 40, 60, 90.0]], 5, 0)
    a, b = (np.concatenate([c := rng.uniform(20, 80, (5, 2)), c + rng.uniform(5, 60, (5, 2))], 1) for _ in range(2))
    around = np.concatenate([np.minimum(a[:, :2], b[:, :2]), np.maximum(a[:, 2:], b[:, 2:])], 1)
    area = lambda x: (x[:, 2:] - x[:, :2]).prod(1)                             # noqa: E731
    overlap = np.diag(iou(a, b))
    union = (area(a) + area(b)) / (1 + overlap)
    expected = 1 - overlap + (area(around) - union) / area(around)
    assert np.allclose(numpy(giou_loss(encode_boxes(a, anchors), encode_boxes(b, anchors))), expected, atol=1e-3)


def test_smooth_l1_joins_its_two_halves_smoothly():
    x = np.zeros((3, 4), "float32")
    x[:, 0] = [0.0999, 0.1, 0.1001]
    values = numpy(smooth_l1(np.zeros((3, 4), "float32"), x))
    assert np.allclose(np.diff(values), 1e-4, rtol=0.02) and np.isclose(values[1], 0.05)


def a_batch(seed=0):
    anchors = anchor_boxes((64, 64), SHAPES)
    targets = np.stack([assign_targets(anchors, [[10, 10, 30, 40]], [2]), assign_targets(anchors, [], [])])
    answers = np.random.default_rng(seed).normal(0, 1, (2, len(anchors), 8)).astype("float32")
    return targets, answers


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou"])
def test_the_loss_is_the_sum_over_anchors_over_those_that_have_something_to_find(box_loss):
    targets, answers = a_batch()
    something, asked = targets[..., 0] >= 0, targets[..., 0] != NOT_ASKED
    truth = (targets[..., :1] == np.arange(4)).astype("float32")
    what = numpy(focal_loss(truth, answers[..., :4])).sum(-1)[asked].sum()
    where = numpy((smooth_l1 if box_loss == "smooth_l1" else giou_loss)(targets[..., 1:], answers[..., 4:]))[something].sum()
    assert np.isclose(float(DetectionLoss(box_loss, weight=0.3)(targets, answers)), (what + 0.3 * where) / something.sum(), rtol=1e-4)


def test_answers_that_nobody_asked_for_do_not_count():
    targets, answers = a_batch()
    other = answers.copy()
    other[targets[..., 0] == NOT_ASKED] = 7
    other[targets[..., 0] == PAPER, 4:] = 7
    assert (targets[..., 0] == NOT_ASKED).any()
    assert np.isclose(float(DetectionLoss()(targets, answers)), float(DetectionLoss()(targets, other)), rtol=1e-6)


def test_pages_without_boxes_have_a_loss_too():
    targets, answers = a_batch()
    assert np.isfinite(float(DetectionLoss()(targets[1:], answers[1:]))) and float(DetectionLoss()(targets[1:], answers[1:])) > 0


def test_the_loss_is_kept_with_its_settings():
    loss = DetectionLoss("giou", 2.0, 0.5, 1.5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    with pytest.raises(ValueError, match="smooth_l1, giou"):
        DetectionLoss("l2")
