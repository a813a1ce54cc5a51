"The metric-learning losses: against a slow reference, by hand, their invariances, gradients and memory."
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signver_kit.losses import (
    FORGERIES, SupervisedContrastiveLoss, TripletLoss, all_distances, diversity_term, encode_labels, pair_distances, pair_masks)

GENTLE = settings(max_examples=15, deadline=None, derandomize=True)
TRIPLETS = [{"mining": mining, "distance": distance, "p": p, "soft": soft}
            for mining in ("hard", "semi-hard") for distance, p in (("euclidean", 2), ("euclidean", 1), ("euclidean", 3.5),
                                                                     ("euclidean", math.inf), ("cosine", 2))
            for soft in (False, True)]
LOSSES = [TripletLoss(margin=0.5), TripletLoss("semi-hard", margin=0.5, diversity=0.1), TripletLoss(p=1, soft=True), TripletLoss(p=3),
          TripletLoss(distance="cosine"), TripletLoss(normalise=True), SupervisedContrastiveLoss(), SupervisedContrastiveLoss(1.0)]


def identify(value):
    return "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def batch(rows=24, size=5, signers=4, seed=0):
    random = np.random.default_rng(seed)
    labels = encode_labels(random.integers(0, signers, rows), random.random(rows) < 0.3)
    return labels, random.normal(size=(rows, size)).astype("float32")


def gradient(loss, labels, embeddings):
    "Loss and gradient: the difference that one SGD step of rate 1 makes on free embeddings, on any backend."
    table = keras.layers.Embedding(*embeddings.shape)
    model = keras.Sequential([keras.layers.Input((), dtype="int32"), table])
    model.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=True, jit_compile=False)
    table.set_weights([embeddings])
    value = model.train_on_batch(np.arange(len(embeddings)), labels)
    return float(value), np.asarray(embeddings) - table.get_weights()[0]


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


# ---- values

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

@pytest.mark.parametrize("loss", [TripletLoss("semi-hard"), TripletLoss(p=1, soft=True), SupervisedContrastiveLoss()], ids=lambda loss: loss.name)
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [-1, -1, -2, -2], [0, -1, 1, -2]])
def test_batches_without_positives_cost_nothing(loss, labels):
    x = batch(4)[1]
    value, slope = gradient(loss, np.array(labels), x)
    assert value == 0 and np.array_equal(slope, np.zeros_like(x))


def test_anchor_without_negative_does_not_count():
    x = batch(4)[1]
    assert float(TripletLoss(margin=100.0)(np.zeros(4, int), x)) == 0
    assert float(TripletLoss(margin=100.0)(np.array([0, 0, 1, 1]), x)) > 0


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
    for loss in (TripletLoss(), TripletLoss(p=1.5, soft=True), SupervisedContrastiveLoss()):
        assert float(loss(labels[order], x[order])) == pytest.approx(float(loss(labels, x)), rel=1e-4, abs=1e-6)


@GENTLE
@given(st.integers(0, 10_000), st.integers(1, 100_000))
def test_signer_numbers_are_names(seed, shift):
    labels, x = batch(seed=seed)
    moved = np.where(labels < 0, labels - shift, labels + shift)
    for loss in (TripletLoss("semi-hard"), SupervisedContrastiveLoss()):
        assert float(loss(moved, x)) == float(loss(labels, x))


@GENTLE
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_cosine_and_contrastive_see_directions_only(seed, factor):
    labels, x = batch(seed=seed)
    for loss in (TripletLoss(distance="cosine"), TripletLoss(normalise=True), SupervisedContrastiveLoss()):
        assert float(loss(labels, factor * x)) == pytest.approx(float(loss(labels, x)), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("p", [1, 1.5, 2, 7, 40, math.inf])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_all_distances_against_numpy(p, scale):
    x = scale * batch(12, 6)[1] + 10 * scale  # an offset common to all: cancellation
    expected = np.array([[np.linalg.norm((a - b).astype(float), ord=p) for b in x] for a in x])
    assert np.allclose(numpy(all_distances(x, p=p)), expected, rtol=1e-3, atol=2e-3 * scale)
    assert np.allclose(numpy(pair_distances(x[:-1], x[1:], p=p)), np.diagonal(expected, 1), rtol=1e-5)


# ---- gradients

@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_gradient_is_the_slope(loss):
    labels, x = batch(12, 3, signers=3, seed=11)
    _, slope = gradient(loss, labels, x)
    step, random = 5e-4, np.random.default_rng(1)
    for _ in range(4):
        way = random.normal(size=x.shape).astype("float32")
        way /= np.linalg.norm(way)
        numeric = (float(loss(labels, x + step * way)) - float(loss(labels, x - step * way))) / (2 * step)
        assert numeric == pytest.approx(float((slope * way).sum()), rel=0.03, abs=3e-3)


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
    if keras.backend.backend() != "tensorflow":
        pytest.skip("uses TensorFlow's tape")
    import tensorflow as tf
    x = tf.constant(batch(6)[1])
    for distance, p in (("euclidean", 2), ("euclidean", 3), ("cosine", 2)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(all_distances(x, distance, p))
        assert tape.gradient(total, x) is None  # a framework that records each step would keep D tables of (B, B)


# ---- precision, memory, Keras

def test_float32_inside_under_mixed_bfloat16():
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        for make in (TripletLoss, SupervisedContrastiveLoss):
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


@pytest.mark.parametrize("loss", [TripletLoss("semi-hard", diversity=0.1), TripletLoss(p=1), TripletLoss(p=3), TripletLoss(p=math.inf),
                                  TripletLoss(distance="cosine"), SupervisedContrastiveLoss()], ids=lambda loss: f"{loss.name}-{getattr(loss, 'p', '')}")
def test_no_tensor_of_batch_by_batch_by_size(loss):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("reads TensorFlow's graph")
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
    assert max(sizes) == rows * rows
    # a list of (B, B) tensors, one per step, would hide the same memory from the check above
    assert not [operation.type for operation, _ in found if operation.type.startswith("TensorList")]


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
                                  TripletLoss(p=math.inf)])
def test_config_round_trip(loss):
    again = type(loss).from_config(loss.get_config())
    assert again.get_config() == loss.get_config()
    labels, x = batch()
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
    (lambda: encode_labels([-1]), "signers"),
    (lambda: encode_labels([0.5]), "signers"),
    (lambda: TripletLoss()(np.zeros(3), np.zeros((3, 2, 2))), "2-D"),
    (lambda: TripletLoss()(np.zeros((3, 7)), np.zeros((3, 2))), "one-hot"),
    (lambda: TripletLoss()(np.zeros(4), np.zeros((3, 2))), "4 labels for 3"),
])
def test_refusals_say_what_is_wrong(make, said):
    with pytest.raises(ValueError, match=said):
        make()
