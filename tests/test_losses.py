"The metric-learning losses: against a slow reference, by hand, their invariances, gradients and memory."
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signver_kit.losses import LOSSES as REGISTRY
from signver_kit.losses import (
    FORGERIES, PAIR_MINING, ArcFaceLoss, BatchLoss, CircleLoss, ClassCosines, ContrastiveLoss, ForgeryHeadLoss, MultiSimilarityLoss,
    SupervisedContrastiveLoss, TripletLoss, all_distances, diversity_term, encode_labels, make_loss, mine_pairs, pair_distances, pair_masks)

import backends
from backends import numpy, on_tensorflow

GENTLE = settings(max_examples=8, deadline=None, derandomize=True)
TRIPLETS = [{"mining": mining, "distance": distance, "p": p, "soft": soft}
            for mining in ("hard", "semi-hard") for distance, p in (("euclidean", 2), ("euclidean", 1), ("euclidean", 3.5),
                                                                     ("euclidean", math.inf), ("cosine", 2))
            for soft in (False, True)]
LOSSES = [TripletLoss(margin=0.5), TripletLoss("semi-hard", margin=0.5, diversity=0.1), TripletLoss(p=1, soft=True), TripletLoss(p=3),
          TripletLoss(distance="cosine"), TripletLoss(normalise=True), SupervisedContrastiveLoss(), SupervisedContrastiveLoss(1.0)]
PAIRS = [ContrastiveLoss(1.5), ContrastiveLoss(mining="hard"), ContrastiveLoss(mining="epsilon", normalise=True), MultiSimilarityLoss(),
         MultiSimilarityLoss(mining="all"), CircleLoss(), CircleLoss(0.25, 20, mining="hard")]
HEADS = [ArcFaceLoss(signers=4), ArcFaceLoss(scale=8, forgeries="ignore", signers=4), ForgeryHeadLoss(0.4, signers=4),
         ForgeryHeadLoss(forgeries="positive", signers=4), ForgeryHeadLoss(forgeries="ignore", signers=4)]


def identify(value):
    return "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None


def batch(rows=24, size=5, signers=4, seed=0):
    random = np.random.default_rng(seed)
    labels = encode_labels(random.integers(0, signers, rows), random.random(rows) < 0.3)
    return labels, random.normal(size=(rows, size)).astype("float32")


def joined(rows=24, size=5, signers=4, seed=0):
    "Labels, and columns as a head gives them: `size` numbers of an embedding (that the losses do not read), then numbers in (-1, 1)."
    labels, x = batch(rows, size + signers + 1, signers, seed)
    return labels, np.tanh(x)


def gradient(loss, labels, embeddings):
    "Loss and gradient with respect to free embeddings; zero where nothing flows back."
    value, slope = backends.gradient(lambda x: loss(labels, x), embeddings)
    return value, np.zeros_like(embeddings) if slope is None else slope


# ---- slow references, loops and float64 only

def distance_of(a, b, distance, p):
    if distance == "cosine":
        return 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return np.linalg.norm(a - b, ord=p)


def slow_triplet(labels, x, mining="hard", margin=0.2, soft=False, distance="euclidean", p=2, forgeries="negative", diversity=0.0):
    x, losses = np.asarray(x, float), []
    if forgeries == "ignore":
        x, labels = x[labels >= 0], labels[labels >= 0]
    if forgeries == "positive":
        labels = np.where(labels < 0, -labels - 1, labels)
    for i in range(len(x)):
        if labels[i] < 0:
            continue
        to = [distance_of(x[i], x[j], distance, p) for j in range(len(x)) if j != i and labels[j] == labels[i]]
        away = [distance_of(x[i], x[j], distance, p) for j in range(len(x)) if labels[j] != labels[i]]
        if not to or not away:
            continue
        band = [d for d in away if max(to) < d < max(to) + margin]
        near = min(band) if mining == "semi-hard" and band else min(away)
        losses.append(np.logaddexp(0, max(to) - near) if soft else max(0, max(to) - near + margin))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    spread = ((unit @ unit.T - np.eye(len(x))) ** 2).sum() / (len(x) * (len(x) - 1))
    return (np.mean(losses) if losses else 0.0) + diversity * spread


def slow_contrastive(labels, x, temperature=0.1):
    x, losses = np.asarray(x, float), []
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(len(x)):
        positives = [j for j in range(len(x)) if j != i and labels[j] == labels[i] and labels[i] >= 0]
        if positives:
            total = sum(math.exp(x[i] @ x[a] / temperature) for a in range(len(x)) if a != i)
            losses.append(-np.mean([math.log(math.exp(x[i] @ x[p] / temperature) / total) for p in positives]))
    return np.mean(losses) if losses else 0.0


def similarities(x):
    x = np.asarray(x, float)
    lengths = [math.sqrt(sum(v * v for v in row)) for row in x]
    return [[sum(a * b for a, b in zip(x[i], x[j])) / (lengths[i] * lengths[j]) for j in range(len(x))] for i in range(len(x))]


def slow_partners(labels, i, forgeries="negative"):
    "Positives and negatives of an anchor, as lists."
    if labels[i] < 0:
        return [], []
    others = [j for j in range(len(labels)) if j != i and not (forgeries == "ignore" and labels[j] < 0)]
    return [j for j in others if labels[j] == labels[i]], [j for j in others if labels[j] != labels[i]]


def slow_mine(distance, to, away, mining, epsilon):
    "What mining leaves of one anchor's partners; `distance`: from the anchor to each."
    if mining == "all":
        return to, away
    farthest, nearest = max([distance[j] for j in to], default=-math.inf), min([distance[j] for j in away], default=math.inf)
    if mining == "hard":
        return [j for j in to if distance[j] == farthest], [j for j in away if distance[j] == nearest]
    return [j for j in to if distance[j] > nearest - epsilon], [j for j in away if distance[j] < farthest + epsilon]


def slow_pairs(labels, x, margin=1.0, mining="all", epsilon=0.1, forgeries="negative"):
    x, losses = np.asarray(x, float), []
    for i in range(len(x)):
        distance = [math.dist(x[i], other) for other in x]
        to, away = slow_partners(labels, i, forgeries)
        if not to and not away:
            continue
        to, away = slow_mine(distance, to, away, mining, epsilon)
        pull = sum(distance[j] ** 2 for j in to) / max(len(to), 1)
        push = sum(max(0, margin - distance[j]) ** 2 for j in away) / max(len(away), 1)
        losses.append((pull + push) / 2)
    return np.mean(losses) if losses else 0.0


def slow_multi_similarity(labels, x, alpha=2.0, beta=50.0, base=0.5, mining="epsilon", epsilon=0.1, forgeries="negative"):
    table, losses = similarities(x), []
    for i, row in enumerate(table):
        to, away = slow_partners(labels, i, forgeries)
        if to and away:
            to, away = slow_mine([1 - s for s in row], to, away, mining, epsilon)
            losses.append(math.log(1 + sum(math.exp(-alpha * (row[j] - base)) for j in to)) / alpha
                          + math.log(1 + sum(math.exp(beta * (row[j] - base)) for j in away)) / beta)
    return np.mean(losses) if losses else 0.0


def slow_circle(labels, x, margin=0.4, scale=80.0, mining="all", epsilon=0.1, forgeries="negative", weights_of=None):
    "`weights_of`: the embeddings from which the weights come, so that they can be held while x moves."
    table, weighing, losses = similarities(x), similarities(x if weights_of is None else weights_of), []
    for i, row in enumerate(table):
        to, away = slow_partners(labels, i, forgeries)
        if to and away:
            to, away = slow_mine([1 - s for s in row], to, away, mining, epsilon)
            positives = sum(math.exp(-scale * max(0, 1 + margin - weighing[i][j]) * (row[j] - 1 + margin)) for j in to)
            negatives = sum(math.exp(scale * max(0, weighing[i][j] + margin) * (row[j] - margin)) for j in away)
            losses.append(math.log(1 + positives * negatives))
    return np.mean(losses) if losses else 0.0


def slow_arcface(labels, cosines, margin=0.5, scale=30.0, forgeries="negative"):
    losses = []
    for label, row in zip(labels, np.asarray(cosines, float)):
        if label < 0 and forgeries == "negative":
            losses.append(math.log(1 + sum(math.exp(scale * c) for c in row)))
        elif label >= 0 or forgeries == "positive":
            signer = label if label >= 0 else -label - 1
            angle = math.acos(row[signer])
            moved = math.cos(angle + margin) if angle + margin < math.pi else math.cos(angle) - margin * math.sin(margin)
            others = sum(math.exp(scale * c) for j, c in enumerate(row) if j != signer)
            losses.append(-math.log(math.exp(scale * moved) / (math.exp(scale * moved) + others)))
    return np.mean(losses) if losses else 0.0


def slow_signet_f(labels, logits, forgery_weight, forgeries="negative"):
    whose, forged = [], []
    for label, row in zip(labels, np.asarray(logits, float)):
        if label >= 0 or forgeries == "positive":
            whose.append(-math.log(math.exp(row[label if label >= 0 else -label - 1]) / sum(math.exp(z) for z in row[:-1])))
        if label >= 0 or forgeries != "ignore":
            probability = 1 / (1 + math.exp(-row[-1]))
            forged.append(-math.log(probability if label < 0 else 1 - probability))
    mean = lambda values: np.mean(values) if values else 0.0
    return (1 - forgery_weight) * mean(whose) + forgery_weight * mean(forged)


# ---- values

@pytest.mark.parametrize("forgeries", FORGERIES[:2])
@pytest.mark.parametrize("mining", PAIR_MINING)
@pytest.mark.parametrize("make, slow, options", [(ContrastiveLoss, slow_pairs, {"margin": 3.0}), (MultiSimilarityLoss, slow_multi_similarity, {"beta": 10.0}),
                                                 (CircleLoss, slow_circle, {"margin": 0.25, "scale": 16.0})])
def test_pair_losses_agree_with_slow_references(make, slow, options, mining, forgeries):
    for seed in range(3):
        labels, x = batch(seed=seed)
        options = {**options, "mining": mining, "epsilon": 0.3, "forgeries": forgeries}
        assert float(make(**options)(labels, x)) == pytest.approx(slow(labels, x, **options), rel=1e-4)


@pytest.mark.parametrize("make, slow", [(MultiSimilarityLoss, slow_multi_similarity), (CircleLoss, slow_circle), (ContrastiveLoss, slow_pairs)])
def test_pair_losses_agree_with_slow_references_by_default(make, slow):
    labels, x = batch(40, 8, seed=3)
    assert float(make()(labels, x)) == pytest.approx(slow(labels, x), rel=1e-4)


@pytest.mark.parametrize("forgeries", FORGERIES)
def test_head_losses_agree_with_slow_references(forgeries):
    for seed in range(3):
        labels, columns = joined(seed=seed)
        for margin, scale in ((0.5, 30.0), (1.2, 4.0), (0.0, 1.0)):
            expected = slow_arcface(labels, columns[:, -4:], margin, scale, forgeries)
            assert float(ArcFaceLoss(margin, scale, forgeries, signers=4)(labels, columns)) == pytest.approx(expected, rel=1e-4)
        for weight in (0.0, 0.3, 1.0):
            expected = slow_signet_f(labels, 5 * columns[:, -5:], weight, forgeries)
            assert float(ForgeryHeadLoss(weight, forgeries, signers=4)(labels, 5 * columns)) == pytest.approx(expected, rel=1e-4)


def test_contrastive_of_pairs_by_hand():
    # genuine 0 at 0 and 3, genuine 1 at 5, forgery of 0 at 4; margin 2
    x, labels = np.array([[0.0], [3.0], [5.0], [4.0]]), encode_labels([0, 0, 1, 0], [0, 0, 0, 1])
    # 0: pull 9, push 0 (5, 4) | 3: pull 9, push (0 + 1) / 2 | 5: no positive, push (0 (5) + 0 (2) + 1) / 3; halved
    assert float(ContrastiveLoss(2)(labels, x)) == pytest.approx((9 + 9.5 + 1 / 3) / 2 / 3)
    # hard: 3: nearest negative at 1, push 1 | 5: push 1
    assert float(ContrastiveLoss(2, mining="hard")(labels, x)) == pytest.approx((9 + 10 + 1) / 2 / 3)


def test_multi_similarity_and_circle_by_hand():
    # unit vectors at 0, 90 and 60 degrees: genuine 0 twice (similarity 0), signer 1 once (0.5 and cos 30 = 0.866)
    x, labels = np.array([[1, 0], [0, 1], [0.5, 0.75**0.5]]), np.array([0, 0, 1])
    # the negatives 0.5 and 0.866 exceed the positive 0 - 0.1, so all pairs stay; alpha = beta = 1, base 0; signer 1 is no anchor
    by_hand = math.log(1 + 1) + (math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(0.75**0.5))) / 2
    assert float(MultiSimilarityLoss(1, 1, 0)(labels, x)) == pytest.approx(by_hand, rel=1e-5)
    # m = 0.5, gamma 1: positive (1.5 - 0)(0 - 0.5) = -0.75; negatives (0.5 + 0.5)(0.5 - 0.5) = 0 and (0.866 + 0.5)(0.866 - 0.5) = 0.75 - 0.25 = 0.5
    by_hand = (math.log(1 + math.exp(0.75)) + math.log(1 + math.exp(0.75 + 0.5))) / 2
    assert float(CircleLoss(0.5, 1)(labels, x)) == pytest.approx(by_hand, rel=1e-5)


def test_arcface_by_hand():
    # at 60 degrees to its own centre (cos 0.5) and 90 to the other; margin 30 degrees, so 90 degrees count: cos 0 against cos 0, probability 1/2
    columns = np.array([[9.0, 0.5, 0.0], [9.0, 0.0, 0.0]])
    assert float(ArcFaceLoss(math.pi / 6, 7, signers=2)(np.array([0]), columns[:1])) == pytest.approx(math.log(2), rel=1e-4)
    # a forgery at right angles to both: log(1 + 1 + 1)
    assert float(ArcFaceLoss(math.pi / 6, 7, signers=2)(np.array([0, -1]), columns)) == pytest.approx((math.log(2) + math.log(3)) / 2, rel=1e-4)


def test_signet_f_by_hand():
    # genuine of 0: equal logits, 1/2; "forged" logit 0, 1/2. Forgery of 1: victim 1/4; "forged" with logit log 3, 3/4
    columns, labels = np.array([[9, 0, 0, 0], [9, math.log(3), 0, math.log(3)]]), encode_labels([0, 1], [False, True])
    told, judged = math.log(2), (math.log(2) + math.log(4 / 3)) / 2
    for forgeries, expected in (("negative", 0.9 * told + 0.1 * judged), ("positive", 0.9 * (told + math.log(4)) / 2 + 0.1 * judged),
                                ("ignore", 0.9 * told + 0.1 * math.log(2))):
        assert float(ForgeryHeadLoss(0.1, forgeries, signers=2)(labels, columns)) == pytest.approx(expected, rel=1e-5)


@GENTLE
@given(st.integers(0, 10_000), st.sampled_from(PAIR_MINING), st.floats(0, 1))
def test_mining_only_takes_pairs_out(seed, mining, epsilon):
    labels, x = batch(seed=seed)
    before, distances = pair_masks(labels), all_distances(x)
    after = [numpy(mask) for mask in mine_pairs(distances, *before, mining, epsilon)]
    for kept, mask in zip(after, map(numpy, before)):
        assert not (kept & ~mask).any()
    for i, row in enumerate(numpy(distances)):
        to, away = slow_mine(row, *slow_partners(labels, i), mining, np.float32(epsilon))
        assert np.flatnonzero(after[0][i]).tolist() == to and np.flatnonzero(after[1][i]).tolist() == away

@pytest.mark.parametrize("options", TRIPLETS, ids=identify)
def test_triplet_agrees_with_slow_reference(options):
    for seed in range(3):
        labels, x = batch(seed=seed)
        assert float(TripletLoss(margin=0.4, **options)(labels, x)) == pytest.approx(slow_triplet(labels, x, margin=0.4, **options), rel=1e-4)


@pytest.mark.parametrize("forgeries", FORGERIES)
def test_forgery_rules_agree_with_slow_reference(forgeries):
    labels, x = batch(seed=5)
    assert (labels < 0).sum() > 3
    expected = slow_triplet(labels, x, forgeries=forgeries)
    assert float(TripletLoss(forgeries=forgeries)(labels, x)) == pytest.approx(expected, rel=1e-4)


def test_diversity_agrees_with_slow_reference():
    labels, x = batch(seed=7)
    assert float(TripletLoss(diversity=0.3)(labels, x)) == pytest.approx(slow_triplet(labels, x, diversity=0.3), rel=1e-4)
    assert float(diversity_term(x[:1])) == 0


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_contrastive_agrees_with_slow_reference(temperature):
    labels, x = batch(seed=2)
    assert float(SupervisedContrastiveLoss(temperature)(labels, x)) == pytest.approx(slow_contrastive(labels, x, temperature), rel=1e-4)


def test_contrastive_ignoring_forgeries_is_the_loss_without_them():
    labels, x = batch(seed=4)
    real = labels >= 0
    ignoring = SupervisedContrastiveLoss(forgeries="ignore")(labels, x)
    # the mean is over the same anchors, whatever the batch's length
    assert float(ignoring) == pytest.approx(float(SupervisedContrastiveLoss()(labels[real], x[real])), rel=1e-5)


def test_triplet_by_hand():
    # genuine 0 at 0 and 3, genuine 1 at 5 and 9, forgery of 0 at 4 (the notebook has another example)
    x, labels = np.array([[0.0], [3.0], [5.0], [9.0], [4.0]]), encode_labels([0, 0, 1, 1, 0], [0, 0, 0, 0, 1])
    # anchor 0: dp 3, dn 4 | 3: dp 3, dn 1 | 5: dp 4, dn 1 | 9: dp 4, dn 5; margin 2
    assert float(TripletLoss(margin=2)(labels, x)) == pytest.approx((1 + 4 + 5 + 1) / 4)
    # semi-hard: band (3, 5): 4 | (3, 5): none (1, 2, 6), so 1 | (4, 6): 5 | (4, 6): 5
    assert float(TripletLoss("semi-hard", margin=2)(labels, x)) == pytest.approx((1 + 4 + 1 + 1) / 4)


def test_sharpness_is_the_scale_of_the_soft_margin():
    labels, x = batch(seed=9)
    for sharpness in (0.5, 5.0):
        expected = slow_triplet(labels, sharpness * x, soft=True) / sharpness  # softplus(b * gap) / b
        assert float(TripletLoss(soft=True, sharpness=sharpness)(labels, x)) == pytest.approx(expected, rel=1e-4)
    hinge = float(TripletLoss(margin=0)(labels, x))
    assert float(TripletLoss(soft=True, sharpness=1000)(labels, x)) == pytest.approx(hinge, abs=1e-3)  # its limit


def test_forgeries_are_never_positives_nor_anchors():
    positive, negative = map(numpy, pair_masks(encode_labels([0, 0, 0, 0, 1], [0, 0, 1, 1, 0])))
    assert positive.astype(int).tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]] + [[0] * 5] * 3
    assert not negative[2:4].any() and negative[0].tolist() == [False, False, True, True, True]


def test_gradient_moves_forgeries_away_only_under_the_right_labels():
    x = np.array([[0, 0], [0.2, 0], [0.6, 0], [3, 0], [3.2, 0]], "float32")
    labels = encode_labels([0, 0, 0, 1, 1], [0, 0, 1, 0, 0])
    for loss, towards in ((TripletLoss(margin=1.0), False), (TripletLoss(margin=5.0, forgeries="positive"), True)):
        _, slope = gradient(loss, labels, x)
        assert (slope[2, 0] > 0) == towards  # the step is against the slope; signer 0 is on the left


# ---- anchors that do not count

@pytest.mark.parametrize("loss", [TripletLoss("semi-hard"), TripletLoss(p=1, soft=True), SupervisedContrastiveLoss(), MultiSimilarityLoss(), CircleLoss()],
                         ids=lambda loss: loss.name)
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [-1, -1, -2, -2], [0, -1, 1, -2]])
def test_batches_without_positives_cost_nothing(loss, labels):
    x = batch(4)[1]
    value, slope = gradient(loss, np.array(labels), x)
    assert value == 0 and np.array_equal(slope, np.zeros_like(x))


def test_anchor_without_negative_does_not_count():
    x = batch(4)[1]
    assert float(TripletLoss(margin=100.0)(np.zeros(4, int), x)) == 0
    assert float(TripletLoss(margin=100.0)(np.array([0, 0, 1, 1]), x)) > 0


@pytest.mark.parametrize("loss", PAIRS + HEADS, ids=lambda loss: loss.name)
@pytest.mark.parametrize("labels", [[0], [-1], [0, 1, 2, 3], [2, 2, 2, 2], [-1, -1, -2, -2], [0, 0, -1, -1]])
def test_degenerate_batches_stay_finite(loss, labels):
    for x in (joined(len(labels))[1], np.zeros((len(labels), 10), "float32"), np.ones((len(labels), 10), "float32"), -np.ones((len(labels), 10), "float32")):
        value, slope = gradient(loss, np.array(labels), x)
        assert np.isfinite(value) and value >= 0 and np.isfinite(slope).all() and np.abs(slope).max() < 1e5


def test_contrastive_needs_no_positive():
    x = np.array([[0.0], [1.0], [1.5]])
    # 0 and 1.5 are 1.5 apart; 0: (1 + 0.25) / 2, 1: (1 + 2.25) / 2, 1.5: (0.25 + 2.25) / 2, halved; margin 2
    assert float(ContrastiveLoss(2)(np.array([0, 1, 2]), x)) == pytest.approx((1.25 + 3.25 + 2.5) / 4 / 3)
    assert float(ContrastiveLoss(2)(np.array([-1, -2, -3]), x)) == 0  # nobody is an anchor


def test_a_signer_whom_the_head_does_not_know_does_not_count():
    labels, columns = joined()
    more, strange = np.concatenate([columns, columns[:3]]), np.r_[labels, 4, 5, 1000]
    assert float(ArcFaceLoss(signers=4)(strange, more)) == pytest.approx(float(ArcFaceLoss(signers=4)(labels, columns)), rel=1e-5)
    assert float(ForgeryHeadLoss(0, signers=4)(strange, more)) == pytest.approx(float(ForgeryHeadLoss(0, signers=4)(labels, columns)), rel=1e-5)


def test_invalid_anchors_do_not_dilute_the_mean():
    labels, x = np.array([0, 0, 1]), np.array([[0.0], [1.0], [5.0]])
    more = np.concatenate([x, [[100.0], [200.0], [300.0]]])
    loss = TripletLoss(margin=6.0)
    assert float(loss(np.r_[labels, 7, 8, -10], more)) == pytest.approx(float(loss(labels, x)))


# ---- invariances

@GENTLE
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_order_of_the_batch_does_not_matter(seed, rows):
    labels, x = batch(rows, seed=seed)
    order = np.random.default_rng(seed).permutation(rows)
    for loss in (TripletLoss(), TripletLoss(p=1.5, soft=True), SupervisedContrastiveLoss(), *PAIRS):
        assert float(loss(labels[order], x[order])) == pytest.approx(float(loss(labels, x)), rel=1e-4, abs=1e-6)
    labels, x = joined(rows, seed=seed)
    for loss in HEADS:
        assert float(loss(labels[order], x[order])) == pytest.approx(float(loss(labels, x)), rel=1e-4, abs=1e-6)


@GENTLE
@given(st.integers(0, 10_000))
def test_turning_the_space_changes_nothing(seed):
    labels, x = batch(seed=seed)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))
    for loss in (TripletLoss(), SupervisedContrastiveLoss(), *PAIRS):
        assert float(loss(labels, x @ turn)) == pytest.approx(float(loss(labels, x)), rel=1e-3, abs=1e-5)


@GENTLE
@given(st.integers(0, 10_000), st.integers(1, 100_000))
def test_signer_numbers_are_names(seed, shift):
    labels, x = batch(seed=seed)
    moved = np.where(labels < 0, labels - shift, labels + shift)
    for loss in (TripletLoss("semi-hard"), SupervisedContrastiveLoss(), *PAIRS):
        assert float(loss(moved, x)) == float(loss(labels, x))


@GENTLE
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_cosine_and_contrastive_see_directions_only(seed, factor):
    labels, x = batch(seed=seed)
    for loss in (TripletLoss(distance="cosine"), TripletLoss(normalise=True), SupervisedContrastiveLoss(), ContrastiveLoss(normalise=True),
                 MultiSimilarityLoss(mining="all"), CircleLoss()):
        assert float(loss(labels, factor * x)) == pytest.approx(float(loss(labels, x)), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("p", [1, 1.5, 2, 7, 40, math.inf])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_all_distances_against_numpy(p, scale):
    x = scale * batch(12, 6)[1] + 10 * scale  # an offset common to all: cancellation
    expected = np.array([[np.linalg.norm((a - b).astype(float), ord=p) for b in x] for a in x])
    assert np.allclose(numpy(all_distances(x, p=p)), expected, rtol=1e-3, atol=2e-3 * scale)
    assert np.allclose(numpy(pair_distances(x[:-1], x[1:], p=p)), np.diagonal(expected, 1), rtol=1e-5)


# ---- gradients

@pytest.mark.parametrize("loss", LOSSES + [loss for loss in PAIRS + HEADS if not isinstance(loss, CircleLoss)], ids=lambda loss: loss.name)
def test_gradient_is_the_slope(loss):
    labels, x = joined(12, signers=4, seed=11) if loss in HEADS else batch(12, 3, signers=3, seed=11)
    _, slope = gradient(loss, labels, x)
    step, random = 5e-4, np.random.default_rng(1)
    for _ in range(4):
        way = random.normal(size=x.shape).astype("float32")
        way /= np.linalg.norm(way)
        numeric = (float(loss(labels, x + step * way)) - float(loss(labels, x - step * way))) / (2 * step)
        assert numeric == pytest.approx(float((slope * way).sum()), rel=0.03, abs=3e-3)


def test_gradient_of_the_circle_loss_takes_its_weights_as_given():
    labels, x = batch(10, 3, signers=3, seed=11)
    _, slope = gradient(CircleLoss(0.25, 8), labels, x)
    step, random = 1e-5, np.random.default_rng(1)
    for _ in range(4):
        way = random.normal(size=x.shape)
        there, back = (slow_circle(labels, x + sign * step * way, 0.25, 8, weights_of=x) for sign in (1, -1))
        assert (there - back) / (2 * step) == pytest.approx(float((slope * way).sum()), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("loss", PAIRS, ids=lambda loss: f"{loss.name}-{loss.mining}")
def test_pair_losses_draw_positives_together_and_forgeries_away(loss):
    angles = np.radians([0, 25, 50, 180, 200])
    x, labels = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32"), encode_labels([0, 0, 0, 1, 1], [0, 0, 1, 0, 0])
    _, slope = gradient(loss, labels, x)
    along = -slope[:, 1] * x[:, 0] + slope[:, 0] * x[:, 1]  # the step's part along the circle, anticlockwise
    assert along[2] > 0 and along[1] - along[0] < along[2]  # the forgery away from signer 0, faster than that signer's signatures follow


@pytest.mark.parametrize("p", [1, 1.3, 2, 3, 12, math.inf])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_identical_and_zero_embeddings_give_finite_gradients(p, distance):
    x = np.zeros((8, 4), "float32")
    x[4:] = [1, 2, 3, 4]
    for rows in (x, np.zeros_like(x), np.full_like(x, 1e-20)):
        for mining in ("hard", "semi-hard"):
            value, slope = gradient(TripletLoss(mining, p=p, distance=distance, diversity=0.1), np.array([0, 0, 1, 1, 0, 1, -1, -2]), rows)
            assert np.isfinite(value) and np.isfinite(slope).all() and np.abs(slope).max() < 1e7


@pytest.mark.parametrize("temperature", [0.001, 0.1])
def test_identical_and_zero_embeddings_give_finite_contrastive_gradients(temperature):
    for rows in (np.zeros((6, 3), "float32"), np.ones((6, 3), "float32"), np.eye(6, 3, dtype="float32")):
        value, slope = gradient(SupervisedContrastiveLoss(temperature), np.array([0, 0, 1, 1, -1, -2]), rows)
        assert np.isfinite(value) and np.isfinite(slope).all()


def test_mining_distances_carry_no_gradient():
    for distance, p in (("euclidean", 2), ("euclidean", 3), ("cosine", 2)):
        _, slope = backends.gradient(lambda x: keras.ops.sum(all_distances(x, distance, p)), batch(6)[1])
        assert slope is None  # a framework that records each step would keep D tables of (B, B)


# ---- precision, memory, Keras

def test_float32_inside_under_mixed_bfloat16():
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        for make in (TripletLoss, SupervisedContrastiveLoss, ContrastiveLoss, MultiSimilarityLoss, CircleLoss):
            labels, x = batch(16)
            labels = np.where(labels < 0, labels - 1000, labels + 1000)  # bfloat16 cannot tell 1001 from 1002
            half = keras.ops.cast(x, "bfloat16")
            result = make()(labels, half)
            assert keras.backend.standardize_dtype(result.dtype) == "float32"
            assert float(result) == pytest.approx(float(make()(labels, numpy(keras.ops.cast(half, "float32")))), rel=1e-6)
            assert keras.backend.standardize_dtype(make().call(labels, half).dtype) == "float32"  # by itself too, outside __call__
    finally:
        keras.config.set_dtype_policy(before)


def shapes_of(graph):
    "Names and shapes of all tensors in a TensorFlow graph, in the bodies of its loops and its called functions too."
    for operation in graph.get_operations():
        for tensor in operation.outputs:
            yield operation, tensor.shape
    for function in graph._functions.values():
        yield from shapes_of(getattr(function, "graph", None) or function._func_graph)


@on_tensorflow  # reads its graph
@pytest.mark.parametrize("loss", [TripletLoss("semi-hard", diversity=0.1), TripletLoss(p=1), TripletLoss(p=3), TripletLoss(p=math.inf),
                                  TripletLoss(distance="cosine"), SupervisedContrastiveLoss(), ContrastiveLoss(mining="epsilon"), MultiSimilarityLoss(),
                                  CircleLoss(mining="hard"), ArcFaceLoss(signers=100), ForgeryHeadLoss(signers=100)],
                         ids=lambda loss: f"{loss.name}-{getattr(loss, 'p', '')}")
def test_no_tensor_of_batch_by_batch_by_size(loss):
    import tensorflow as tf
    rows, size = 512, 256

    @tf.function
    def both(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return value, tape.gradient(value, x)

    graph = both.get_concrete_function(tf.TensorSpec((rows,), "int32"), tf.TensorSpec((rows, size), "float32")).graph
    # a loop's condition has stand-ins without a shape for what only its body uses
    found = [(operation, shape) for operation, shape in shapes_of(graph) if "redundant_placeholder" not in operation.name]
    sizes = [shape.num_elements() for _, shape in found]
    assert len(sizes) > 50 and None not in sizes
    assert max(sizes) == (rows * size if hasattr(loss, "attach") else rows * rows)
    # a list of (B, B) tensors, one per step, would hide the same memory from the check above
    assert not [operation.type for operation, _ in found if operation.type.startswith("TensorList")]


# ---- by name, on a network, with weights of their own

def tiny_model(size=6, seed=3):
    keras.utils.set_random_seed(seed)
    image = keras.layers.Input((6, 8, 1))
    x = keras.layers.Dropout(0.1)(keras.layers.Dense(24, activation="relu")(keras.layers.Flatten()(image)))
    return keras.Model(image, keras.layers.UnitNormalization(dtype="float32")(keras.layers.Dense(size)(x)))


def tiny_data(seed=0):
    "24 noisy pictures of 4 signers, and forgeries that resemble them."
    random = np.random.default_rng(seed)
    signer, forged = np.repeat(np.arange(4), 6), np.tile([0, 0, 0, 0, 1, 1], 4).astype(bool)
    pictures = random.normal(size=(4, 6, 8, 1))[signer] + 0.5 * random.normal(size=(1, 6, 8, 1)) * forged[:, None, None, None]
    return (pictures + 0.3 * random.normal(size=pictures.shape)).astype("float32"), encode_labels(signer, forged)


def train(loss, steps=25, seed=3):
    "The model, the one that was trained, and the loss (without dropout) before and after."
    model, (images, labels) = tiny_model(seed=seed), tiny_data()
    trained = loss.attach(model, 4) if hasattr(loss, "attach") else model
    trained.compile(keras.optimizers.Adam(0.01), loss, run_eagerly=steps < 5, jit_compile=False)
    first = float(numpy(loss(labels, trained(images, training=False))))
    for _ in range(steps):
        value = trained.train_on_batch(images, labels)
    assert np.isfinite(value)
    return model, trained, first, float(numpy(loss(labels, trained(images, training=False))))


@pytest.mark.parametrize("name", REGISTRY)
def test_every_loss_by_name_trains_a_network(name):
    loss = make_loss(name)
    assert isinstance(loss, BatchLoss)
    fresh = tiny_model().get_weights()
    model, trained, first, last = train(loss)
    assert last < 0.8 * first
    assert all(not np.array_equal(a, b) for a, b in zip(fresh, model.get_weights()))  # of the embedding model itself


@pytest.mark.parametrize("name, more", [("arcface", 0), ("signet_f", 1)])
def test_attached_model_holds_the_embedding_first_and_shares_it(name, more):
    images = tiny_data()[0]
    model, trained, _, _ = train(make_loss(name), steps=3)
    output, embedding = numpy(trained(images)), numpy(model(images))
    assert output.shape == (24, 6 + 4 + more) and output.dtype == np.float32
    assert np.array_equal(output[:, :6], embedding)
    assert {id(v) for v in model.variables} < {id(v) for v in trained.variables}
    if name == "arcface":
        [centres] = [layer.centres for layer in trained.layers if isinstance(layer, ClassCosines)]
        centres = numpy(centres) / np.linalg.norm(numpy(centres), axis=1, keepdims=True)
        assert np.allclose(output[:, 6:], embedding @ centres.T, atol=1e-5)


def test_losses_without_weights_attach_nothing():
    assert {name for name in REGISTRY if hasattr(make_loss(name), "attach")} == {"arcface", "signet_f"}


@pytest.mark.parametrize("name", ["arcface", "signet_f"])
def test_attached_training_is_the_same_for_the_same_seed(name):
    once, again, other = (train(make_loss(name), steps=4, seed=seed)[1].get_weights() for seed in (5, 5, 6))
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(once, again))
    assert not np.allclose(once[0], other[0], atol=1e-3)


@pytest.mark.parametrize("name", ["arcface", "signet_f"])
def test_attached_model_survives_the_disk_and_half_precision(name, tmp_path):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        _, trained, _, last = train(make_loss(name), steps=3)
    finally:
        keras.config.set_dtype_policy(before)
    images, labels = tiny_data()
    output = trained(images)
    assert keras.backend.standardize_dtype(output.dtype) == "float32" and np.isfinite(last)
    trained.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert np.allclose(numpy(again(images)), numpy(output), atol=1e-3)
    assert float(again.loss(labels, output)) == pytest.approx(last, rel=1e-4)  # the number of signers is in the config


def test_make_loss_passes_options_on():
    assert make_loss("supcon", temperature=0.3).temperature == 0.3
    assert (make_loss("triplet_hard").mining, make_loss("triplet_semi_hard", margin=0.4).mining) == ("hard", "semi-hard")
    soft = make_loss("triplet_soft", diversity=0.05)
    assert soft.soft and soft.sharpness == 5 and soft.diversity == 0.05
    with pytest.raises(TypeError):
        make_loss("circle", temperature=1)


def test_labels_as_column_and_unknown_batch_size():
    labels, x = batch(20)
    loss = TripletLoss(p=1)
    assert float(loss(labels[:, None], x)) == float(loss(labels, x))
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile(loss=loss, jit_compile=False)
    # 20 = 3 batches of 8, 8 and 4
    assert np.isfinite(model.evaluate(x, labels, batch_size=8, verbose=0))
    assert model.evaluate(x, labels, batch_size=20, verbose=0) == pytest.approx(float(loss(labels, x)), rel=1e-5)


def test_sample_weight_weighs_anchors():
    x, labels = np.array([[0.0], [3.0], [5.0], [9.0]]), np.array([0, 0, 1, 1])
    whole, first = TripletLoss(margin=2), np.array([1.0, 0, 0, 0])
    assert float(whole(labels, x, sample_weight=np.ones(4))) == pytest.approx(float(whole(labels, x)))
    assert float(whole(labels, x, sample_weight=first)) * 4 == pytest.approx(3 - 5 + 2)


@pytest.mark.parametrize("loss", [TripletLoss("semi-hard", 0.3, True, "cosine", 3, 0.1, True, "ignore", 5.0), SupervisedContrastiveLoss(0.2, "ignore"),
                                  TripletLoss(p=math.inf), ContrastiveLoss(0.7, "epsilon", 0.2, True, "ignore"), MultiSimilarityLoss(1, 10, 0.4, "hard", 0.2, "ignore"),
                                  CircleLoss(0.3, 20, "epsilon", 0.2, "ignore"), ArcFaceLoss(0.3, 10, "ignore", 4), ForgeryHeadLoss(0.3, "positive", 10, 4)])
def test_config_round_trip(loss):
    again = type(loss).from_config(loss.get_config())
    assert again.get_config() == loss.get_config()
    labels, x = joined() if hasattr(loss, "attach") else batch()
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is type(loss) and float(restored(labels, x)) == float(again(labels, x)) == float(loss(labels, x))


@pytest.mark.parametrize("make, said", [
    (lambda: TripletLoss(mining="easy"), "'hard', 'semi-hard'; got 'easy'"),
    (lambda: TripletLoss(distance="manhattan"), "'euclidean', 'cosine'"),
    (lambda: TripletLoss(margin=-1), "margin"),
    (lambda: TripletLoss(margin=math.nan), "margin"),
    (lambda: TripletLoss(margin=math.inf), "margin"),
    (lambda: TripletLoss(margin=True), "margin"),
    (lambda: TripletLoss(soft=True, sharpness=0), "sharpness"),
    (lambda: TripletLoss(p=0.5), "p must be"),
    (lambda: TripletLoss(forgeries="maybe"), "forgeries"),
    (lambda: SupervisedContrastiveLoss(temperature=0), "temperature"),
    (lambda: SupervisedContrastiveLoss(temperature="warm"), "temperature"),
    (lambda: ContrastiveLoss(margin=0), "margin must be a number above 0"),
    (lambda: ContrastiveLoss(mining="semi-hard"), "'all', 'hard', 'epsilon'; got 'semi-hard'"),
    (lambda: ContrastiveLoss(epsilon=-1), "epsilon"),
    (lambda: ContrastiveLoss(forgeries="maybe"), "forgeries"),
    (lambda: MultiSimilarityLoss(alpha=0), "alpha"),
    (lambda: MultiSimilarityLoss(beta=math.inf), "beta"),
    (lambda: MultiSimilarityLoss(mining="some"), "mining"),
    (lambda: CircleLoss(margin=-0.1), "margin"),
    (lambda: CircleLoss(scale=0), "scale"),
    (lambda: ArcFaceLoss(margin=2), "at least 0 and at most 1.571, got 2"),
    (lambda: ArcFaceLoss(signers=1), "signers must be a whole number of at least 2, got 1"),
    (lambda: ForgeryHeadLoss(forgery_weight=1.1), "forgery_weight"),
    (lambda: ForgeryHeadLoss(scale=0), "scale"),
    (lambda: ForgeryHeadLoss(forgeries="maybe"), "forgeries"),
    (lambda: ArcFaceLoss()(np.zeros(3), np.zeros((3, 6))), "attach"),
    (lambda: ForgeryHeadLoss(signers=4)(np.zeros(3), np.zeros((3, 5))), "got 5 columns for signers=4"),
    (lambda: ArcFaceLoss().attach(tiny_model(), 2.5), "signers must be a whole number"),
    (lambda: ArcFaceLoss().attach(keras.Sequential([keras.layers.Input((4, 4, 1)), keras.layers.ReLU()]), 3), "one output"),
    (lambda: make_loss("triplets"), "loss must be one of contrastive, .*supcon.*, got 'triplets'"),
    (lambda: encode_labels([-1]), "signers"),
    (lambda: encode_labels([0.5]), "signers"),
    (lambda: TripletLoss()(np.zeros(3), np.zeros((3, 2, 2))), "2-D"),
    (lambda: TripletLoss()(np.zeros((3, 7)), np.zeros((3, 2))), "one-hot"),
    (lambda: TripletLoss()(np.zeros(4), np.zeros((3, 2))), "4 labels for 3"),
])
def test_refusals_say_what_is_wrong(make, said):
    with pytest.raises(ValueError, match=said):
        make()
