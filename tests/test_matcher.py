"""Distances against SciPy, decisions against hand calculation, and what has to be refused."""
import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import distance as scipy_distance

import signver_kit.matcher as matcher_module
from signver_kit.descriptors import Description, LocalMap
from signver_kit.matcher import (DISTANCES, Decision, Matcher, accepts, check_embeddings, check_threshold, cosine_distance, cosine_distances, decide,
                                 euclidean_distance, euclidean_distances, evidence_columns, fit_evidence, fuse, get_distance, identify, unit)

entries = st.floats(-100, 100, allow_nan=False, width=32)
vectors = arrays(np.float64, 6, elements=entries).filter(lambda v: np.linalg.norm(v) > 1e-3)
matrices = arrays(np.float64, st.tuples(st.integers(1, 6), st.just(6)), elements=entries).filter(lambda m: (np.linalg.norm(m, axis=1) > 1e-3).all())


@given(vectors, vectors)
def test_distances_agree_with_scipy(a, b):
    assert cosine_distance(a, b) == pytest.approx(scipy_distance.cosine(a, b), abs=1e-9)
    assert euclidean_distance(a, b) == pytest.approx(scipy_distance.euclidean(a, b), abs=1e-9)


@given(matrices, matrices)
def test_all_pairs_agree_with_scipy_and_with_the_singular(a, b):
    assert cosine_distances(a, b) == pytest.approx(scipy_distance.cdist(a, b, "cosine"), abs=1e-9)
    assert euclidean_distances(a, b) == pytest.approx(scipy_distance.cdist(a, b), abs=1e-7)
    for single, every in ((cosine_distance, cosine_distances), (euclidean_distance, euclidean_distances)):
        assert every(a, b) == pytest.approx(np.stack([single(row, b) for row in a]), abs=1e-7)


@given(vectors, vectors, st.floats(1e-3, 1e3))
def test_cosine_is_symmetric_bounded_and_ignores_length(a, b, scale):
    assert cosine_distance(a, b) == cosine_distance(b, a)
    assert 0 <= cosine_distance(a, b) <= 2
    assert cosine_distance(a * scale, b) == pytest.approx(cosine_distance(a, b), abs=1e-12)
    assert cosine_distance(a, a) == 0 and cosine_distance(a, -a) == pytest.approx(2, abs=1e-12)


@given(vectors, vectors)
def test_on_unit_vectors_both_distances_say_the_same(a, b):
    a, b = unit(a), unit(b)
    assert euclidean_distance(a, b) ** 2 == pytest.approx(2 * cosine_distance(a, b), abs=1e-12)


def test_nearly_equal_vectors_keep_their_digits():
    a = np.full(64, 1000.0)
    b = a.copy()
    b[0] += 1e-6
    assert euclidean_distances(a[None], b[None])[0, 0] == pytest.approx(1e-6, rel=1e-3)  # the plain product gives 0 or 1e-3
    assert euclidean_distances(a[None], a[None])[0, 0] == 0


def test_huge_and_tiny_vectors_neither_overflow_nor_vanish():
    assert cosine_distance([1e-300, 0], [1e300, 0]) == 0
    assert cosine_distance([1e-300, 0], [0, 1e300]) == 1


def test_shapes():
    a, b = np.eye(4)[:3], np.eye(4)[1:]
    assert isinstance(cosine_distance(a[0], b[0]), float)
    assert cosine_distance(a, b).shape == (3,) and cosine_distance(a[0], b).shape == (3,) and cosine_distance(a, b[0]).shape == (3,)
    assert cosine_distances(a).shape == (3, 3) and cosine_distances(a[0], b).shape == (1, 3)
    assert cosine_distance(np.float32([1, 0]), np.int64([0, 1])) == 1


@pytest.mark.parametrize("function", [cosine_distance, cosine_distances, euclidean_distance, euclidean_distances])
@pytest.mark.parametrize("a, b, words", [
    ([1.0, np.nan], [1.0, 0.0], "NaN"),
    ([[1.0, 0.0], [np.inf, 0.0]], [1.0, 0.0], "row 1"),
    ([1.0, 0.0, 0.0], [1.0, 0.0], "one length, got 3 and 2"),
    (np.zeros((1, 2, 2)), [1.0, 0.0], r"got shape \(1, 2, 2\)"),
    (1.0, [1.0], r"x\[None\]"),
    ([], [], "empty"),
    (["a", "b"], [1.0, 0.0], "real numbers"),
    ([1j, 0], [1.0, 0.0], "complex"),
])
def test_bad_embeddings_are_refused(function, a, b, words):
    with pytest.raises(ValueError, match=words):
        function(a, b)


@pytest.mark.parametrize("function", [cosine_distance, cosine_distances])
def test_zero_vectors_have_no_cosine(function):
    with pytest.raises(ValueError, match="zero vector in row 2"):
        function([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [1.0, 0.0])
    with pytest.raises(ValueError, match="zero vector"):
        function([1.0, 0.0], [0.0, 0.0])


def test_unequal_rows_are_pointed_to_the_plural():
    with pytest.raises(ValueError, match="3 and 2 rows.*cosine_distances"):
        cosine_distance(np.ones((3, 4)), np.ones((2, 4)))


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(0, 2)))
def test_fuse_orders_its_rules(distances):
    low, middle, high = (fuse(distances, rule) for rule in ("min", "mean", "max"))
    assert (low <= middle + 1e-12).all() and (middle <= high + 1e-12).all()
    shuffled = distances[:, np.random.default_rng(0).permutation(distances.shape[1])]
    assert np.allclose(fuse(shuffled), middle)


def test_fuse_by_hand():
    assert [fuse([0.25, 0.5, 1.5], rule) for rule in ("mean", "min", "max")] == [0.75, 0.25, 1.5]
    assert fuse([[1, 3], [5, 7]], axis=0).tolist() == [3, 5] and fuse([0.4]) == 0.4


@pytest.mark.parametrize("distances, rule, words", [([], "mean", "at least one"), ([[], []], "mean", "at least one"), (0.3, "mean", "at least one"),
                                                    ([0.1, np.nan], "min", "1 NaN"), ([0.1], "median", "mean, min, max")])
def test_fuse_refuses(distances, rule, words):
    with pytest.raises(ValueError, match=words):
        fuse(distances, rule)


@pytest.mark.parametrize("threshold", [-0.1, 2.01, 35, np.nan, np.inf, True, "0.18", [0.1], None])
def test_impossible_thresholds_are_refused(threshold):
    for name in DISTANCES:
        with pytest.raises(ValueError, match="threshold"):
            check_threshold(threshold, name)


def test_the_ends_of_the_range_are_thresholds():
    assert check_threshold(0) == 0 and check_threshold(np.float32(2)) == 2 and isinstance(check_threshold(1), float)


def test_polarity():
    assert accepts(0.1, 0.2) and accepts(0.2, 0.2) and not accepts(0.3, 0.2)
    assert accepts(np.array([0.1, 0.3]), 0.2).tolist() == [True, False]


def test_verify_as_signver_called_it():
    matcher = Matcher()
    assert matcher.verify([1.0, 0.0], [1.0, 0.0]) is True and matcher.verify([1.0, 0.0], [0.0, 1.0]) is False
    near = [np.cos(0.6), np.sin(0.6)]  # 1 - cos 0.6 = 0.1747
    assert matcher.verify([1.0, 0.0], near, threshold=0.18) and not matcher.verify([1.0, 0.0], near, threshold=0.17)
    assert matcher.verify(np.eye(2), np.eye(2)[::-1]).tolist() == [False, False]
    assert matcher.cosine_distance([1.0, 0.0], [0.0, 1.0]) == 1 and Matcher.euclidean_distances(np.eye(2))[0, 1] == pytest.approx(np.sqrt(2))


def test_which_threshold_counts():
    near = [np.cos(0.6), np.sin(0.6)]
    assert not Matcher(threshold=0.1).verify([1.0, 0.0], near)
    assert Matcher(threshold=0.1).verify([1.0, 0.0], near, threshold=0.2), "the call's own threshold comes first"
    assert not Matcher(threshold=0.0).verify([1.0, 0.0], near), "a threshold of 0 is a threshold, not a missing one"
    assert Matcher(distance="euclidean", threshold=0.6).verify([1.0, 0.0], near), "chord of 0.6 rad is 0.591"


def test_verify_references_by_hand():
    references = [[1.0, 0.0], [0.0, 1.0]]
    decision = Matcher(threshold=0.4).verify_references([1.0, 0.0], references)
    assert decision == Decision(False, 0.5, 0.4, (0.0, 1.0)) and not decision
    decision = Matcher(threshold=0.4, fuse="min").verify_references([[1.0, 0.0]], references)
    assert decision and decision.distance == 0 and "accepted" in str(decision)
    assert not Matcher(threshold=0.4, fuse="min").verify_references([1.0, 0.0], references, fuse="max")
    assert Matcher().verify_references([1.0, 0.0], [1.0, 0.0]), "one reference may come as a vector"
    assert type(decision.accepted) is bool and type(decision.distance) is float


@settings(max_examples=30)
@given(matrices, vectors, st.sampled_from(["mean", "min", "max"]), st.floats(0, 2))
def test_a_decision_does_not_depend_on_the_order_of_the_references(references, questioned, rule, threshold):
    one, other = (decide(questioned, rows, threshold, rule) for rows in (references, references[::-1]))
    assert one.per_reference == other.per_reference[::-1]
    assert one.distance == pytest.approx(other.distance)
    assert one.accepted == (one.distance <= threshold)


@pytest.mark.parametrize("call, words", [
    (lambda: Matcher(fuse="median"), "fuse must be one of"),
    (lambda: Matcher(distance="manhattan"), "cosine, euclidean"),
    (lambda: Matcher(threshold=35), "got 35"),
    (lambda: Matcher().verify([1.0, 0.0], [1.0, 0.0], threshold=-1), "got -1"),
    (lambda: Matcher().verify_references(np.eye(2), np.eye(2)), "one questioned"),
    (lambda: Matcher().verify_references([1.0, 0.0], np.zeros((0, 2))), "references must not be empty"),
    (lambda: Matcher().verify_references([np.nan, 0.0], np.eye(2)), "questioned must be finite"),
    (lambda: Matcher().verify_references([1.0, 0.0, 0.0], np.eye(2)), "one length"),
    (lambda: get_distance(None), "got None"),
    (lambda: check_embeddings(object()), "real numbers"),
])
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


OURS, THEIRS = "1d" * 32, "2e" * 32


@pytest.fixture(scope="module")
def fitted():
    """A matcher of every kind for one reference, fitted on toy numbers for the extractor OURS."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(["genuine", "skilled", "random"], 60)
    found = {name: np.exp(rng.normal(np.repeat([0.0, 1.0, 2.0], 60), 0.4)) for name in evidence_columns("fused", 1)}
    matcher = Matcher(models=[fit_evidence(kind, 1, found, kinds, np.tile(np.arange(10), 18)) for kind in ("local", "global", "fused")])
    matcher.card = {"extractor_sha256": OURS}
    return matcher


def described(extractor, embeddings=True):
    rng = np.random.default_rng(1)
    maps = LocalMap(rng.random((3, 5, 11, 4)).astype(np.float32), np.ones((3, 5, 11), np.float32))
    return Description(maps, unit(rng.normal(size=(3, 8))) if embeddings else None, extractor)


@pytest.mark.parametrize("kind", [None, "global", "fused"])
def test_embeddings_of_another_extractor_are_refused(fitted, kind):
    matcher = Matcher(models=fitted.models, kind=kind)
    ours, theirs, unknown = described(OURS), described(THEIRS), described(None)
    enrolled = {"a": ours[1], "b": ours[2]}
    assert str(matcher.verify(theirs[0], theirs[1])) == str(matcher.verify(ours[0], ours[1])), "a matcher without a card cannot know"
    matcher.card = fitted.card
    for a, b in ((ours, ours), (ours, unknown), (unknown, ours), (unknown, unknown)):
        assert str(matcher.verify(a[0], b[1])) == str(matcher.verify(ours[0], ours[1]))
        assert len(identify(matcher, a[0], {"a": b[1], "b": ours[2]})) == 2
    for a, b in ((theirs, theirs), (theirs, unknown), (unknown, theirs)):
        for call in (lambda: matcher.verify(a[0], b[1]), lambda: matcher.explain(a[0], b[1]), lambda: identify(matcher, a[0], {"b": b[1]})):
            with pytest.raises(ValueError, match=r"fitted for \(sha256 of its weights 1d1d1d1d1d1d…\), got those of 2e2e2e2e2e2e….*kind='local'"):
                call()
    for call in (lambda: matcher.verify(theirs[0], ours[1]), lambda: identify(matcher, theirs[0], enrolled),
                 lambda: identify(matcher, unknown[0], enrolled | {"c": theirs[1]}, shortlist=1)):
        with pytest.raises(ValueError, match="got those of 2 "):
            call()


def test_local_evidence_does_not_ask_whose_the_embeddings_are(fitted):
    matcher = Matcher(models=fitted.models, kind="local")
    matcher.card = fitted.card
    ours, theirs = described(OURS), described(THEIRS)
    assert matcher.verify(theirs[0], ours[1]).kind == "local" and str(matcher.verify(theirs[0], theirs[1])) == str(matcher.verify(ours[0], ours[1]))
    assert fitted.verify(described(THEIRS, embeddings=False)[0], ours[1]).kind == "local", "a questioned signature without embeddings"
    assert len(identify(matcher, theirs[0], {"a": theirs[1]})) == 1
    with pytest.raises(ValueError, match="got those of 2 "):
        identify(matcher, theirs[0], {"a": ours[1]})  # the shortlist compares embeddings


def test_the_extractors_name_is_kept_on_disk(fitted, tmp_path):
    again = Matcher().load(fitted.save(tmp_path / "matcher.json"))
    with pytest.raises(ValueError, match="fitted for"):
        again.check_extractor(described(THEIRS))
    assert again.check_extractor(described(OURS), described(None)) is None


def test_checking_leaves_the_callers_array_alone():
    x = np.array([[3.0, 4.0]])
    unit(x)[0, 0] = 9
    check_embeddings(x)[0, 0] = 9
    assert x.tolist() == [[3.0, 4.0]]


def test_no_keras_in_the_matcher():
    imported = {name for node in ast.walk(ast.parse(Path(matcher_module.__file__).read_text()))
                for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else [])}
    assert not {name for name in imported if name and name.split(".")[0] in ("keras", "tensorflow", "torch", "jax")}
