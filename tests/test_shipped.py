"""The weights that the package ships: whole, allowed, described, and as good as their card says."""
import json
from pathlib import Path

import numpy as np
import pytest

from signver_kit.benchmark import read_record
from signver_kit.extractor import RECIPES, SHIPPED, MetricExtractor
from signver_kit.matcher import SHIPPED_MATCHER, Matcher
from signver_kit.synthetic import SyntheticSigners

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
CARD = json.loads((SHIPPED / "card.json").read_text())


@pytest.fixture(scope="module")
def extractor():
    return MetricExtractor().load()


@pytest.fixture(scope="module")
def matcher():
    return Matcher().load()


def test_small_enough_and_allowed():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 12e6
    assert set(CARD["trained_on"]) <= {"synthetic", "crossmedia"} and "Apache-2.0" in CARD["terms"] and "MIT" in CARD["terms"]
    assert {path.name for path in SHIPPED.iterdir()} == {"card.json", "config.json", "model.weights.h5", "matcher.json"}


def test_the_card_holds_the_recipe(extractor, matcher):
    recipe = RECIPES["default"]
    assert CARD["recipe"]["signers"] == recipe.signers and CARD["recipe"]["training"]["epochs"] == recipe.training.epochs
    assert extractor.config == recipe.config, "the recipe makes what is shipped"
    assert matcher.card["fitted_on"] == ["synthetic"] and matcher.card["extractor_sha256"] == CARD["sha256"] and SHIPPED_MATCHER.parent == SHIPPED
    assert {(model.kind, model.k) for model in matcher.models} >= {(kind, k) for kind in ("local", "global", "fused") for k in (1, 3, 5, 10)}


def test_the_cards_figures_are_those_of_records():
    assert CARD["figures"], "figures by data set and protocol"
    for figures in CARD["figures"].values():
        record = read_record(RESULTS / figures["record"])
        assert record.error is None and record.parameters["train_on"] == "nothing" and record.parameters["extractor"] == "shipped"
        assert record.data["trained_on"] == CARD["trained_on"]
        for name, value in figures["metrics"].items():
            assert record.metrics[name] == pytest.approx(value, abs=1e-4), name


def test_an_operating_point_says_what_it_costs(matcher):
    for model in matcher.models:
        for kind in ("skilled", "random"):
            points = model.points[kind]
            assert 0 <= points["at_threshold"]["fmr"] <= 1 and points["at_threshold"]["threshold"] == model.threshold
            for point in points["at_fmr"]:
                assert (point["threshold"] is None) == (point["refused"] is not None)
                assert point["threshold"] is None or point["fmr"] <= point["fmr_asked"]


def test_it_tells_hands_apart(extractor, matcher):
    """Signers of a seed that nothing was trained on: most genuine signatures are accepted, most of other people's rejected, with likelihood ratios to match."""
    people = SyntheticSigners(4, seed=987, genuine=5, forgeries=1).set
    described = extractor.describe([people.read(i) for i in range(len(people.table))])
    assert described.embeddings.shape[1] == extractor.config.embedding_dim
    genuine, random = [], []
    for signer in people.signers:
        own = np.flatnonzero((people.table.signer == signer) & (people.table.kind == "genuine"))
        others = np.flatnonzero((people.table.signer != signer) & (people.table.kind == "genuine"))[::5]
        genuine += [matcher.verify(described[int(row)], described[own[:3]]) for row in own[3:]]
        random += [matcher.verify(described[int(row)], described[own[:3]]) for row in others]
    assert sum(map(bool, genuine)) >= 6 and sum(map(bool, random)) <= 1  # of 8 and of 12
    assert np.median([v.llr["random"] for v in genuine]) > 1 and np.median([v.llr["random"] for v in random]) < -1
    assert "likelihood ratio" in str(genuine[0]) and "fused" in str(genuine[0])
