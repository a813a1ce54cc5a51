"""Trials counted by hand, scores against a loop, thresholds that never see test signers, and probes that catch what they are for."""
import json

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from signver_kit.images import NoInk, SignverError
from signver_kit.metrics import auc, eer, far_frr
from signver_kit.protocols import (PAGE_PROPERTIES, PEN_PROPERTIES, LeakageFound, SignersOverlap, _fold_of, against, assert_disjoint, background_probe,
                                   check_probes, checked_table, duplicates_across_splits, file_probe, freeze_threshold, hardest_pairs,
                                   label_shuffle_probe, logistic, page_probe, page_properties, pool_folds, questioned_only_probe, refuse_leaks,
                                   summarise, two_sample_auc, wi_scores, wi_trials)


def make_table(signers=6, genuine=5, skilled=4):
    return pd.DataFrame([{"path": f"{s}/{kind}/{i}", "signer": str(s), "kind": kind, "index": i}
                         for s in range(signers) for kind, count in (("genuine", genuine), ("skilled", skilled)) for i in range(count)])


def make_embeddings(table, seed=0, noise=0.5, miss=0.5, dimensions=12):
    rng = np.random.default_rng(seed)
    centre = {signer: rng.normal(size=dimensions) for signer in sorted(set(table["signer"]))}
    x = np.stack([centre[s] + (noise + miss * (kind == "skilled")) * rng.normal(size=dimensions) for s, kind in zip(table["signer"], table["kind"])])
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def table():
    return make_table(12, 8, 6)


@pytest.fixture(scope="module")
def embeddings(table):
    return make_embeddings(table)


# --- trials

@settings(max_examples=30, deadline=None)
@given(signers=st.integers(1, 5), genuine=st.integers(2, 6), skilled=st.integers(0, 4), k=st.integers(1, 5), draws=st.integers(1, 4), seed=st.integers(0, 99))
def test_trials_are_wi_k(signers, genuine, skilled, k, draws, seed):
    table = make_table(signers, genuine, skilled)
    if genuine < k + 1:
        with pytest.raises(ValueError, match=f"WI-{k} needs {k + 1} genuine"):
            wi_trials(table, k, draws, seed)
        return
    trials = wi_trials(table, k, draws, seed)
    assert trials.groupby("kind").size().to_dict() == {kind: count for kind, count in {
        "genuine": signers * draws * (genuine - k), "skilled": signers * draws * skilled, "random": signers * draws * (signers - 1)}.items() if count}
    references = trials.filter(like="reference_").to_numpy()
    signer, kind = table["signer"].to_numpy(), table["kind"].to_numpy()
    assert (signer[references] == trials["signer"].to_numpy()[:, None]).all() and (kind[references] == "genuine").all()
    assert not (references == trials["questioned"].to_numpy()[:, None]).any(), "a reference is never questioned"
    assert all(len(set(row)) == k for row in references)
    questioned = trials["questioned"].to_numpy()
    own = signer[questioned] == trials["signer"]
    assert (own == (trials["kind"] != "random")).all() and ((kind[questioned] == "skilled") == (trials["kind"] == "skilled")).all()
    for _, block in trials.groupby(["signer", "draw"]):
        assert not block["questioned"].duplicated().any()
        assert signer[block.loc[block["kind"] == "random", "questioned"]].tolist() == sorted(set(signer) - {block["signer"].iloc[0]})


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_trials_do_not_depend_on_row_order(seed):
    table = make_table(4, 6, 3)
    shuffled = table.sample(frac=1, random_state=seed)
    one, other = wi_trials(table, 2, 3), wi_trials(shuffled, 2, 3)
    for column in ("questioned", "reference_0", "reference_1"):
        assert (table["path"].to_numpy()[one[column]] == shuffled["path"].to_numpy()[other[column]]).all()


def test_references_are_a_signers_own_matter(table):
    every, some = wi_trials(table, 2, 5), wi_trials(table, 2, 5, signers=["3", "7"])
    for signer in ("3", "7"):
        pick = lambda trials: trials[(trials["signer"] == signer) & (trials["kind"] == "genuine")].reset_index(drop=True)
        pd.testing.assert_frame_equal(pick(every), pick(some))
    assert set(some["signer"]) == {"3", "7"} and set(table["signer"][some["questioned"]]) == {"3", "7"}


def test_fewer_draws_and_references_are_the_first_of_more(table):
    ten, two = wi_trials(table, 3, 10), wi_trials(table, 1, 2)
    firsts = lambda trials: trials.groupby(["signer", "draw"])["reference_0"].first()
    assert firsts(two).equals(firsts(ten).loc[firsts(two).index])
    assert not wi_trials(table, 3, 10, seed=1)["reference_0"].equals(ten["reference_0"]), "another seed, other references"


def test_draws_visit_all_genuine_signatures(table):
    used = wi_trials(table, 1, draws=200)["reference_0"].value_counts()
    assert len(used) == 12 * 8
    share = wi_trials(table, 1, draws=200).drop_duplicates(["signer", "draw"])["reference_0"].value_counts() / 200
    assert abs(share - 1 / 8).max() < 0.1


@pytest.mark.parametrize("spoil, words", [
    (lambda t: t.drop(columns="signer"), "without signer"),
    (lambda t: t.iloc[:0], "0 rows"),
    (lambda t: t.assign(kind="forged"), "genuine, skilled, got forged"),
    (lambda t: t.assign(signer=[None, *t["signer"][1:]]), "row without signer"),
    (lambda t: pd.concat([t, t.iloc[[2]]]), "repeated"),
])
def test_tables_that_no_protocol_can_work_with(spoil, words):
    with pytest.raises(ValueError, match=words):
        wi_trials(spoil(make_table()), 1)


@pytest.mark.parametrize("options", [{"k": 0}, {"k": 1.5}, {"k": 1, "draws": 0}])
def test_k_and_draws_are_whole(options):
    with pytest.raises(ValueError, match="whole numbers from 1 up"):
        wi_trials(make_table(), **options)


def test_test_signers_must_exist():
    with pytest.raises(ValueError, match="got 99"):
        wi_trials(make_table(), 1, signers=["1", "99"])
    with pytest.raises(ValueError, match="none at all"):
        wi_trials(make_table(), 1, signers=[])


def test_the_signer_with_too_few_is_named():
    table = make_table()
    table = table[~((table["signer"] == "4") & (table["kind"] == "genuine") & (table["index"] > 1))]
    with pytest.raises(ValueError, match="4 has 2"):
        wi_trials(table, 2)
    assert "4" not in set(wi_trials(table, 2, signers=["0", "1"])["signer"])


def test_the_callers_table_stays_as_it_was():
    table = make_table().astype({"signer": int})
    before = table.copy()
    wi_trials(table, 1)
    pd.testing.assert_frame_equal(table, before)


# --- scores

@pytest.mark.parametrize("rule, combine", [("mean", np.mean), ("min", np.min), ("max", np.max)])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 3])
def test_scores_against_a_loop(table, embeddings, rule, combine, distance, k):
    scores, trials = (f(table, *a, draws=3) for f, a in ((lambda *b, **o: wi_scores(*b, fuse=rule, distance=distance, **o), (embeddings, k)), (wi_trials, (k,))))
    every = cdist(embeddings, embeddings, distance)
    references = trials.filter(like="reference_").to_numpy()
    to_each = every[references, trials["questioned"].to_numpy()[:, None]]
    assert scores["distance"].to_numpy() == pytest.approx(combine(to_each, axis=1), abs=1e-7)
    assert (scores["reference"] == references[np.arange(len(references)), to_each.argmin(axis=1)]).all()
    for column in ("signer", "draw", "kind", "questioned"):
        assert (scores[column] == trials[column]).all()
    assert set(scores["k"]) == {k} and (scores["path"] == table["path"].to_numpy()[scores["questioned"]]).all()


def test_a_distance_of_ones_own_sees_only_what_trials_need(table, embeddings):
    asked = []

    def mine(references, questioned):
        asked.append((len(references), len(questioned)))
        return 1 - references @ questioned.T

    scores = wi_scores(table, embeddings, 2, distance=mine, draws=3)
    assert scores["distance"].to_numpy() == pytest.approx(wi_scores(table, embeddings, 2, draws=3)["distance"].to_numpy())
    assert asked == [(2, 6 + 6 + 11)] * (12 * 3)


def test_representations_need_not_be_vectors(table):
    local = np.random.default_rng(0).random((len(table), 3, 4, 5))
    scores = wi_scores(table, local, 1, draws=1, distance=lambda a, b: np.abs(a[:, None] - b[None]).sum(axis=(2, 3, 4)))
    row = scores.iloc[0]
    assert row["distance"] == pytest.approx(np.abs(local[row["reference"]] - local[row["questioned"]]).sum())


def test_scores_do_not_depend_on_row_order(table, embeddings):
    order = np.random.default_rng(3).permutation(len(table))
    one, other = wi_scores(table, embeddings, 2), wi_scores(table.iloc[order], embeddings[order], 2)
    columns = ["signer", "kind", "draw", "path", "reference_path"]
    pd.testing.assert_frame_equal(one[columns], other[columns])
    assert one["distance"].to_numpy() == pytest.approx(other["distance"].to_numpy(), abs=1e-12)


@pytest.mark.parametrize("spoil, words", [
    (lambda e: e[:-1], "167 embeddings for 168 rows"),
    (lambda e: e * 3, "unit length, got 3"),
    (lambda e: np.where(np.arange(len(e))[:, None] == 5, np.nan, e), "row 5"),
    (lambda e: e[:, 0], r"2-D \(N, D\)"),
    (lambda e: np.zeros_like(e), "unit length, got 0"),
])
def test_wrong_embeddings_are_refused(table, embeddings, spoil, words):
    with pytest.raises(ValueError, match=words):
        wi_scores(table, spoil(embeddings), 1)


def test_a_distance_function_may_fuse_by_itself(table, embeddings):
    mine = wi_scores(table, embeddings, 2, distance=lambda a, b: (1 - a @ b.T).mean(axis=0))
    theirs = wi_scores(table, embeddings, 2, distance=lambda a, b: 1 - a @ b.T)
    assert mine.distance.to_numpy() == pytest.approx(theirs.distance.to_numpy())
    assert mine.drop(columns=["distance", "reference", "reference_path"], errors="ignore").equals(
        theirs.drop(columns=["distance", "reference", "reference_path"], errors="ignore"))


def test_wrong_distances_are_refused(table, embeddings):
    with pytest.raises(ValueError, match="cosine, euclidean"):
        wi_scores(table, embeddings, 1, distance="manhattan")
    with pytest.raises(ValueError, match="fuse must be one of"):
        wi_scores(table, embeddings, 1, fuse="median")
    with pytest.raises(ValueError, match=r"one distance for each reference"):
        wi_scores(table, embeddings, 2, distance=lambda a, b: np.zeros(len(a) + len(b)))
    with pytest.raises(ValueError, match="NaN"):
        wi_scores(table, embeddings, 2, distance=lambda a, b: np.full((len(a), len(b)), np.nan))


def test_bfloat16_lengths_are_unit_enough(table, embeddings):
    rounded = (embeddings.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert len(wi_scores(table, rounded, 1))


def test_a_whole_cedar_takes_less_than_two_seconds():
    import time
    table = make_table(55, 24, 24)
    embeddings = make_embeddings(table, dimensions=256).astype(np.float32)
    start = time.process_time()
    sizes = [len(wi_scores(table, embeddings, k)) for k in (1, 10)]
    assert sizes == [55 * 10 * (23 + 24 + 54), 55 * 10 * (14 + 24 + 54)]
    assert time.process_time() - start < 4  # both; 0.3 s on an idle core


# --- thresholds, folds, summaries

def test_freeze_threshold_is_the_eer_threshold_of_the_named_impostors(table, embeddings):
    scores = wi_scores(table, embeddings, 1)
    found = {impostors: freeze_threshold(scores, impostors) for impostors in ("skilled", "random", "both")}
    assert freeze_threshold(scores) == found["skilled"] < found["both"] < found["random"]
    y, distance, _ = against(scores, "skilled")
    far, frr = far_frr(y, distance, found["skilled"])
    assert far == pytest.approx(frr, abs=0.02)
    assert freeze_threshold(scores[scores["kind"] != "skilled"]) == found["random"]


def test_against_refuses():
    scores = pd.DataFrame({"signer": ["1"], "kind": ["genuine"], "distance": [0.1]})
    with pytest.raises(ValueError, match="there must be trials with skilled"):
        against(scores, "skilled")
    with pytest.raises(ValueError, match="skilled, random or both"):
        against(scores, "simple")
    with pytest.raises(ValueError, match="distance"):
        against(scores.drop(columns="distance"), "random")


def fold_scores(fold, scale, signers=8):
    table = make_table(signers, 6, 5).assign(signer=lambda t: f"{fold}-" + t["signer"])
    scores = wi_scores(table, make_embeddings(table, seed=fold), 1)
    return scores.assign(distance=scores["distance"] * scale)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 100))
def test_pooling_undoes_a_folds_scale(scale):
    plain, scaled = ([(fold_scores(0, 1), 0.4), (fold_scores(1, s), 0.5 * s)] for s in (1, scale))
    one, other = pool_folds(plain), pool_folds(scaled)
    assert one["distance"].to_numpy() == pytest.approx(other["distance"].to_numpy())
    for fold, (scores, threshold) in enumerate(scaled):
        mine = other[other["fold"] == fold]
        assert auc(*against(mine, "skilled")[:2]) == auc(*against(scores, "skilled")[:2])
        assert ((mine["distance"] <= 1).to_numpy() == (scores["distance"] <= threshold).to_numpy()).mean() > 0.999  # rounding of one division


def test_pooling_refuses():
    scores = fold_scores(0, 1)
    with pytest.raises(SignersOverlap, match="fold 0 and fold 1"):
        pool_folds([(scores, 0.5), (scores, 0.5)])
    for threshold in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="positive number"):
            pool_folds([(scores, threshold)])
    with pytest.raises(ValueError, match="at least one fold"):
        pool_folds([])


def test_summary_by_hand():
    rows = [(s, kind, d) for s in "abcd" for kind, ds in (("genuine", (0.1, 0.2, 0.6)), ("skilled", (0.3, 0.7)), ("random", (0.8, 0.9, 1.0))) for d in ds]
    scores = pd.DataFrame(rows, columns=["signer", "kind", "distance"]).assign(k=1)
    found = summarise(scores, 0.5, draws=200)
    assert (found["frr"], found["far_skilled"], found["far_random"]) == (pytest.approx(1 / 3), 0.5, 0)
    assert found["auc_skilled"] == pytest.approx(5 / 6) and found["auc_random"] == 1 and found["wi1_random_eer"] == 0
    assert found["far_skilled_ci"] == [0.5, 0.5], "all signers alike"
    assert found["far_random_ci"] == [0, pytest.approx(3 / 12)], "never seen in 12 trials is not never"
    assert [found[f"trials_{kind}"] for kind in ("genuine", "skilled", "random")] == [12, 8, 12]
    assert found["signers"] == 4 and found["threshold"] == 0.5 and "absent" not in found
    json.dumps(found)


def test_summary_intervals_and_names(table, embeddings):
    scores = wi_scores(table, embeddings, 3)
    found = summarise(scores, 0.4, prefix="wi3_", draws=300)
    for name in ("wi3_skilled_eer", "wi3_random_eer", "wi3_auc_skilled", "wi3_auc_random", "wi3_frr", "wi3_far_skilled", "wi3_far_random"):
        low, high = found[f"{name}_ci"]
        assert low <= found[name] <= high, name
    assert found["wi3_skilled_eer"] == eer(*against(scores, "skilled")[:2]).value
    assert found == summarise(scores.sample(frac=1, random_state=0), 0.4, prefix="wi3_", draws=300), "neither order nor chance"
    assert not set(found) & set(summarise(wi_scores(table, embeddings, 1), 0.4, draws=300)), "two K fit into one record"


def test_rates_agree_with_the_row_by_row_bootstrap(table, embeddings):
    from signver_kit.metrics import bootstrap_signers
    scores = wi_scores(table, embeddings, 1, draws=2)
    skilled = scores[scores["kind"] == "skilled"]
    accepted, signers = (skilled["distance"] <= 0.4).to_numpy(), skilled["signer"].to_numpy(dtype=str)
    expected = bootstrap_signers(np.mean, signers, accepted, draws=300)
    assert summarise(scores, 0.4, draws=300)["far_skilled_ci"] == pytest.approx(list(expected))


def test_fold_spread():
    pooled = pool_folds([(fold_scores(i, 1), 0.4) for i in range(3)])
    found = summarise(pooled, 1.0, draws=100)
    each = [eer(*against(pooled[pooled["fold"] == i], "skilled")[:2]).value for i in range(3)]
    assert found["wi1_skilled_eer_folds"] == each and found["wi1_skilled_eer_spread"] == pytest.approx(np.std(each, ddof=1))


@pytest.mark.parametrize("kind", ["skilled", "random"])
def test_what_was_not_tried_is_absent_not_zero(table, embeddings, kind):
    scores = wi_scores(table, embeddings, 1, draws=2)
    found = summarise(scores[scores["kind"] != kind], 0.4, draws=100)
    assert not any(kind in name for name in found if not name.startswith("trials_"))
    assert found[f"trials_{kind}"] == 0 and "not zero" in found["absent"][kind]


def test_summary_refuses(table, embeddings):
    one, three = (wi_scores(table, embeddings, k, draws=1) for k in (1, 3))
    with pytest.raises(ValueError, match=r"k = \[1, 3\]"):
        summarise(pd.concat([one, three]), 0.4)
    with pytest.raises(ValueError, match="freeze it"):
        summarise(one, np.nan)


def test_the_frozen_threshold_is_honest_on_average():
    """Same population: what a frozen threshold does on test is unbiased, while the best threshold on test always looks at least as good."""
    chosen, frozen = [], []
    for seed in range(30):
        table = make_table(6, 5, 5)
        validation, test = (wi_scores(table, make_embeddings(table, seed=2 * seed + i), 1, draws=1) for i in (0, 1))
        y, distance, _ = against(test, "skilled")
        frozen.append(sum(far_frr(y, distance, freeze_threshold(validation))) / 2)
        chosen.append(min(sum(far_frr(y, distance, t)) / 2 for t in np.unique(distance)))
    assert all(c <= f + 1e-12 for c, f in zip(chosen, frozen)) and np.mean(chosen) < np.mean(frozen) - 0.02


def test_hardest_pairs():
    rows = [("a", "genuine", 0, 0, 0.9), ("a", "genuine", 1, 0, 0.8), ("a", "genuine", 0, 1, 0.7), ("a", "genuine", 0, 2, 0.1),
            ("a", "skilled", 0, 5, 0.2), ("a", "skilled", 1, 5, 0.05), ("a", "skilled", 0, 6, 0.3), ("a", "random", 0, 9, 0.6)]
    scores = pd.DataFrame(rows, columns=["signer", "kind", "draw", "questioned", "distance"])
    found = hardest_pairs(scores, 2)
    assert found[["error", "kind", "questioned", "distance"]].to_numpy().tolist() == [
        ["false accept", "skilled", 5, 0.05], ["false accept", "skilled", 6, 0.3], ["false accept", "random", 9, 0.6],
        ["false reject", "genuine", 0, 0.9], ["false reject", "genuine", 1, 0.7]]
    wrong = hardest_pairs(scores, 5, threshold=0.25)
    assert wrong["questioned"].tolist() == [5, 0, 1], "only what the threshold decides wrongly"


# --- disjointness

def test_disjoint():
    assert_disjoint(train=["1", "2"], validation=["3"], test=[4, 5], extra=None)
    with pytest.raises(SignersOverlap, match="train and test .* 2 in both"):
        assert_disjoint(train=["1", "2", "9"], validation=["3"], test=["9", "2"])
    with pytest.raises(SignersOverlap):
        assert_disjoint(train=[7], test=["7"])
    with pytest.raises(SignersOverlap):
        assert_disjoint(a=make_table(3), b=make_table(2))
    with pytest.raises(ValueError, match=r"write \['12'\]"):
        assert_disjoint(train="12", test=["3"])
    assert issubclass(SignersOverlap, SignverError) and issubclass(SignersOverlap, ValueError)


# --- probes

@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_logistic_is_at_the_minimum_that_it_names(seed, ridge):
    """Σ wᵢ log(1 + exp(−yᵢ zᵢ)) + ridge/2 ‖b‖² with equal weight of both classes and a free intercept: its gradient is zero there."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(80, 4))
    y = x[:, 0] + rng.normal(size=80) > 0.5
    b = logistic(x, y, ridge)
    weight = np.where(y, 80 / (2 * y.sum()), 80 / (2 * (~y).sum()))
    residual = weight * (1 / (1 + np.exp(-(x @ b[:-1] + b[-1]))) - y)
    assert x.T @ residual + ridge * b[:-1] == pytest.approx(np.zeros(4), abs=1e-4) and residual.sum() == pytest.approx(0, abs=1e-4)


def test_logistic_survives_separable_and_constant_columns():
    x = np.column_stack([np.repeat([-1e3, 1e3], 20), np.ones(40)])
    assert np.isfinite(logistic(x, np.repeat([False, True], 20), 1e-6)).all()
    with pytest.raises(ValueError, match="both classes"):
        logistic(x, np.ones(40, bool))


def ink_pictures(table, seed=0):
    rng = np.random.default_rng(seed)
    pictures = np.zeros((len(table), 32, 64), np.float32)
    for picture in pictures:
        cv2.polylines(picture, [np.int32(rng.uniform((6, 6), (58, 26), (8, 2)))], False, 0.7, 2)
    return pictures


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_background_probe_sees_paper_and_not_ink(table, scale):
    ink = ink_pictures(table)
    forged = (table["kind"] == "skilled").to_numpy()
    assert background_probe(ink * scale, table)["background_auc"] == 0.5
    darker_ink = np.where(forged[:, None, None], ink * 0.5, ink)
    assert background_probe(darker_ink * scale, table)["background_auc"] == 0.5, "the ink's grey is not the background's"
    tinted = np.maximum(ink, np.where(forged, 0.01, 0.06).astype(np.float32)[:, None, None])
    assert background_probe(tinted * scale, table)["background_auc"] > 0.99
    assert background_probe((1 - tinted) * scale, table)["background_auc"] > 0.99, "dark on light as well"


def test_background_probe_sees_what_is_not_monotone(table):
    rng = np.random.default_rng(0)
    paper = np.where(table["kind"] == "skilled", 0.05, rng.choice([0.02, 0.08], len(table)))
    assert background_probe(np.maximum(ink_pictures(table), paper[:, None, None]), table)["background_auc"] > 0.95


def test_background_probe_sees_a_rim_and_metadata(table):
    ink = ink_pictures(table)
    rim = ink.copy()
    rim[(table["kind"] == "skilled").to_numpy(), :2] = 0.02
    rim[(table["kind"] == "skilled").to_numpy(), -3:] = 0.02
    rim[(table["kind"] == "skilled").to_numpy(), :, :3] = 0.02
    rim[(table["kind"] == "skilled").to_numpy(), :, -3:] = 0.02
    assert background_probe(rim, table)["background_auc"] > 0.95
    assert background_probe(ink, table, metadata=(table["kind"] == "skilled"))["background_auc"] > 0.99
    assert background_probe(ink, table, metadata=np.ones(len(table)))["background_auc"] == 0.5


def test_a_paper_that_varies_by_chance_passes(table):
    values = []
    for seed in range(5):
        paper = np.random.default_rng(seed).uniform(0.01, 0.1, len(table))[:, None, None]
        found = background_probe(np.maximum(ink_pictures(table), paper), table, draws=100)
        values.append(found["background_auc"])
        assert not [f for f in check_probes(found | {"label_shuffle_eer": 0.5, "duplicates_across_splits": 0})]
    assert 0.42 < np.mean(values) < 0.58


def test_a_signers_own_paper_is_no_leak(table):
    """Paper that differs between signers, but not between a signer's genuine signatures and their forgeries, cannot help on unseen signers."""
    paper = (table["signer"].astype(int) * 0.007 + 0.01).to_numpy()[:, None, None]
    assert abs(background_probe(np.maximum(ink_pictures(table), paper), table)["background_auc"] - 0.5) < 0.1


def test_probes_take_lists_of_pictures_of_any_size_and_bool(table):
    ink = ink_pictures(table)
    assert background_probe([picture[:, : 40 + i % 7] for i, picture in enumerate(ink)], table)["background_auc"] is not None
    assert background_probe(ink > 0.5, table)["background_auc"] == 0.5
    with pytest.raises(ValueError, match="drop the channel axis"):
        background_probe(ink[..., None], table)
    with pytest.raises(ValueError, match="one item a row"):
        background_probe(ink[:-1], table)


def test_questioned_only_probe(table, embeddings):
    assert abs(questioned_only_probe(embeddings, table, draws=100)["questioned_only_auc"] - 0.5) < 0.12
    marked = embeddings + np.outer(table["kind"] == "skilled", np.eye(12)[0])
    assert questioned_only_probe(marked, table, draws=100)["questioned_only_auc"] > 0.95
    wide = np.hstack([marked, np.random.default_rng(0).normal(size=(len(table), 300)) * 0.1])
    assert questioned_only_probe(wide, table, draws=100)["questioned_only_auc"] > 0.8, "more columns than principal axes"
    thicker = ink_pictures(table) * np.where(table["kind"] == "skilled", 1.0, 0.6)[:, None, None]
    assert questioned_only_probe(thicker, table, draws=100)["questioned_only_auc"] > 0.8
    with pytest.raises(ValueError, match="NaN"):
        questioned_only_probe(np.full_like(embeddings, np.nan), table)
    with pytest.raises(ValueError, match="pictures"):
        questioned_only_probe(embeddings[:, 0], table)


def test_questioned_only_never_tests_a_signer_it_learned():
    """Every forgery carries its victim's own mark: learnable for known signers, useless for new ones."""
    table = make_table(16, 6, 6)
    mark = np.random.default_rng(0).normal(size=(16, 40))[table["signer"].astype(int)]
    x = mark * np.where(table["kind"] == "skilled", 1.0, -1.0)[:, None]
    value = questioned_only_probe(x, table)["questioned_only_auc"]
    known = logistic(x, (table["kind"] == "genuine").to_numpy())
    assert auc((table["kind"] == "genuine").to_numpy(), -(x @ known[:-1])) > 0.95 and value < 0.8


def test_folds_may_be_given(table, embeddings):
    groups = [[str(s) for s in range(i, 12, 3)] for i in range(3)]
    assert questioned_only_probe(embeddings, table, folds=groups)["questioned_only_auc"] is not None
    with pytest.raises(SignersOverlap):
        questioned_only_probe(embeddings, table, folds=[["1", "2"], ["2", "3"]])
    with pytest.raises(ValueError, match="at least 2 folds"):
        questioned_only_probe(embeddings, table, folds=1)


def test_probes_without_forgeries_say_so(table, embeddings):
    genuine = (table["kind"] == "genuine").to_numpy()
    found = background_probe(ink_pictures(table)[genuine], table[genuine]) | questioned_only_probe(embeddings[genuine], table[genuine])
    assert found["background_auc"] is None and "fewer" in found["background_auc_note"] and found["questioned_only_auc"] is None
    found |= label_shuffle_probe(table[genuine], embeddings[genuine], shuffles=10)
    assert abs(found["label_shuffle_eer"] - 0.5) < 0.08
    assert check_probes(found | {"duplicates_across_splits": 0}) == []


def test_label_shuffle_finds_nothing_in_an_honest_evaluation(table, embeddings):
    values = [label_shuffle_probe(table, embeddings, k, seed=seed) for seed in range(3) for k in (1, 3)]
    assert np.mean([v["label_shuffle_eer"] for v in values]) == pytest.approx(0.5, abs=0.03)
    order = np.random.default_rng(0).permutation(len(table))
    assert label_shuffle_probe(table.iloc[order], embeddings[order]) == label_shuffle_probe(table, embeddings)


def test_label_shuffle_catches_an_evaluation_that_knows_labels(table, embeddings):
    def questioned_among_references(table, embeddings, k, **options):
        scores = wi_scores(table, embeddings, k, **options)
        return scores.assign(distance=scores["distance"].where(scores["kind"] != "genuine", scores["distance"] * k / (k + 1)))

    found = label_shuffle_probe(table, embeddings, 1, score=questioned_among_references)
    assert found["label_shuffle_eer"] < 0.4 and found["label_shuffle_eer_ci"][1] < 0.5
    assert any("label_shuffle_eer" in failure for failure in check_probes(found | {"background_auc": 0.5, "duplicates_across_splits": 0}))


def test_duplicates_across_splits():
    table = make_table(4, 3, 0).assign(hash=lambda t: t["path"])
    splits = {"train": ["0", "1"], "test": ["2"]}
    assert duplicates_across_splits(table, splits)["duplicates_across_splits"] == 0
    table.loc[[0, 1], "hash"] = "same"  # within a signer: not across
    table.loc[[3, 9], "hash"] = "unused"  # signer 3 is in no part
    assert duplicates_across_splits(table, splits)["duplicates_across_splits"] == 0
    table.loc[7, "hash"] = "same"
    found = duplicates_across_splits(table, splits)
    assert found == {"duplicates_across_splits": 1,
                     "duplicates": [{"hash": "same", "images": ["train: 0/genuine/0", "train: 0/genuine/1", "test: 2/genuine/1"]}]}
    json.dumps(found)
    with pytest.raises(SignersOverlap):
        duplicates_across_splits(table, {"train": ["0"], "test": ["0"]})
    with pytest.raises(ValueError, match="add_hashes"):
        duplicates_across_splits(table.assign(hash=""), splits)


@pytest.mark.parametrize("probes, failures", [
    ({}, 0), ({"background_auc": 0.61}, 1), ({"background_auc": 0.61, "background_auc_ci": [0.49, 0.7]}, 0), ({"background_auc": 0.59, "background_auc_ci": [0.55, 0.62]}, 0),
    ({"background_auc": 0.3, "background_auc_ci": [0.2, 0.4]}, 1), ({"background_auc": None}, 0), ({"background_auc": float("nan")}, 1),
    ({"label_shuffle_eer": 0.42, "label_shuffle_eer_ci": [0.4, 0.45]}, 1), ({"label_shuffle_eer": 0.46, "label_shuffle_eer_ci": [0.45, 0.48]}, 0),
    ({"label_shuffle_eer": 0.42, "label_shuffle_eer_ci": [0.4, 0.51]}, 0), ({"duplicates_across_splits": 1}, 1),
    ({"questioned_only_auc": 1.0, "file_auc": 1.0}, 0), ({"background_auc": 1.0, "label_shuffle_eer": 0.0, "duplicates_across_splits": 3}, 3),
])
def test_verdicts(probes, failures):
    probes = {"background_auc": 0.5, "label_shuffle_eer": 0.5, "duplicates_across_splits": 0} | probes
    assert len(check_probes(probes)) == failures
    if failures:
        with pytest.raises(LeakageFound) as caught:
            refuse_leaks(probes)
        assert len(caught.value.failures) == failures and isinstance(caught.value, SignverError)
    else:
        refuse_leaks(probes)


def test_a_probe_that_was_not_run_fails():
    assert len(check_probes({})) == 3 and all("was not run" in failure for failure in check_probes({}))


# --- real signatures

@pytest.fixture(scope="module")
def cedar(data_dir):
    from signver_kit.datasets import open_dataset
    return open_dataset("cedar", data_dir)


def test_cedars_background_tells_everything_and_the_mask_hides_it(cedar):
    some = cedar.subset(cedar.signers[:6])
    found = {kind: background_probe(some.ink((75, 110), kind), some.table, draws=100) for kind in ("raw", "masked", "binarised")}
    assert found["raw"]["background_auc"] > 0.99
    assert found["masked"]["background_auc"] == found["binarised"]["background_auc"] == 0.5
    rest = {"label_shuffle_eer": 0.5, "duplicates_across_splits": 0}
    assert check_probes(found["raw"] | rest) and not check_probes(found["masked"] | rest) and not check_probes(found["binarised"] | rest)


def test_cedars_files_tell_everything(cedar):
    found = file_probe(cedar.subset(cedar.signers[:6]))
    assert found["file_auc"] > 0.99 and found["file_auc_by_property"]["background grey"] > 0.99
    json.dumps(found)


def test_cedar_signers_share_no_picture(cedar):
    some = cedar.subset(cedar.signers[:6]).add_hashes()
    parts = {"train": cedar.signers[:3], "test": cedar.signers[3:6]}
    assert duplicates_across_splits(some, parts)["duplicates_across_splits"] == 0
    assert len(checked_table(some)) == 6 * 48


def test_an_untrained_descriptor_on_cedar_errs_as_an_honest_verifier_does(cedar):
    """On all 55 signers WI-1 is 25 % skilled and 10 % random (test_descriptors); ten references help, and shuffled labels leave nothing."""
    from signver_kit.descriptors import describe_hog
    some = cedar.subset(cedar.signers[:10])
    embeddings = describe_hog(some.ink((96, 192), "masked"))
    found = {(k, kind): eer(*against(wi_scores(some, embeddings, k), kind)[:2]).value for k in (1, 10) for kind in ("skilled", "random")}
    assert 0.12 < found[1, "skilled"] < 0.35 and found[1, "random"] < 0.2
    for k in (1, 10):
        assert found[k, "random"] < found[k, "skilled"]
    for kind in ("skilled", "random"):
        assert found[10, kind] < found[1, kind]
    assert abs(label_shuffle_probe(some, embeddings)["label_shuffle_eer"] - 0.5) < 0.04


# --- the page

def scans(table, seed=0, paper=(240, 240), noise=(2, 2), margin=(12, 12), blur=(0.8, 0.8)):
    """A grey scan a row: a pen stroke on paper, both drawn by one distribution unless the second of a pair, for forged rows, says otherwise."""
    rng = np.random.default_rng(seed)
    found = []
    for forged in (table["kind"] == "skilled").astype(int):
        x = np.linspace(0, 90, 60)
        line = np.column_stack([x, 20 + 9 * np.sin(x / rng.uniform(4, 8) + rng.uniform(0, 6))])
        edge = margin[forged] + rng.integers(0, 6, 2)
        page = np.zeros((40 + 2 * edge[0], 90 + 2 * edge[1]), np.uint8)
        cv2.polylines(page, [np.int32((line + edge[::-1]) * 16)], False, 180, 2, cv2.LINE_AA, 4)
        ink = cv2.GaussianBlur(page, (0, 0), blur[forged]).astype(float)
        grey = rng.normal(paper[forged], 3) - ink + rng.normal(0, noise[forged] * rng.uniform(0.8, 1.25), page.shape)
        found.append(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    return found


@pytest.fixture(scope="module")
def page_table():
    return make_table(24, 5, 5)


def test_page_probe_is_silent_on_one_distribution(page_table):
    found = page_probe(scans(page_table), page_table, draws=200)
    low, high = found["page_auc_ci"]
    assert low <= found["page_auc"] <= high and low < 0.56 and high > 0.44 and 0.4 < found["page_auc"] < 0.6
    assert set(found["page_auc_by_property"]) == set(PAGE_PROPERTIES) | set(PEN_PROPERTIES)
    assert found == page_probe(iter(scans(page_table)), page_table, draws=200), "a generator will do, and the same twice"


@pytest.mark.parametrize("leak, telling, higher", [
    ({"paper": (240, 246)}, "paper", "skilled"), ({"noise": (2, 3)}, "noise", "skilled"), ({"margin": (12, 9)}, "left", "genuine")])
def test_page_probe_finds_a_planted_leak(page_table, leak, telling, higher):
    found = page_probe(scans(page_table, **leak), page_table, draws=200)
    assert found["page_auc_ci"][0] > 0.55 and found["page_auc"] > 0.7
    single = found["page_auc_by_property"][telling]
    assert single < 0.35 if higher == "skilled" else single > 0.65


def test_sharpness_counts_only_when_asked_for(page_table):
    blurred = scans(page_table, noise=(0.4, 0.4), blur=(0.7, 1.5))
    assert page_probe(blurred, page_table, pen=True, draws=200)["page_auc"] > 0.9
    assert page_probe(blurred, page_table, draws=200)["page_auc_by_property"]["sharpness"] > 0.95


def test_page_properties_by_hand():
    grey = np.full((60, 120), 230, np.uint8)
    grey[20:26, 30:100] = 50
    found = page_properties(grey)
    assert [found[name] for name in ("paper", "spread", "noise", "white", "left", "top", "right", "bottom", "contrast", "height", "width")] == [
        230, 0, 0, 0, 30, 20, 20, 34, 180, 60, 120]
    assert abs(found["shade_x"]) < 1e-3 and found["sharpness"] > 0.4
    rng = np.random.default_rng(0)
    noisy = np.clip(np.rint(grey + np.linspace(-6, 6, 120) + rng.normal(0, 4, grey.shape)), 0, 255).astype(np.uint8)
    found = page_properties(noisy)
    assert found["noise"] == pytest.approx(4, rel=0.1) and found["shade_x"] == pytest.approx(12, abs=1.5) and found["shade_y"] == pytest.approx(0, abs=1.5)
    assert found["grain"] == pytest.approx(1, abs=0.1)
    assert page_properties(cv2.GaussianBlur(noisy, (0, 0), 1))["grain"] > 1.2


def test_page_probe_names_a_row_without_ink(page_table):
    pictures = scans(page_table)
    pictures[7] = np.full((50, 80), 240, np.uint8)
    with pytest.raises(NoInk, match="row 7"):
        page_probe(pictures, page_table)
    with pytest.raises(ValueError, match="one item a row"):
        page_probe(scans(page_table)[:-1], page_table)
    genuine = page_table[page_table["kind"] == "genuine"]
    assert page_probe(scans(genuine), genuine)["page_auc"] is None


# --- two piles

def pile(seed, name, signers=24, each=5, shift=0.0, scale=1.0, columns=4):
    rng = np.random.default_rng(seed)
    items = 0.3 * rng.normal(size=(signers, 1, columns)) + rng.normal(size=(signers, each, columns))
    items[..., 0] = scale * items[..., 0] + shift
    return items.reshape(-1, columns), np.repeat([f"{name}{s}" for s in range(signers)], each)


@pytest.mark.parametrize("classifier", ["trees", "linear"])
def test_two_piles_of_one_kind_and_of_two(classifier):
    (a, groups_a), (b, groups_b) = pile(0, "a"), pile(1, "b")
    same = two_sample_auc(a, b, groups_a, groups_b, draws=200, classifier=classifier)
    assert same["two_sample_auc_ci"][0] < 0.5 and same["two_sample_auc"] < 0.6 and same["classifier"] == classifier     # below a half: nothing was found, either
    far, far_groups = pile(1, "b", shift=6, each=7)
    found = two_sample_auc(a, far, groups_a, far_groups, draws=200, classifier=classifier, deals=1)
    assert found["two_sample_auc"] > 0.98 and found["two_sample_auc_ci"][0] > 0.95 and found["two_sample_auc_ci"][1] <= 1
    swapped = two_sample_auc(far, a, far_groups, groups_a, draws=200, classifier=classifier, deals=1)
    assert swapped["two_sample_auc"] > 0.98, "a is found, whichever pile is called a"


def test_trees_see_a_spread_that_no_straight_boundary_does():
    (a, groups_a), (b, groups_b) = pile(0, "a", signers=40), pile(1, "b", signers=40, scale=4)
    trees, linear = (two_sample_auc(a, b, groups_a, groups_b, draws=200, classifier=name, deals=1)["two_sample_auc"] for name in ("trees", "linear"))
    assert trees > 0.75 > 0.65 > linear


def test_many_columns_are_left_to_the_linear_classifier():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 4)
    a, b = rng.normal(size=(40, 200)), rng.normal(size=(40, 200)) + 0.5
    found = two_sample_auc(a, b, groups, groups + 100, draws=200)
    assert found["classifier"] == "linear" and found["two_sample_auc"] > 0.9
    assert two_sample_auc(a[:, :64], b[:, :64], groups, groups + 100, draws=200, folds=2, deals=1)["classifier"] == "trees"


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 6), st.integers(2, 6), st.integers(0, 99))
def test_no_group_is_ever_in_two_folds_and_every_fold_has_both_piles(only_a, only_b, both, folds, seed):
    rng = np.random.default_rng(seed)
    shared = [f"s{i}" for i in range(both)]
    names_a, names_b = [f"a{i}" for i in range(only_a)] + shared, [f"b{i}" for i in range(only_b)] + shared
    groups = np.array([name for name in names_a for _ in range(rng.integers(1, 4))] + [name for name in names_b for _ in range(rng.integers(1, 4))])
    y = np.array([False] * len(groups))
    y[:np.flatnonzero(groups == names_b[0])[0]] = True
    if both:   # shared names stand at the end of a and again at the end of b
        y = np.arange(len(groups)) < np.flatnonzero(groups == "b0")[0]
    fold = _fold_of(y, groups, folds, seed)
    for name in set(groups):
        assert len(set(fold[groups == name])) == 1
    for number in set(fold):
        assert y[fold == number].any() and (~y[fold == number]).any()


def test_a_memorised_signer_does_not_help():
    """Every signer is recognisable, and nothing else differs: rows of a signer in training and test would give an AUC near 1."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(40, 6))
    x = np.repeat(centre, 10, axis=0) + 0.01 * rng.normal(size=(400, 6))
    groups = np.repeat(np.arange(40), 10)
    found = two_sample_auc(x[:200], x[200:], groups[:200], groups[200:], draws=200)
    assert found["two_sample_auc"] < 0.8


@pytest.mark.parametrize("change, rule", [
    (dict(b=np.zeros((40, 3))), "same columns, got 4 and 3"), (dict(b=np.zeros((40, 4, 4))), r"b must be \(N, D\)"),
    (dict(groups_a=np.arange(3)), "one group a row"), (dict(a=np.full((40, 4), np.nan)), "160 NaN"), (dict(groups_b=["x"] * 40), "at least two groups"),
    (dict(classifier="forest"), "auto, trees or linear"), (dict(folds=1), "at least 2")])
def test_two_piles_are_refused_by_name(change, rule):
    rng = np.random.default_rng(0)
    given = dict(a=rng.normal(size=(40, 4)), b=rng.normal(size=(40, 4)), groups_a=np.arange(40) // 4, groups_b=100 + np.arange(40) // 4)
    with pytest.raises(ValueError, match=rule):
        two_sample_auc(**(given | change))
