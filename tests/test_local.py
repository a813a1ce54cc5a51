"""Matching in places: against a slow loop, symmetries, what a shift costs, evidence by hand, what the table remembers, its figures on real signatures."""
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signver_kit import datasets, local, protocols
from signver_kit.descriptors import LocalMap, describe_local
from signver_kit.local import (EVIDENCE, SCORE_RULES, EvidenceTable, cohort_scale, difference_map, evidence, evidence_names, local_distance, local_distances,
                               log_features, reference_score, residuals)
from signver_kit.metrics import eer

SHAPE = (4, 6, 5)


def some_maps(seed, count=6, shape=SHAPE, empty=0.3):
    """Blocks of unit length or of none, like those of ink."""
    rng = np.random.default_rng(seed)
    descriptors = rng.random((count, *shape))
    descriptors /= np.linalg.norm(descriptors, axis=-1, keepdims=True)
    weights = rng.uniform(0.1, 3, (count, *shape[:2])) * (rng.random((count, *shape[:2])) > empty)
    weights[:, 0, 0] = 1
    return LocalMap(descriptors * (weights > 0)[..., None], weights)


def by_loop(x, y, slack, price):
    """Residuals (h, w) and the set of best displacements of each block, as the formula says."""
    h, w, _ = x.shape
    found, where = np.full((h, w), np.inf), {}
    for i in range(h):
        for j in range(w):
            cost = {(k - i, m - j): float(((x[i, j].astype(np.float64) - y[k, m]) ** 2).sum() + price * ((k - i) ** 2 + (m - j) ** 2))
                    for k in range(max(0, i - slack), min(h, i + slack + 1)) for m in range(max(0, j - slack), min(w, j + slack + 1))}
            found[i, j] = min(cost.values())
            where[i, j] = {v for v, c in cost.items() if c < found[i, j] + 1e-5}
    return found, where


def distance_by_loop(a, b, slack=2, price=0.02):
    total = 0
    for one, other in ((a, b), (b, a)):
        share = one.weights[0] / one.weights[0].sum(dtype=np.float64)
        total += (share * by_loop(one.descriptors[0], other.descriptors[0], slack, price)[0]).sum()
    return total


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from([0.0, 0.02, 0.3]), st.sampled_from([(4, 6, 5), (1, 7, 3), (2, 2, 1), (5, 1, 4)]))
def test_residuals_and_displacements_equal_the_loop(seed, slack, price, shape):
    a, b = some_maps(seed, 2, shape), some_maps(seed + 1, 3, shape)
    found, moved = residuals(a, b, slack, price, return_displacement=True)
    assert found.shape == (2, 3, *shape[:2]) and found.dtype == np.float32 and moved.shape == (*found.shape, 2)
    assert np.array_equal(found, residuals(a, b, slack, price))
    for i in range(2):
        for j in range(3):
            expected, where = by_loop(a.descriptors[i], b.descriptors[j], slack, price)
            assert found[i, j] == pytest.approx(expected, abs=2e-5)
            assert all(tuple(moved[i, j][block].tolist()) in best for block, best in where.items())


def test_more_than_one_tile_makes_no_difference(monkeypatch):
    a, b = some_maps(0, 9), some_maps(1, 11)
    whole, moved = residuals(a, b, return_displacement=True)
    far = local_distances(a, b)
    monkeypatch.setattr(local, "_TILE", (4, 3))
    tiled, moved_too = residuals(a, b, return_displacement=True)
    assert tiled == pytest.approx(whole, abs=1e-6) and np.mean(moved == moved_too) > 0.999
    assert local_distances(a, b) == pytest.approx(far, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from([0.0, 0.02, 0.3]))
def test_distances_many_and_paired_equal_the_loop(seed, slack, price):
    a, b = some_maps(seed, 3), some_maps(seed + 1, 3)
    many, paired = local_distances(a, b, slack, price), local_distance(a, b, slack, price)
    assert many.dtype == paired.dtype == np.float64 and many.shape == (3, 3) and paired.shape == (3,)
    assert many[0, 1] == pytest.approx(distance_by_loop(a[0], b[1], slack, price), abs=2e-5)
    assert paired == pytest.approx(np.diag(many), abs=2e-5)
    assert local_distance(a[1], b, slack, price) == pytest.approx(many[1], abs=2e-5)
    assert local_distance(a, b[2], slack, price) == pytest.approx(many[:, 2], abs=2e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_symmetric_zero_with_itself_and_bounded(seed):
    a, b = some_maps(seed), some_maps(seed + 1, 4)
    own = local_distances(a)
    assert np.array_equal(own, own.T) and np.abs(np.diag(own)).max() < 1e-5 and own[~np.eye(6, dtype=bool)].min() > 1e-3
    assert local_distances(a, b) == pytest.approx(local_distances(b, a).T, abs=1e-5) and own.max() <= 4
    assert local_distances(a, a) == pytest.approx(own, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 50))
def test_more_ink_everywhere_changes_nothing_and_bare_blocks_have_no_say(seed, times):
    a, b = some_maps(seed), some_maps(seed + 1)
    assert local_distances(LocalMap(a.descriptors, np.float32(times) * a.weights), b) == pytest.approx(local_distances(a, b), abs=1e-4)
    noisy = a.descriptors.copy()
    noisy[a.weights == 0] = 7                                          # what stands in a block without weight is not asked for
    assert (residuals(LocalMap(noisy, a.weights), b) * a.weights[:, None]) == pytest.approx(residuals(a, b) * a.weights[:, None], abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(-2, 2), st.integers(-2, 2))
def test_a_shift_by_whole_blocks_costs_at_most_its_price(seed, dy, dx):
    core = some_maps(seed, 2, (3, 4, 5), empty=0)
    here = [np.pad(x, [(0, 0), (2, 2), (2, 2)] + [(0, 0)] * (x.ndim - 3)) for x in (core.descriptors, core.weights)]
    there = LocalMap(*(np.roll(x, (dy, dx), axis=(1, 2)) for x in here))
    here = LocalMap(*here)
    cost = local_distance(here, there)
    assert (cost <= 2 * 0.02 * (dy**2 + dx**2) + 1e-4).all()
    assert local_distance(here, there, price=0.0) == pytest.approx(0, abs=1e-4)
    if dy or dx:
        assert (cost > 0.01).all() and (local_distance(here, there, slack=0) > cost).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_more_slack_and_a_lower_price_never_cost_more(seed):
    a, b = some_maps(seed, 3), some_maps(seed + 1, 3)
    for cheap, dear in (((3, 0.02), (2, 0.02)), ((2, 0.02), (0, 0.02)), ((2, 0.0), (2, 0.02)), ((2, 0.02), (2, 1.0))):
        assert (residuals(a, b, *cheap) <= residuals(a, b, *dear) + 1e-5).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_mirrored_signatures_are_as_far_apart(seed):
    a, b = some_maps(seed, 3), some_maps(seed + 1, 3)
    mirror = [LocalMap(m.descriptors[:, ::-1, ::-1], m.weights[:, ::-1, ::-1]) for m in (a, b)]
    assert local_distances(*mirror) == pytest.approx(local_distances(a, b), abs=1e-5)


def test_no_rows_give_no_distances():
    a = some_maps(0, 3)
    assert local_distances(a, a[:0]).shape == (3, 0) and residuals(a[:0], a).shape == (0, 3, 4, 6) and local_distance(a[0], a[:0]).shape == (0,)


@pytest.mark.parametrize("call", [residuals, local_distances, local_distance, evidence])
def test_what_does_not_belong_together_is_refused(call):
    a = some_maps(0, 3)
    with pytest.raises(ValueError, match=r"same blocks.*\(4, 6, 5\) and \(4, 5, 5\)"):
        call(a, some_maps(0, 3, (4, 5, 5)))
    with pytest.raises(ValueError, match="must be a LocalMap, got ndarray"):
        call(a, a.descriptors)
    for wrong in ({"slack": -1}, {"slack": 1.5}, {"price": -0.1}, {"price": np.nan}):
        with pytest.raises(ValueError, match="slack must be a whole number"):
            call(a, a, **wrong)


def test_rows_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="3 and 2 rows.*local_distances"):
        local_distance(some_maps(0, 3), some_maps(1, 2))


# ---- where they differ

def test_the_difference_is_hot_where_a_block_was_changed():
    a = some_maps(3, 1, (11, 23, 6), empty=0)
    changed = a.descriptors.copy()
    changed[0, 4:7, 9:12] = np.eye(6)[0] * -1                          # nothing like it anywhere
    b = LocalMap(changed, a.weights)
    heat = difference_map(b, a, (96, 192))
    assert heat.shape == (96, 192) and heat.dtype == np.float32 and heat.min() >= 0
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert 5 * 8 <= y <= 7 * 8 and 10 * 8 <= x <= 12 * 8               # middles of blocks 4 … 6 and 9 … 11 lie at 40 … 56 and 80 … 96
    assert heat[:24].max() < 1e-4 and heat[:, :60].max() < 1e-4
    assert difference_map(a, a, (30, 50)).max() < 1e-5
    large = difference_map(b, a, (192, 384))
    assert large.max() == pytest.approx(heat.max(), rel=0.1)


def test_a_difference_map_needs_one_pair_and_a_picture():
    a = some_maps(0, 2)
    with pytest.raises(ValueError, match="2 and 1 rows"):
        difference_map(a, a[0], (20, 30))
    for shape in ((20, 30, 3), (0, 5)):
        with pytest.raises(ValueError, match=r"\(H, W\) of a picture"):
            difference_map(a[0], a[1], shape)


# ---- evidence

def evidence_by_loop(maps, references, questioned):
    """The definitions, pair by pair."""
    shares = maps.weights / maps.weights.sum(axis=(1, 2), keepdims=True)

    def maps_of(i, j):
        return by_loop(maps.descriptors[i], maps.descriptors[j], 2, 0.02)[0]

    def one_way(i, j):
        return (shares[i] * maps_of(i, j)).sum()

    def moves_of(i, j):
        where = by_loop(maps.descriptors[i], maps.descriptors[j], 2, 0.02)[1]  # the nearest of equally good matches; random maps have no others
        return np.array([min(where[place], key=lambda move: move[0]**2 + move[1]**2) for place in np.ndindex(maps.shape[:2])], float)

    def bend_of(i, j):
        """What a weighted straight rule leaves of the displacements, by lstsq."""
        h, w = maps.shape[:2]
        y, x = np.divmod(np.arange(h * w), w)
        root = np.sqrt(shares[i].reshape(-1, 1))
        places, moves = np.stack([np.ones(h * w), y, x], axis=1) * root, moves_of(i, j) * root
        left = moves - places @ np.linalg.lstsq(places, moves, rcond=None)[0]
        return (left**2).sum(), (moves**2).sum()

    def bends(i, j):
        return np.add(bend_of(i, j), bend_of(j, i))

    pairs = [(i, j) for i in references for j in references if i != j]
    within = {pair: one_way(*pair) + one_way(*pair[::-1]) for pair in pairs}
    found = {name: [] for name in evidence_names(len(references))}
    for q in questioned:
        there, back = np.array([one_way(r, q) for r in references]), np.array([one_way(q, r) for r in references])
        found["mean"].append((there + back).mean())
        found["nearest"].append((there + back).min())
        found["forward"].append(there.mean())
        found["backward"].append(back.mean())
        bend, shift = np.array([bends(r, q) for r in references]).T
        found["bend"].append(bend.mean())
        found["shift"].append(shift.mean())
        if pairs:
            found["bend_nearest"].append(bend.min())
            found["bend_within"].append(np.mean([bends(*pair)[0] for pair in pairs]))
            unusual = []
            for i in references:
                usual = np.array([moves_of(i, j) for j in references if j != i], float)
                off = (moves_of(i, q) - usual.mean(axis=0)) ** 2 / (usual.var(axis=0) + 0.3)
                unusual.append((off.sum(axis=1) * shares[i].ravel()).sum())
            found["moved"].append(np.mean(unusual))
            found["within"].append(np.mean(list(within.values())))
            found["within_nearest"].append(np.mean([min(within[i, j] for j in references if j != i) for i in references]))
            found["unexplained"].append((shares[q] * np.min([maps_of(q, r) for r in references], axis=0)).sum())
            found["unexplained_within"].append(np.mean([(shares[i] * np.min([maps_of(i, j) for j in references if j != i], axis=0)).sum() for i in references]))
            usual = {i: np.mean([maps_of(i, j) for j in references if j != i], axis=0) for i in references}
            found["relative"].append(np.mean([(shares[i] * maps_of(i, q) / (usual[i] + 0.1)).sum() for i in references]))
    return found


@pytest.mark.parametrize("references", [[2], [4, 0], [5, 1, 3]])
def test_evidence_equals_its_definitions(references):
    maps, questioned = some_maps(7, 9), [7, 6, 8, 7]
    found, expected = EvidenceTable(maps).evidence(references, questioned), evidence_by_loop(maps, references, questioned)
    assert tuple(found) == evidence_names(len(references)) == tuple(expected)
    for name in found:
        assert found[name].dtype == np.float64 and found[name] == pytest.approx(expected[name], rel=2e-2 if "bend" in name else 2e-3, abs=2e-3), name
    alone = evidence(maps[references], maps[questioned])
    assert tuple(alone) == tuple(found) and all(alone[name] == pytest.approx(found[name], rel=2e-3) for name in found)
    assert EvidenceTable(maps).distances(references, questioned) == pytest.approx(local_distances(maps[references], maps[questioned]), rel=2e-3)


def test_embeddings_add_cosine_distances():
    maps, rng = some_maps(8, 8), np.random.default_rng(0)
    x = rng.normal(size=(8, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    table = EvidenceTable(maps, x)
    found, cosine = table.evidence([0, 3, 5], [1, 6]), 1 - x @ x.T
    assert tuple(found) == evidence_names(3, True) == tuple(EVIDENCE)
    assert found["global_mean"] == pytest.approx(cosine[np.ix_([0, 3, 5], [1, 6])].mean(axis=0))
    assert found["global_nearest"] == pytest.approx(cosine[np.ix_([0, 3, 5], [1, 6])].min(axis=0))
    assert found["global_within"] == pytest.approx([np.mean([cosine[0, 3], cosine[0, 5], cosine[3, 5]])] * 2)
    assert tuple(table.evidence([0], [1])) == evidence_names(1, True) == ("mean", "nearest", "forward", "backward", "bend", "shift", "global_mean")
    alone = evidence(maps[[0, 3, 5]], maps[[1, 6]], x[[0, 3, 5]], x[[1, 6]])
    assert all(alone[name] == pytest.approx(found[name], rel=2e-3) for name in EVIDENCE)
    assert table.features([0, 3, 5], [1, 6]).shape == (2, len(EVIDENCE))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_the_order_of_references_does_not_matter_and_questioned_do_not_see_each_other(seed, order):
    table = EvidenceTable(some_maps(seed, 9))
    found, other = table.evidence([0, 1, 2, 3], [4, 5, 6]), table.evidence(list(order), [6, 4])
    for name in found:
        assert other[name] == pytest.approx(found[name][[2, 0]], rel=1e-4), name


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_evidence_is_ordered_as_its_names_promise(seed):
    found = EvidenceTable(some_maps(seed, 12)).evidence([0, 1, 2, 3], range(4, 12))
    assert (found["nearest"] <= found["mean"] + 1e-6).all() and (found["within_nearest"] <= found["within"] + 1e-6).all()
    assert (found["unexplained"] <= found["backward"] + 1e-6).all() and found["forward"] + found["backward"] == pytest.approx(found["mean"], rel=1e-5)


def test_a_signature_that_a_reference_explains_completely():
    maps = some_maps(4, 4)
    copies = LocalMap.join([maps, maps[1]])                             # row 4 is a copy of reference 1
    found = evidence(copies[:3], copies[4])
    assert found["unexplained"][0] == pytest.approx(0, abs=1e-4) and found["nearest"][0] == pytest.approx(0, abs=1e-4) and found["mean"][0] > 0.01


def test_features_are_logarithms_kept_finite():
    assert log_features({"mean": np.array([1.0, 0.0]), "nearest": np.array([np.e, -1e-9])}) == pytest.approx(np.array([[0, 1], [np.log(1e-4)] * 2]))
    copies = some_maps(4, 1)[[0, 0, 0, 0]]                              # four copies of one scan: no spread at all
    table = EvidenceTable(copies)
    assert np.isfinite(table.features([0, 1, 2], [3])).all() and all(np.isfinite(table.score([0, 1, 2], [3], rule)).all() for rule in SCORE_RULES)


def test_scores_by_hand():
    says = {"mean": np.array([0.6]), "within": np.array([0.3]), "unexplained": np.array([0.4]), "unexplained_within": np.array([0.2]), "relative": np.array([1.5])}
    assert reference_score(says, "mean") == pytest.approx([0.6]) and reference_score(says, "normalised") == pytest.approx([2])
    assert reference_score(says) == pytest.approx([np.log(2) + np.log(1.5)])
    assert reference_score({"mean": says["mean"]}) == pytest.approx([0.6])
    with pytest.raises(ValueError, match="two references or more.*cohort_scale"):
        reference_score({"mean": says["mean"]}, "normalised")
    with pytest.raises(ValueError, match="places, normalised, mean, got 'max'"):
        reference_score(says, "max")
    with pytest.raises(ValueError, match="at least one reference"):
        evidence_names(0)


# ---- the table's memory

def test_a_pair_is_compared_once(monkeypatch):
    compared = []
    fast = local.residuals

    def counted(a, b, *how, **more):
        compared.append(len(a) * len(b))
        return fast(a, b, *how, **more)

    monkeypatch.setattr(local, "residuals", counted)
    table = EvidenceTable(some_maps(1, 12))
    table.distances([0, 1], [5, 6, 7])
    assert sum(compared) == 2 * 6
    table.distances([1, 0], [7, 5, 5])
    assert sum(compared) == 2 * 6
    table.distances([0], [8])
    assert sum(compared) == 2 * 7
    table.distances([2, 0], [8, 5])
    assert sum(compared) == 2 * 9


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), st.lists(st.integers(0, 9), min_size=1, max_size=6)), min_size=1, max_size=6),
       st.sampled_from([0, 0.001, 256]))
def test_what_is_remembered_is_what_would_be_computed(asked, memory):
    maps = some_maps(2, 10)
    every = local_distances(maps)
    table = EvidenceTable(maps, memory=memory)
    for references, questioned in asked:
        assert table.distances(references, questioned) == pytest.approx(every[np.ix_(references, questioned)], rel=2e-3, abs=1e-4)


def test_old_references_are_forgotten():
    table = EvidenceTable(some_maps(3, 30), memory=0.01)               # 24 blocks, two residuals of 2 bytes and a displacement of 2, bend and shift: 152 bytes a pair
    for first in range(0, 24, 4):
        table.evidence(range(first, first + 4), [row for row in range(30) if not first <= row < first + 4])
        assert set(table._memory.seen) >= set(range(first, first + 4))
        assert table._memory.bytes() <= max(0.01e6, 4 * 30 * 152)
    assert 0 not in table._memory.seen


def test_rows_and_embeddings_are_checked():
    maps = some_maps(0, 6)
    table = EvidenceTable(maps)
    for references, questioned in (([0, 1], [1, 2]), ([0, 0], [3])):
        with pytest.raises(ValueError, match=f"row {references[-1]} more than once"):
            table.evidence(references, questioned)
    assert table.evidence([-1, 0], np.array([False, True, False, False, False, False]))["mean"].shape == (1,)
    with pytest.raises(IndexError):
        table.distances([6], [0])
    for references, questioned in (([], [1]), ([1], np.zeros(6, bool)), (1, [2])):
        with pytest.raises((ValueError, IndexError), match="at least one|integer"):
            table.distances(references, questioned)
    for wrong, rule in ((np.eye(5), "one row for each of the 6 maps"), (2 * np.eye(6), "got 2 in row 0"), (np.full((6, 6), np.nan), "unit length"), (np.ones(6), r"shape \(6,\)")):
        with pytest.raises(ValueError, match=rule):
            EvidenceTable(maps, wrong)
    with pytest.raises(ValueError, match="one side only"):
        evidence(maps[:2], maps[2:], np.eye(2))


# ---- the cohort

def test_the_scale_is_the_mean_over_the_nearest_signers():
    maps, cohort = some_maps(5, 3), some_maps(6, 8)
    names = ["a", "b", "a", "c", "c", "c", "b", "d"]
    distances = local_distances(maps, cohort)
    by_signer = np.stack([distances[:, [name == who for name in names]].mean(axis=1) for who in "abcd"], axis=1)
    for nearest in (1, 2, 4, 20):
        assert cohort_scale(maps, cohort, names, nearest) == pytest.approx(np.sort(by_signer, axis=1)[:, :nearest].mean(axis=1))
    for wrong in ((cohort, names[:-1]), (cohort[:0], []), (cohort, names, 0)):
        with pytest.raises(ValueError, match="a cohort needs"):
            cohort_scale(maps, *wrong)


# ---- as a whole

def test_needs_neither_keras_nor_matplotlib():
    program = "import sys, signver_kit.local; heavy = {'keras', 'tensorflow', 'torch', 'jax', 'matplotlib', 'pandas'} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_figures_on_cedar(data_dir):
    """The first 20 signers: the untrained distance, and what ten references add, are in the range measured before the kit had them."""
    signatures = datasets.read_cedar(data_dir / "cedar")
    chosen = sorted(set(signatures.table["signer"]), key=int)[:20]
    signatures = signatures.subset(chosen)
    table = EvidenceTable(describe_local(signatures.ink(size=(96, 192), input="binarised")))
    rows = np.arange(len(signatures.table))

    def skilled(k, distance):
        y, distances, _ = protocols.against(protocols.wi_scores(signatures.table, rows, k, distance=distance, draws=2), "skilled")
        return eer(y, distances).value

    one, ten = skilled(1, table.distances), skilled(10, lambda r, q: np.tile(table.score(r, q), (len(r), 1)))
    assert 0.08 < one < 0.22 and ten < 0.6 * one
