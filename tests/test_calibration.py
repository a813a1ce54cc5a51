"""Likelihood ratios against ratios known on paper, bounds against a plain loop, and what must be refused."""
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from signver_kit.calibration import (VERBAL_SCALE, Calibrator, errors_at, llr_bounds, llr_metrics, operating_points, reliability, tippett,
                                     verbal_scale)
from signver_kit.metrics import cllr, eer, far_frr, fnmr_at_fmr, min_cllr, threshold_at_fmr


def bells(genuine, impostors, seed=0, centres=(1.0, 2.0), spread=0.5):
    rng = np.random.default_rng(seed)
    return np.repeat([1, 0], [genuine, impostors]), np.concatenate([rng.normal(centres[0], spread, genuine), rng.normal(centres[1], spread, impostors)])


# --- the calibrator

@pytest.mark.parametrize("genuine, impostors", [(20000, 20000), (4000, 40000), (40000, 4000)])
def test_learns_the_line_known_on_paper_whatever_the_proportions(genuine, impostors):
    y, distance = bells(genuine, impostors)
    calibrator = Calibrator().fit(y, distance)
    assert calibrator.weights[0] == pytest.approx(-4, abs=0.15) and calibrator.intercept == pytest.approx(6, abs=0.2)
    true = 6 - 4 * distance
    assert cllr(y, calibrator.llr(distance, bounded=False)) <= cllr(y, true) + 1e-6, "fitted on these trials: no line costs less"
    assert cllr(y, calibrator.llr(distance)) - min_cllr(y, distance) < 0.01


@pytest.mark.parametrize("ridge", [0.5, 1.0, 20.0])
def test_agrees_with_scikit_learn(ridge):
    y, one = bells(300, 900, seed=3)
    scores = np.column_stack([one, one + np.random.default_rng(4).normal(0, 0.4, one.size)])
    calibrator = Calibrator(names=("a", "b"), directions=(0, 0), ridge=ridge).fit(y, scores)
    weight = np.where(y == 1, 1 / 300, 1 / 900) / 2
    centre, spread = weight @ scores, np.sqrt(weight @ (scores - weight @ scores) ** 2)
    theirs = LogisticRegression(C=1200 / ridge, tol=1e-10, max_iter=5000).fit((scores - centre) / spread, y, sample_weight=weight)
    np.testing.assert_allclose(calibrator.llr(scores, bounded=False), theirs.decision_function((scores - centre) / spread), atol=1e-4)


def test_signers_weigh_alike():
    y, distance = bells(200, 200, seed=1)
    signer = np.tile(np.arange(20), 20)
    again = np.concatenate([np.arange(400), np.flatnonzero(signer == 3).repeat(9)])    # one signer's trials ten times over
    plain, repeated = Calibrator(ridge=0).fit(y, distance, signer), Calibrator(ridge=0).fit(y[again], distance[again], signer[again])
    np.testing.assert_allclose(plain.weights, repeated.weights, rtol=1e-6)
    assert abs(Calibrator(ridge=0).fit(y[again], distance[again]).weights[0] - plain.weights[0]) > 1e-3, "unnamed, it does matter"


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100), seed=st.integers(0, 50))
def test_units_of_the_scores_do_not_matter(scale, shift, seed):
    y, distance = bells(40, 40, seed)
    one, other = Calibrator().fit(y, distance), Calibrator().fit(y, scale * distance + shift)
    np.testing.assert_allclose(one.llr(distance), other.llr(scale * distance + shift), atol=1e-5)


@given(st.integers(0, 200), st.integers(3, 60), st.integers(3, 60))
def test_llr_falls_with_distance_and_stays_within_bounds(seed, genuine, impostors):
    y, distance = bells(genuine, impostors, seed, centres=(0.0, 3.0))
    calibrator = Calibrator().fit(y, distance)
    llr = calibrator.llr(np.linspace(-50, 50, 101))
    assert (np.diff(llr) <= 0).all() and llr.max() <= np.log(impostors + 1) and llr.min() >= -np.log(genuine + 1)
    assert calibrator.bounds[0] <= 0 <= calibrator.bounds[1]


def test_separated_trials_give_finite_ratios():
    calibrator = Calibrator().fit([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9])
    assert np.isfinite([*calibrator.weights, calibrator.intercept]).all() and calibrator.llr(-1e6) <= np.log(3)


def test_fusion_uses_what_each_column_knows():
    rng = np.random.default_rng(0)
    y = np.repeat([1, 0], 3000)
    variation = rng.normal(0, 1, 6000)
    distance = np.where(y == 1, 0.0, 1.0) + variation + 0.5 * rng.normal(size=6000)    # unsteady signers have large distances
    alone = Calibrator().fit(y, distance)
    fused = Calibrator(names=("distance", "variation"), directions=(-1, 0)).fit(y, np.column_stack([distance, variation]))
    assert fused.weights == pytest.approx([-4, 4], abs=0.4)
    assert cllr(y, fused.llr(np.column_stack([distance, variation]))) < cllr(y, alone.llr(distance)) - 0.15


def test_similarities_are_refused_and_welcome_when_declared():
    y, distance = bells(50, 50)
    with pytest.raises(ValueError, match="distance is a distance, so the llr must fall"):
        Calibrator().fit(y, -distance)
    similar = Calibrator(names="similarity", directions=[1]).fit(y, -distance)
    np.testing.assert_allclose(similar.llr(-distance), Calibrator().fit(y, distance).llr(distance), atol=1e-9)
    with pytest.raises(ValueError, match="so the llr must rise"):
        Calibrator(names="similarity", directions=[1]).fit(y, distance)


@pytest.mark.parametrize("arguments, message", [
    ({"impostors": "both"}, "skilled or random"), ({"ridge": -1}, "ridge must be 0 or more"), ({"names": ("a", "a")}, "names must differ"),
    ({"names": ("a", "b"), "directions": (-1,)}, "a direction each"), ({"directions": (2,)}, "-1, 0 or 1"), ({"names": ()}, "names must differ")])
def test_settings_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Calibrator(**arguments)


@pytest.mark.parametrize("y, scores, message", [
    ([1, 1], [0.1, 0.2], "both classes"), ([1, 0], [0.1, np.nan], "finite"), ([1, 0], [[0.1, 1], [0.2, 2]], "as many columns"), ([1, 0, 0], [0.1, 0.2], "one entry a trial"),
    ([1, 0], [0.5, 0.5], "must vary"), ([], [], r"\(N,\) or \(N, M\)"), ([1, 2], [0.1, 0.2], "1 \\(genuine\\) or 0")])
def test_bad_trials_are_refused(y, scores, message):
    with pytest.raises(ValueError, match=message):
        Calibrator().fit(y, scores)


def test_signers_must_fit_and_fitting_comes_first():
    with pytest.raises(ValueError, match="one signer a trial"):
        Calibrator().fit([1, 0], [0.1, 0.9], ["a"])
    with pytest.raises(ValueError, match="fitted on validation signers"):
        Calibrator().llr([0.3])
    with pytest.raises(ValueError, match="not fitted"):
        Calibrator().to_dict()


def test_json_and_back():
    y, distance = bells(50, 80)
    fitted = Calibrator("random", names=("global", "variation"), directions=(-1, 0)).fit(y, np.column_stack([distance, distance**2]), np.arange(130) % 9)
    stored = json.loads(json.dumps(fitted.to_dict()))
    again = Calibrator.from_dict(stored)
    probe = np.random.default_rng(0).normal(1.5, 2, (50, 2))
    assert again.to_dict() == fitted.to_dict() and (again.llr(probe) == fitted.llr(probe)).all()
    assert stored["trials"] == {"genuine": 50, "impostor": 80, "signers": 9} and stored["log"] == "natural"
    for spoilt, message in (({"log": "10"}, "log = natural"), ({"weights": [1.0]}, "weight for each"), ({"weights": [1.0, 2.0]}, "must fall"),
                            ({"bounds": [0.5, 1.0]}, "both sides of 0"), ({"intercept": float("nan")}, "finite"), ({"impostors": "x"}, "skilled or random")):
        with pytest.raises(ValueError, match=message):
            Calibrator.from_dict(stored | spoilt)
    with pytest.raises(ValueError, match="bounds"):
        Calibrator.from_dict({key: value for key, value in stored.items() if key != "bounds"})


# --- bounds

def bounds_by_loop(y, llr):
    "The rule itself, on a fine grid: go out from 0 until a ratio is no longer supported with one misleading trial of each class added."
    def highest(own, other):
        best = 0.0
        for tau in np.arange(1, 8000) / 1000:
            right, misled = (own >= tau).sum() / (own.size + 1), ((other >= tau).sum() + 1) / (other.size + 1)
            if right < np.exp(tau) * misled:
                return best
            best = tau
        return best
    return -highest(-llr[~y], -llr[y]), highest(llr[y], llr[~y])


@given(st.integers(0, 500), st.integers(2, 60), st.integers(2, 60), st.floats(0.2, 3))
def test_bounds_are_the_rule(seed, genuine, impostors, strength):
    y, distance = bells(genuine, impostors, seed)
    llr = strength * (6 - 4 * distance)
    np.testing.assert_allclose(llr_bounds(y, llr), bounds_by_loop(y == 1, llr), atol=2e-3)


def test_bounds_count_signers_when_their_trials_are_alike():
    y, llr, signer = np.repeat([1, 0], 400), np.repeat([30.0, -30.0], 400), np.tile(np.arange(10), 80)
    np.testing.assert_allclose(llr_bounds(y, llr), (-np.log(400), np.log(400)))
    np.testing.assert_allclose(llr_bounds(y, llr, signer), (-np.log(10), np.log(10)))
    noise = np.random.default_rng(0).normal(size=800)
    assert llr_bounds(y, llr + noise, signer)[1] > np.log(300), "independent trials count one by one"
    between = llr_bounds(y, llr + noise + np.random.default_rng(1).normal(size=10)[signer], signer)[1]
    assert np.log(10) < between < np.log(60)
    assert llr_bounds([1, 0], [5.0, -5.0], ["a", "a"]) == (0.0, 0.0), "one trial of each supports nothing"


# --- words

@pytest.mark.parametrize("ratio, words", [(1, "do not support"), (1.99, "do not support"), (2, "weak support"), (9.99, "weak"), (10, "moderate support"), (100, "moderately strong support"),
                                          (1e3, " strong support"), (1e4, "very strong"), (1e6, "extremely strong"), (np.inf, "extremely strong")])
def test_words_run_in_both_directions(ratio, words):
    genuine, forged = verbal_scale(np.log(ratio)), verbal_scale(-np.log(ratio))
    assert words in genuine and words in forged
    if ratio >= 2:
        assert "the proposition that the signature is genuine, relative to" in genuine and "that it is a forgery" in forged.split("relative")[0]


@given(st.floats(-30, 30))
def test_words_never_give_a_probability(llr):
    text = verbal_scale(llr) + verbal_scale(llr, "random")
    assert "%" not in text and "probab" not in text and "proposition" in text and not any(digit in text for digit in "0123456789")


def test_words_for_several_and_for_none():
    assert verbal_scale([0.0, 5.0]) == [verbal_scale(0.0), verbal_scale(5.0)] and "another person" in verbal_scale(5.0, "random")
    assert [ratio for ratio, _ in VERBAL_SCALE] == sorted(ratio for ratio, _ in VERBAL_SCALE)
    for wrong in ((float("nan"), "skilled"), (1.0, "both")):
        with pytest.raises(ValueError):
            verbal_scale(*wrong)


# --- reliability, Tippett, metrics

def test_reliability_tells_an_honest_scale_from_a_boast():
    y, distance = bells(20000, 20000, seed=5)
    honest, boast = (reliability(y, factor * (6 - 4 * distance), bins=10) for factor in (1, 3))
    assert np.abs(honest.stated - honest.observed)[1:-1].max() < 0.25 and np.abs(boast.stated - boast.observed)[1:-1].max() > 2
    assert honest.genuine.sum() == honest.impostors.sum() == 20000
    tied = reliability([1, 0, 1, 0], [0.0, 0.0, 0.0, 0.0], bins=4)
    assert len(tied.stated) == 1 and tied.observed[0] == 0
    with pytest.raises(ValueError, match="bins"):
        reliability(y, distance, bins=0)


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30).filter(lambda t: len({a for a, _ in t}) == 2))
def test_tippett_counts(trials):
    y, llr = np.array([a for a, _ in trials]), np.array([float(b) for _, b in trials])
    points = tippett(y, llr)
    for place, genuine, impostors in zip(points.llr, points.genuine, points.impostors):
        assert genuine == pytest.approx(np.mean(llr[y] >= place)) and impostors == pytest.approx(np.mean(llr[~y] >= place))
    assert points.misleading_genuine == np.mean(llr[y] < 0) and points.misleading_impostors == np.mean(llr[~y] > 0)


def test_llr_metrics():
    y, distance = bells(100, 100)
    found = llr_metrics(y, 6 - 4 * distance, np.arange(200) % 10, draws=100)
    assert found["cllr"] == cllr(y, 6 - 4 * distance) and found["min_cllr"] == min_cllr(y, distance) <= found["cllr"]
    assert found["cllr_ci"][0] < found["cllr"] < found["cllr_ci"][1] and json.loads(json.dumps(found)) == found
    assert "cllr_ci" not in llr_metrics(y, 6 - 4 * distance)


# --- operating points

@given(st.integers(0, 100), st.integers(1, 400), st.integers(1, 400))
def test_operating_points_agree_with_the_metrics(seed, genuine, impostors):
    y, distance = bells(genuine, impostors, seed)
    card = json.loads(json.dumps(operating_points(y, distance)))
    assert card["eer"]["value"] == pytest.approx(eer(y, distance).value) and (card["genuine"], card["impostors"]) == (genuine, impostors)
    for point in card["at_fmr"]:
        if point["fmr_asked"] < 3 / impostors:
            assert point["threshold"] is point["fmr"] is None and "rule of 3" in point["refused"]
            with pytest.raises(ValueError, match="rule of 3"):
                threshold_at_fmr(y, distance, point["fmr_asked"])
        else:
            assert point["refused"] is None and point["fmr"] <= point["fmr_asked"]
            assert point["fnmr"] == pytest.approx(fnmr_at_fmr(y, distance, point["fmr_asked"]))
            assert errors_at(y, distance, point["threshold"]) == {key: point[key] for key in ("threshold", "fmr", "fnmr")} | {"genuine": genuine, "impostors": impostors}


def test_operating_points_that_cannot_be():
    tied = operating_points([1] * 5 + [0] * 50, [0.5] * 55, (0.1,))
    assert tied["at_fmr"][0]["threshold"] is None and "smallest distance" in tied["at_fmr"][0]["refused"]
    json.dumps(tied, allow_nan=False)
    for wrong in (0, 1, 5, -0.1):
        with pytest.raises(ValueError, match="0.01"):
            operating_points([1, 0], [0.1, 0.2], (wrong,))


def test_errors_at_a_threshold():
    y, distance = [1, 1, 0, 0, 0], [0.1, 0.5, 0.3, 0.6, 0.7]
    assert errors_at(y, distance, 0.4) == {"threshold": 0.4, "fmr": pytest.approx(1 / 3), "fnmr": 0.5, "genuine": 2, "impostors": 3}
    assert far_frr(y, distance, 0.4).frr == 0.5
    for wrong in (np.inf, np.nan, [0.1, 0.2]):
        with pytest.raises(ValueError, match="finite number"):
            errors_at(y, distance, wrong)
