"""Evidence, weights, verdicts: from a table and a description to decisions."""
import json

import numpy as np
import pytest

from signver_kit import protocols
from signver_kit.descriptors import Description, LocalMap, describe_hog, describe_local
from signver_kit.fusion import fit_matcher, matched, synthetic_matcher, wi_evidence
from signver_kit.images import ink_image
from signver_kit.local import evidence, evidence_names
from signver_kit.matcher import EvidenceModel, Matcher, Verdict, evidence_columns, fit_evidence
from signver_kit.metrics import eer
from signver_kit.synthetic import SyntheticSigners


class Untrained:
    """Describes without a network; with `embed`, HOG stands for the embedding."""

    def __init__(self, embed=True):
        self.embed = embed

    def describe(self, pictures, progress=False):
        ink = np.stack([ink_image(picture, (96, 192)) for picture in pictures])
        return Description(describe_local(ink), describe_hog(ink) if self.embed else None)


@pytest.fixture(scope="module")
def people():
    return SyntheticSigners(10, seed=77, genuine=6, forgeries=4).set


@pytest.fixture(scope="module")
def described(people):
    return Untrained().describe([people.read(i) for i in range(len(people.table))])


@pytest.fixture(scope="module")
def matcher():
    return synthetic_matcher(Untrained(), ks=(1, 3), signers=14, genuine=6, forgeries=4, seed=5, draws=3)


@pytest.mark.parametrize("k", [1, 3])
def test_evidence_of_trials_is_the_evidence_of_their_rows(people, described, k):
    trials, found = wi_evidence(people, described, k, draws=2, seed=3)
    laid_out = protocols.wi_trials(people, k, draws=2, seed=3)
    assert tuple(found) == evidence_names(k, True) and len(trials) == len(laid_out) == len(found["mean"])
    assert (trials.questioned.to_numpy() == laid_out.questioned.to_numpy()).all() and (trials.kind.to_numpy() == laid_out.kind.to_numpy()).all()
    for row in (0, len(trials) // 2, len(trials) - 1):
        references = laid_out.loc[row, [f"reference_{i}" for i in range(k)]].to_numpy(int)
        questioned = [laid_out.questioned[row]]
        alone = evidence(described.maps[references], described.maps[questioned], described.embeddings[references], described.embeddings[questioned])
        assert all(found[name][row] == pytest.approx(alone[name][0], rel=3e-3, abs=2e-3) for name in found)


def test_without_embeddings_only_local_evidence(people, described):
    bare = Description(described.maps)
    _, found = wi_evidence(people, bare, 1, draws=1)
    assert tuple(found) == evidence_names(1)
    assert {model.kind for model in fit_matcher((people, bare), ks=(1,), draws=1).models} == {"local"}


def test_weighed_evidence_beats_the_plain_mean_on_signers_it_was_not_fitted_on(people, described, matcher):
    protocols.assert_disjoint(fitted=[f"seed 5: {s}" for s in range(14)], tested=[f"seed 77: {s}" for s in people.signers])
    trials, found = wi_evidence(people, described, 3, draws=4)
    fused = matched(trials, found, matcher, "fused")

    def error(scores, kind):
        return eer(*protocols.against(scores, kind)[:2]).value

    assert error(fused, "skilled") < error(trials, "skilled") and error(fused, "skilled") < 0.25 and error(fused, "random") <= error(trials, "random") + 0.01
    assert (fused.distance >= 0).all() and np.isfinite(fused.llr).all()
    order = np.argsort(fused.distance.to_numpy(), kind="stable")
    assert (np.diff(fused.llr.to_numpy()[order]) <= 1e-9).all(), "the likelihood ratio falls with the distance"


def test_verdicts(people, described, matcher):
    own = np.flatnonzero((people.table.signer == people.signers[0]) & (people.table.kind == "genuine"))
    other = np.flatnonzero((people.table.signer == people.signers[1]) & (people.table.kind == "genuine"))
    verdict, stranger = matcher.verify(described[int(own[4])], described[own[:3]]), matcher.verify(described[int(other[0])], described[own[:3]])
    assert isinstance(verdict, Verdict) and bool(verdict) == (verdict.distance <= verdict.threshold)
    assert not stranger and stranger.distance > verdict.distance and stranger.llr["random"] < verdict.llr["random"]
    assert verdict.kind == "fused" and len(verdict.per_reference) == 3 and set(verdict.fmr) == set(verdict.llr) == {"skilled", "random"}
    model = matcher.model_for(3, "fused")
    assert verdict.threshold == model.threshold and verdict.fmr["skilled"] == model.points["skilled"]["at_threshold"]["fmr"]
    text = str(stranger)
    assert "rejected" in text and "likelihood ratio" in text and "support to the proposition" in text and "genuine, " not in text.split("\n")[0]
    assert "% genuine" not in text, "never a probability of being genuine"
    lenient = matcher.verify(described[int(other[0])], described[own[:3]], threshold=1e6)
    assert lenient and lenient.fmr is None and "on the signers it was chosen on" not in str(lenient), "a threshold of one's own has no known cost"


def test_kinds_and_numbers_of_references(described, matcher):
    assert matcher.model_for(1).k == 1 and matcher.model_for(2).k == 3 and matcher.model_for(9).k == 3
    assert matcher.verify(described[0], described[[1]]).kind == "fused"
    assert matcher.verify(Description(described.maps)[0], Description(described.maps)[[1, 2, 3]]).kind == "local"
    assert Matcher(models=matcher.models, kind="global").verify(described[0], described[[1]]).kind == "global"
    with pytest.raises(ValueError, match="one questioned signature at a time"):
        matcher.verify(described[:2], described[[3]])
    with pytest.raises(ValueError, match="load()"):
        Matcher().verify(described[0], described[[1]])
    with pytest.raises(ValueError, match="from 0 up, got -1"):
        matcher.verify(described[0], described[[1]], threshold=-1)
    with pytest.raises(ValueError, match="kind must be one of local, global, fused, got 'both'"):
        Matcher(kind="both")


def test_save_and_load(tmp_path, described, matcher):
    path = matcher.save(tmp_path / "new" / "matcher.json", {"note": "test"})
    again = Matcher().load(path)
    assert again.card["note"] == "test" and again.card["fitted_on"] == ["synthetic"]
    assert str(again.verify(described[0], described[[1, 2, 3]])) == str(matcher.verify(described[0], described[[1, 2, 3]]))
    assert json.loads(path.read_text())["models"][0]["kind"] == "local"
    with pytest.raises(FileNotFoundError, match="gone.json"):
        Matcher().load(tmp_path / "gone.json")


def test_the_same_signers_give_the_same_matcher():
    once, again, other = (synthetic_matcher(Untrained(), ks=(1, 2), signers=4, genuine=4, forgeries=2, seed=seed, draws=2) for seed in (5, 5, 6))
    told = [json.dumps([model.to_dict() for model in made.models]) for made in (once, again, other)]
    assert told[0] == told[1] != told[2]


def test_several_sets_of_signers_are_weighed_together(people, described):
    half = len(people.table) // 2
    parts = [(people.table.iloc[:half], described[:half]), (people.table.iloc[half:], described[half:])]
    model = fit_matcher(parts, ks=(1,), kinds=("fused",), draws=1).models[0]
    assert model.points["skilled"]["genuine"] == 10 * 5  # ten signers, one draw, five questioned


def toy(count, seed=0):
    rng = np.random.default_rng(seed)
    kinds = np.repeat(["genuine", "skilled", "random"], count)
    values = rng.normal(np.repeat([0.0, 1.0, 2.0], count), 0.4)
    return {name: np.exp(values + 0.1 * rng.normal(size=len(kinds))) for name in evidence_columns("local", 1)}, kinds, np.tile(np.arange(10), 3 * count // 10)


def test_skilled_and_random_forgeries_count_alike():
    found, kinds, signers = toy(200)
    more = np.r_[np.arange(600), np.tile(np.arange(400, 600), 9)]
    few = fit_evidence("local", 1, found, kinds, signers)
    many = fit_evidence("local", 1, {name: value[more] for name, value in found.items()}, kinds[more], signers[more])
    assert np.asarray(many.weigh.weights) == pytest.approx(np.asarray(few.weigh.weights), abs=0.35)
    assert many.threshold == pytest.approx(few.threshold, rel=0.3)


def test_a_set_without_forgeries_of_one_kind():
    found, kinds, signers = toy(100)
    for left_out in ("skilled", "random"):
        rows = kinds != left_out
        model = fit_evidence("local", 1, {name: value[rows] for name, value in found.items()}, kinds[rows], signers[rows])
        assert set(model.calibrated) == set(model.points) == {"skilled", "random"} - {left_out} and model.threshold > 0
    with pytest.raises(ValueError, match="genuine trials and forgeries"):
        fit_evidence("local", 1, found, np.repeat("genuine", 300), signers)
    assert EvidenceModel.from_dict(json.loads(json.dumps(model.to_dict()))).to_dict() == json.loads(json.dumps(model.to_dict()))


def test_descriptions():
    maps = LocalMap(np.ones((3, 2, 4, 5), np.float32), np.ones((3, 2, 4), np.float32))
    whole = Description(maps, np.eye(3, dtype=np.float32))
    assert len(whole[1]) == 1 and len(whole[np.array([True, False, True])]) == 2 and len(Description.join([whole, whole[:2]])) == 5
    with pytest.raises(ValueError, match="one row for each of the 3 maps"):
        Description(maps, np.eye(2))
    with pytest.raises(ValueError, match="all have embeddings, or none"):
        Description.join([whole, Description(maps)])


def test_one_set_of_signers_in_a_list(people, described):
    alone, listed = (fit_matcher(parts, ks=(1,), kinds=("local",), draws=1) for parts in ((people, described), [(people, described)]))
    assert [model.to_dict() for model in alone.models] == [model.to_dict() for model in listed.models]


def test_wd_trials_weighed(people, described, matcher):
    from signver_kit.comparisons import wd_metrics, wd_scores, wd_splits
    from signver_kit.fusion import wd_matched

    development, options = people.signers[:4], dict(n=3, splits=2, genuine=3, signers=people.signers[4:])
    svm = wd_scores(people.table, described.embeddings, development, **options)
    weighed = wd_matched(svm.sample(frac=1, random_state=0), people.table, described, matcher, "fused", development, **options).sort_index()
    assert weighed.drop(columns="distance").equals(svm.drop(columns="distance")) and np.isfinite(weighed.distance).all()
    split = next(iter(wd_splits(people.table, development, **options)))
    row = svm[(svm.split == 0) & (svm.signer == people.signers[4])].index[0]
    found = evidence(described.maps[split.references[people.signers[4]]], described.maps[[svm.questioned[row]]],
                     described.embeddings[split.references[people.signers[4]]], described.embeddings[[svm.questioned[row]]])
    assert weighed.distance[row] == pytest.approx(-matcher.model_for(3, "fused").weighed(found)[0], abs=0.05)
    assert 0 <= wd_metrics(weighed, draws=100)["wd3_global_eer"] < 0.35


def test_identify(people, described, matcher):
    from signver_kit.matcher import identify

    own = {s: np.flatnonzero((people.table.signer == s) & (people.table.kind == "genuine")) for s in people.signers}
    enrolled = {s: described[rows[:3]] for s, rows in own.items()}
    right = 0
    for s, rows in own.items():
        found = identify(matcher, described[int(rows[3])], enrolled, shortlist=5)
        assert len(found) == 5 and [d for _, d in found] == sorted(d for _, d in found)
        assert found[0][1] == pytest.approx(matcher.verify(described[int(rows[3])], enrolled[found[0][0]]).distance)
        right += found[0][0] == s
    assert right >= 8  # of 10
    bare = Description(described.maps)
    assert len(identify(matcher, bare[0], {s: bare[rows[1:3]] for s, rows in own.items()}, shortlist=3)) == 3
    with pytest.raises(ValueError, match="at least one enrolled"):
        identify(matcher, described[0], {})
