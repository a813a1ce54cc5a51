"""WD-n against a slow and obvious loop, pairs counted by hand, golden and shuffled embeddings, and nobody on both sides."""
import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from signver_kit.comparisons import (GAMMA, SignerSvm, pool_wd, signer_errors, user_eer, user_eers, wd_folds, wd_metrics, wd_scores, wd_splits, wi_pairs,
                                     wi_pairs_metrics, wilson)
from signver_kit.datasets import signer_folds
from signver_kit.metrics import bootstrap_signers, eer
from signver_kit.protocols import SignersOverlap, against, freeze_threshold, hardest_pairs, summarise, wi_scores


def make_table(signers=8, genuine=7, skilled=4):
    return pd.DataFrame([{"path": f"{s}/{kind}/{i}", "signer": str(s), "kind": kind, "index": i}
                         for s in range(signers) for kind, count in (("genuine", genuine), ("skilled", skilled)) for i in range(count)])


def make_embeddings(table, seed=0, noise=0.5, miss=0.5, dimensions=12):
    rng = np.random.default_rng(seed)
    centre = {signer: rng.normal(size=dimensions) for signer in sorted(set(table["signer"]))}
    return np.stack([centre[s] + miss * (kind == "skilled") * rng.normal(size=dimensions) + noise * rng.normal(size=dimensions)
                     for s, kind in zip(table["signer"], table["kind"])])


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(scope="module")
def embeddings(table):
    return make_embeddings(table)


DEVELOPMENT = ["5", "6", "7"]
SMALL = {"n": 4, "splits": 3, "genuine": 3}


@pytest.fixture(scope="module")
def scores(table, embeddings):
    return wd_scores(table, embeddings, DEVELOPMENT, **SMALL, gamma=0.05)


# --- WD-n

def slow_distances(references, negatives, questioned, C, gamma):
    "The protocol, word by word: scale by the deviation of the training rows, an RBF kernel entry by entry, the skew as the class's weight."
    train = np.concatenate([references, negatives])
    deviation = np.array([np.sqrt(np.mean((column - column.mean()) ** 2)) or 1.0 for column in train.T])
    def kernel(a, b):
        return np.array([[np.exp(-gamma * sum(((x - y) / d) ** 2 for x, y, d in zip(row, other, deviation))) for other in b] for row in a])
    svm = SVC(C=C, kernel="precomputed", class_weight={1: len(negatives) / len(references)})
    svm.fit(kernel(train, train), [1] * len(references) + [-1] * len(negatives))
    return -svm.decision_function(kernel(questioned, train))


@pytest.mark.parametrize("C, gamma", [(1.0, GAMMA), (1.0, 0.05), (10.0, 0.5)])
def test_scores_are_those_of_the_slow_and_obvious_way(table, embeddings, C, gamma):
    options = {"n": 4, "splits": 2, "genuine": 3, "seed": 7}
    scores = wd_scores(table, embeddings, DEVELOPMENT, **options, C=C, gamma=gamma)
    for split in wd_splits(table, DEVELOPMENT, **options):
        for signer in ("0", "3"):
            own = scores[(scores["signer"] == signer) & (scores["split"] == split.number)]
            slow = slow_distances(embeddings[split.references[signer]], embeddings[split.negatives], embeddings[own["questioned"]], C, gamma)
            np.testing.assert_allclose(own["distance"], slow, atol=2e-3 * C)    # libsvm stops at 1e-3
            assert set(own["reference"]) <= set(split.references[signer])


def test_a_constant_feature_is_left_alone(table, embeddings):
    wide = np.column_stack([embeddings, np.full(len(table), 3.0)])
    one, other = (wd_scores(table, x, DEVELOPMENT, **SMALL)["distance"] for x in (embeddings, wide))
    np.testing.assert_allclose(one, other, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(signers=st.integers(3, 6), n=st.integers(1, 4), genuine=st.integers(1, 3), skilled=st.integers(0, 3), strangers=st.integers(1, 3), negatives=st.integers(1, 9), seed=st.integers(0, 99))
def test_trials_are_wd_n(signers, n, genuine, skilled, strangers, negatives, seed):
    table = make_table(signers, 7, skilled)
    scores = wd_scores(table, make_embeddings(table), ["0"], n, 2, seed, genuine=genuine, strangers=strangers, negatives=negatives, gamma=0.05)
    users = signers - 1
    wanted = {"genuine": 2 * users * genuine, "skilled": 2 * users * skilled, "random": 2 * users * (users - 1) * min(strangers, genuine)}
    assert scores.groupby("kind").size().to_dict() == {kind: count for kind, count in wanted.items() if count}
    signer, kind = table["signer"].to_numpy(), table["kind"].to_numpy()
    questioned = scores["questioned"].to_numpy()
    assert "0" not in set(scores["signer"]) and "0" not in set(signer[questioned]), "no development signer is tested"
    own = signer[questioned] == scores["signer"]
    assert (own == (scores["kind"] != "random")).all() and ((kind[questioned] == "skilled") == (scores["kind"] == "skilled")).all()
    assert (signer[scores["reference"]] == scores["signer"]).all() and (kind[scores["reference"]] == "genuine").all()
    for split in wd_splits(table, ["0"], n, 2, seed, genuine=genuine, negatives=negatives):
        now = scores[scores["split"] == split.number]
        assert set(signer[split.negatives]) == {"0"} and (kind[split.negatives] == "genuine").all() and len(split.negatives) == min(7, negatives)
        for user, rows in split.references.items():
            assert len(set(rows)) == n and not set(rows) & set(now["questioned"][now["signer"] == user]), "a reference is never questioned"


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_row_order_does_not_matter(seed):
    table = make_table(6, 6, 3)
    embeddings = make_embeddings(table)
    order = np.random.default_rng(seed).permutation(len(table))
    for measure in (lambda t, x: wd_scores(t, x, ["4", "5"], n=3, splits=2, genuine=2), lambda t, x: wi_pairs(t, x, distance="euclidean")):
        one, other = measure(table, embeddings), measure(table.iloc[order], embeddings[order])
        columns = ["signer", "kind", "draw", "path", "reference_path"]
        assert one[columns].equals(other[columns])
        np.testing.assert_allclose(one["distance"], other["distance"], atol=1e-9)


def test_seeds(table, embeddings, scores):
    again = wd_scores(table, embeddings, DEVELOPMENT, **SMALL, gamma=0.05)
    assert again.equals(scores)
    longer = wd_scores(table, embeddings, DEVELOPMENT, **(SMALL | {"splits": 4}), gamma=0.05)
    assert longer[longer["split"] < 3].reset_index(drop=True).equals(scores), "the first splits of a longer run are the shorter run"
    other = wd_scores(table, embeddings, DEVELOPMENT, **SMALL, gamma=0.05, seed=1)
    assert not np.allclose(other["distance"], scores["distance"])


def test_perfect_and_meaningless_embeddings():
    table = make_table(16, 14, 8)
    development = [str(s) for s in range(10, 16)]
    perfect = wd_metrics(wd_scores(table, make_embeddings(table, noise=0.01, miss=3.0, dimensions=30), development, n=6, splits=2, genuine=6, gamma=0.01), draws=100)
    assert perfect["wd6_global_eer"] == perfect["wd6_user_eer"] == perfect["wd6_random_eer"] == 0
    rng = np.random.default_rng(0)
    shuffled = table.assign(kind=np.concatenate([rng.permutation(own.to_numpy()) for _, own in table.groupby("signer", sort=False)["kind"]]))
    shuffled["index"] = np.arange(len(table))
    lot = wd_metrics(wd_scores(shuffled, make_embeddings(table, miss=1.0), development, n=4, splits=4, genuine=6), draws=200)
    assert abs(lot["wd4_global_eer"] - 0.5) < 0.1 and abs(lot["wd4_user_eer"] - 0.5) < 0.1


def test_wi_tools_read_wd_scores(table, embeddings, scores):
    wi = wi_scores(table, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), k=2, draws=2)
    assert set(scores) == set(wi) | {"split"} and (scores["draw"] == scores["split"]).all()
    assert np.isfinite(freeze_threshold(scores)) and len(hardest_pairs(scores, 2)) == 6
    assert summarise(scores, 0.0, draws=50)["frr"] == pytest.approx(wd_metrics(scores, draws=50)["wd4_frr"])


def test_bad_input_is_refused(table, embeddings):
    for arguments, options, error, message in [
            ((table, embeddings, DEVELOPMENT), {"signers": ["1", "5"]}, SignersOverlap, "exploitation and development must share no signer"),
            ((table, embeddings, ["9"]), {}, ValueError, "9 not in it"), ((table, embeddings, []), {}, ValueError, "0 for development"),
            ((table, embeddings, [str(s) for s in range(8)]), {}, ValueError, "0 to test"), ((table, embeddings, "7"), {}, ValueError, "several signer ids"),
            ((table, embeddings[1:], DEVELOPMENT), {}, ValueError, "one for each of the table's"), ((table, embeddings * np.nan, DEVELOPMENT), {}, ValueError, "finite"),
            ((table, embeddings, DEVELOPMENT), {"n": 5, "genuine": 3}, ValueError, "too few"), ((table, embeddings, DEVELOPMENT), {"n": 0}, ValueError, "whole numbers"),
            ((table, embeddings, DEVELOPMENT), {"splits": 0}, ValueError, "whole numbers"), ((table, embeddings, DEVELOPMENT), {"gamma": 0.0}, ValueError, "positive"),
            ((pd.concat([table, table[:1]]), embeddings, DEVELOPMENT), {}, ValueError, "must be there once")]:
        with pytest.raises(error, match=message):
            wd_scores(*arguments, **(SMALL | options))
    no_genuine = table[~((table["signer"] == "7") & (table["kind"] == "genuine"))]
    with pytest.raises(ValueError, match="7 \\(development\\) has none"):
        list(wd_splits(no_genuine, DEVELOPMENT, **SMALL))


# --- figures

def test_figures_by_hand(scores):
    found = wd_metrics(scores, draws=100)
    splits = [own for _, own in scores.groupby("split")]
    for impostors, name in (("skilled", "global"), ("random", "random")):
        each = [eer(*against(own, impostors)[:2]).value for own in splits]
        assert found[f"wd4_{name}_eer"] == pytest.approx(np.mean(each)) and found[f"wd4_{name}_eer_std"] == pytest.approx(np.std(each))
    users = [np.mean([eer(*against(user, "skilled")[:2]).value for _, user in own.groupby("signer")]) for own in splits]
    assert found["wd4_user_eer"] == pytest.approx(np.mean(users)) and found["wd4_user_eer_std"] == pytest.approx(np.std(users))
    kind, accepted = scores["kind"], scores["distance"] <= 0
    assert found["wd4_frr"] == pytest.approx((~accepted[kind == "genuine"]).mean())
    assert found["wd4_far_skilled"] == pytest.approx(accepted[kind == "skilled"].mean()) and found["wd4_far_random"] == pytest.approx(accepted[kind == "random"].mean())
    assert found["wd4_trials_genuine"] == 5 * 3 * 3 and found["wd4_signers"] == 5 and found["wd4_splits"] == 3
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_interval_is_the_plain_bootstrap(scores):
    def plain(y, distance, split):
        return np.mean([eer(y[split == s], distance[split == s]).value for s in np.unique(split)])
    y, distance, signers = against(scores, "skilled")
    split = scores.loc[scores["kind"] != "random", "split"].to_numpy()
    assert wd_metrics(scores, draws=60)["wd4_global_eer_ci"] == pytest.approx(list(bootstrap_signers(plain, signers, y, distance, split, draws=60)))


def test_a_frozen_threshold_moves_the_rates_only(scores):
    zero, strict = wd_metrics(scores, draws=50), wd_metrics(scores, threshold=-0.5, draws=50)
    assert strict["wd4_frr"] > zero["wd4_frr"] and strict["wd4_far_skilled"] <= zero["wd4_far_skilled"] and strict["wd4_global_eer"] == zero["wd4_global_eer"]
    assert wd_metrics(scores, threshold=1e9, draws=50)["wd4_far_random"] == 1


def test_figures_that_cannot_be(table, embeddings, scores):
    without = wd_metrics(scores[scores["kind"] != "skilled"], draws=50)
    assert "wd4_global_eer" not in without and "wd4_user_eer" not in without and "wd4_far_skilled" not in without and without["wd4_trials_skilled"] == 0
    alone = wd_metrics(wd_scores(table, embeddings, DEVELOPMENT, **SMALL, signers=["1"]), draws=50)
    assert alone["wd4_global_eer_ci"] is None and alone["wd4_frr_ci"] is None and "wd4_random_eer" not in alone
    for wrong, threshold in ((scores.drop(columns="split"), 0.0), (scores, np.nan), (pd.concat([scores, scores.assign(k=5)]), 0.0)):
        with pytest.raises(ValueError, match="WD figures need"):
            wd_metrics(wrong, threshold)


def test_folds(table, embeddings):
    folds = signer_folds(sorted(set(table["signer"])), k=4, validation=1)
    pooled = wd_folds(table, embeddings, folds, **SMALL)
    assert set(pooled["signer"]) == set(table["signer"]) and pooled["fold"].nunique() == 4
    for number, fold in enumerate(folds):
        own = wd_scores(table, embeddings, [*fold.train, *fold.validation], **SMALL, signers=fold.test)
        assert pooled[pooled["fold"] == number]["distance"].tolist() == own["distance"].tolist(), "pooling leaves distances as they are"
    per_fold = wd_folds(table, [embeddings * (1 + fold) for fold in range(4)], folds, **SMALL)
    np.testing.assert_allclose(per_fold["distance"], pooled["distance"], atol=1e-9)    # each machine scales its features
    assert wd_metrics(pooled, draws=50)["wd4_signers"] == 8
    with pytest.raises(ValueError, match="one array of embeddings a fold"):
        wd_folds(table, [embeddings], folds, **SMALL)
    with pytest.raises(SignersOverlap):
        pool_wd([own, own])


# --- thresholds and errors of single signers

def test_user_eers_ignore_a_users_scale(scores):
    shifted = scores.assign(distance=scores["distance"] * 3 + scores["signer"].astype(int))
    assert user_eers(shifted)["eer"].tolist() == pytest.approx(user_eers(scores)["eer"].tolist())
    assert eer(*against(shifted, "skilled")[:2]).value > eer(*against(scores, "skilled")[:2]).value
    assert len(user_eers(scores)) == 5 * 3 and len(user_eers(scores.drop(columns="split"))) == 5
    found = user_eer(scores, "random", prefix="x_", draws=100)
    assert found["x_user_eer"] == pytest.approx(user_eers(scores, "random")["eer"].mean()) and found["x_user_eer_signers"] == 5
    some = scores[~((scores["signer"] == "0") & (scores["kind"] == "skilled"))]
    assert user_eer(some, draws=50)["user_eer_signers"] == 4
    with pytest.raises(ValueError, match="no signer with both"):
        user_eers(pd.concat([scores[(scores["signer"] == "0") & (scores["kind"] == "genuine")], scores[(scores["signer"] == "1") & (scores["kind"] == "skilled")]]))


def test_user_eers_keep_apart_signers_whose_names_begin_alike(scores):
    renamed = scores.drop(columns="split").replace({"signer": {"1": "10", "2": "11", "3": "1"}})
    assert sorted(user_eers(renamed)["signer"]) == ["0", "1", "10", "11", "4"]
    assert sorted(user_eers(renamed)["eer"]) == pytest.approx(sorted(user_eers(scores.drop(columns="split"))["eer"]))
    assert user_eer(renamed, draws=50)["user_eer_signers"] == 5


@given(st.integers(0, 40), st.integers(1, 40))
def test_wilson(errors, n):
    errors = min(errors, n)
    low, high = wilson(errors / n, n)
    assert 0 <= low <= errors / n <= high <= 1 and high - low > 0
    for end in (low, high):    # by definition: the ends are 1.96 of *their own* standard errors away
        if 0 < end < 1:
            assert abs(errors / n - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / n), rel=1e-4, abs=1e-9)
    for wrong in ((1.5, 10), (0.5, 0), (np.nan, 5)):
        with pytest.raises(ValueError, match="Wilson"):
            wilson(*wrong)


def test_signer_errors_by_hand():
    trials = pd.DataFrame([("b", "genuine", 0, 0.1), ("b", "genuine", 1, 0.9), ("b", "genuine", 0, 0.2), ("b", "skilled", 2, 0.3), ("a", "genuine", 3, 0.4), ("a", "random", 0, 0.8)],
                          columns=["signer", "kind", "questioned", "distance"])
    found = signer_errors(trials, 0.5).set_index("signer")
    assert found.index.tolist() == ["a", "b"]
    assert found.loc["b", "frr"] == pytest.approx(1 / 3) and found.loc["b", "frr_n"] == 2, "two different signatures in three trials"
    assert found.loc["b", "far_skilled"] == 1 and np.isnan(found.loc["b", "far_random"]) and found.loc["b", "far_random_n"] == 0
    assert found.loc["a", "frr"] == found.loc["a", "far_random"] == 0 < found.loc["a", "far_random_hi"] and np.isnan(found.loc["a", "far_skilled_hi"])
    with pytest.raises(ValueError, match="threshold"):
        signer_errors(trials, np.nan)


# --- WI-pairs

def test_pairs_are_all_pairs(table, embeddings):
    pairs = wi_pairs(table, embeddings, distance="euclidean")
    for signer, own in pairs.groupby("signer"):
        rows = np.flatnonzero((table["signer"] == signer) & (table["kind"] == "genuine"))
        genuine, forged = (own[own["kind"] == kind] for kind in ("genuine", "skilled"))
        assert {frozenset(pair) for pair in zip(genuine["reference"], genuine["questioned"])} == {frozenset(pair) for pair in combinations(rows, 2)} and len(genuine) == 21
        assert len(forged) == 21 and not forged.duplicated(["reference", "questioned"]).any()
        assert set(forged["reference"]) <= set(rows) and (table["kind"].to_numpy()[forged["questioned"]] == "skilled").all()
        assert (table["signer"].to_numpy()[forged["questioned"]] == signer).all()
    np.testing.assert_allclose(pairs["distance"], np.linalg.norm(embeddings[pairs["reference"]] - embeddings[pairs["questioned"]], axis=1))


def test_cedar_has_276_of_each():
    table = make_table(2, 24, 24)
    assert wi_pairs(table, make_embeddings(table)).groupby(["signer", "kind"]).size().tolist() == [276] * 4
    few = make_table(1, 8, 2)
    assert wi_pairs(few, make_embeddings(few)).groupby("kind").size().to_dict() == {"genuine": 28, "skilled": 16}, "all there are"


def test_pairs_from_a_matrix_and_from_a_function(table, embeddings):
    matrix = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)
    one = wi_pairs(table, embeddings, distance="euclidean", signers=["1", "2"])
    for other in (wi_pairs(table, matrix, distance="precomputed", signers=["1", "2"]),
                  wi_pairs(table, embeddings, distance=lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=2), signers=["1", "2"])):
        assert one.drop(columns="distance").equals(other.drop(columns="distance"))
        np.testing.assert_allclose(one["distance"], other["distance"], atol=1e-9)
    assert not wi_pairs(table, matrix, seed=1, distance="precomputed")["questioned"].equals(wi_pairs(table, matrix, distance="precomputed")["questioned"])


def test_pairs_refuse(table, embeddings):
    for rows, x, options, message in [
            (table, embeddings, {"distance": "precomputed"}, "matrix of all distances"), (table, embeddings[1:], {}, "one embedding a row"), (table, embeddings, {"distance": "taxi"}, "must be one of"),
            (table[table["kind"] == "genuine"], embeddings[table["kind"] == "genuine"], {}, "and a forgery"), (table, embeddings, {"signers": ["99"]}, "99 has 0 and 0"),
            (table, embeddings, {"distance": lambda a, b: np.zeros(3)}, "one finite distance"), (table, embeddings, {"signers": []}, "at least one")]:
        with pytest.raises(ValueError, match=message):
            wi_pairs(rows, x, **options)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=30).filter(lambda t: len({a for a, _ in t}) == 2))
def test_best_threshold_is_the_best_of_all(trials):
    y, distance = np.array([a for a, _ in trials]), np.array([float(b) for _, b in trials])
    scores = pd.DataFrame({"signer": "1", "kind": np.where(y, "genuine", "skilled"), "distance": distance})
    found = wi_pairs_metrics(scores)
    every = [((distance[y] <= t).mean() + (distance[~y] > t).mean()) / 2 for t in [-1.0, *distance]]
    assert found["as_published_accuracy"] == pytest.approx(max(every)) and found["as_published_accuracy"] >= 0.5
    assert found["as_published_far"] == (distance[~y] <= found["as_published_threshold"]).mean()
    assert found["as_published_frr"] == pytest.approx((distance[y] > found["as_published_threshold"]).mean())
    assert all(name.startswith("as_published_") for name in found) and json.loads(json.dumps(found)) == found


def test_an_svm_of_one_signer():
    rng = np.random.default_rng(0)
    svm = SignerSvm(gamma=0.1).fit(rng.normal(3, 1, (8, 5)), rng.normal(0, 1, (80, 5)))
    assert (svm.distance(rng.normal(3, 0.3, (20, 5))) < 0).all() and (svm.distance(rng.normal(0, 0.3, (20, 5))) > 0).all()
    assert svm.distance(np.full(5, 3.0)).shape == (1,)
    for wrong in ({"C": 0}, {"gamma": -1}):
        with pytest.raises(ValueError, match="positive"):
            SignerSvm(**wrong)
