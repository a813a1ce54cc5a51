"""From pages to the error of the chain: who is matched with whom, what is asked of whom, and what becomes of what was missed."""
import multiprocessing
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from signver_kit.boxes import iou
from signver_kit.chain import (NEVER, SignedPage, acquire, assign, average_precision, chain_figures, chain_scores, claims, eer_loss, memory_slope, plot_stages, precision_at,
                               resident_mb, sheet_page, signed_pages, testable)
from signver_kit.descriptors import Description, LocalMap
from signver_kit.documents import SyntheticPages
from signver_kit.matcher import Matcher
from signver_kit.metrics import eer

testable.__test__ = False


# ---- which box ----

@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(0, 8))
def test_every_label_gets_one_box_and_every_box_one_label(seed, labels, boxes):
    rng = np.random.default_rng(seed)
    truth, found = (np.hstack([corner, corner + rng.uniform(0.1, 0.3, (count, 2))]) for count in (labels, boxes) for corner in (rng.uniform(0, 0.5, (count, 2)),))
    own = assign(truth, found, rng.random(boxes))
    given = own[own >= 0]
    assert len(own) == labels and len(set(given)) == len(given)
    overlap = iou(truth, found) if labels and boxes else np.zeros((labels, boxes))
    assert (overlap[own >= 0, given] >= 0.5).all()
    free = np.setdiff1d(np.arange(boxes), given)
    assert not (overlap[np.ix_(own < 0, free)] >= 0.5).any()                     # nobody stays alone beside a box that nobody has


# ---- pages ----

class Finding(NamedTuple):
    class_name: str
    box: list
    score: float
    description: object


def description(*rows):
    "Signatures whose local descriptors are made from numbers: the same number, the same signature."
    maps = [np.random.default_rng(abs(row)).random((3, 6, 4)).astype(np.float32) / 2 for row in rows]
    return Description(LocalMap(np.stack(maps), np.ones((len(rows), 3, 6), np.float32)))


class Drawn:
    """A pipeline over pages whose first row of pixels says what is on them: it misses signatures whose number is in `misses`, cannot read those in `blank`, and draws some false boxes."""

    def __init__(self, misses=(), blank=(), false=0, whole=True):
        self.misses, self.blank, self.false, self.whole = set(misses), set(blank), false, whole

    def annotate(self, picture, whole=None):
        numbers = [int(number) for number in np.unique(picture) if number]
        if not self.whole:
            self.findings = [Finding("signature", [0, 0, 1, 1], 1.0, None if numbers[0] in self.blank else description(numbers[0]))]
            return self
        self.findings = [Finding("date", [0, 0, 0.1, 1.0], 0.99, None)] * self.false + [Finding("signature", [0.9, 0, 1.0, 0.05], 0.99, None)] * self.false
        for number in numbers:
            rows, columns = np.nonzero(picture[..., 0] == number)
            box = [rows[0] / picture.shape[0], columns[0] / picture.shape[1], (rows[-1] + 1) / picture.shape[0], (columns[-1] + 1) / picture.shape[1]]
            if number not in self.misses:
                self.findings.append(Finding("signature", box, 0.6, None if number in self.blank else description(number)))
        return self


def page(name, *signatures):
    "A page of rows of pixels: signature k, (number, signer, forged), is a block of that value."
    image, boxes = np.zeros((100, 40, 3), np.uint8), []
    for k, (number, _, _) in enumerate(signatures):
        image[10 * k:10 * k + 8, 5:35] = number
        boxes.append([k / 10, 5 / 40, k / 10 + 0.08, 35 / 40])
    return SignedPage(name, image, np.array(boxes).reshape(-1, 4), tuple(one[1] for one in signatures), tuple(one[2] for one in signatures))


PAGES = [page("a1", (1, "a", False), (2, "a", False)), page("a2", (3, "a", False), (4, "a", False)), page("b1", (5, "b", False), (6, "b", False)), page("b2", (7, "b", False), (8, "b", False)),
         page("nobody"), page("a3", (9, "a", True), (10, "a", True))]


def test_what_was_missed_and_what_could_not_be_read_was_not_acquired():
    whole, alone = {"raw": Drawn(misses=[3, 9], blank=[5], false=1)}, {"raw": Drawn(blank=[5], whole=False)}
    found = acquire(PAGES, whole, alone)
    assert found.ways == ("labelled_raw", "detected_raw") and found.table.signer.tolist() == list("aaaabbbbaa") and found.table["index"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert np.flatnonzero(~found.table.found).tolist() == [2, 8] and found.table.iou[found.table.found].min() == 1 and found.table.iou[[2, 8]].tolist() == [0, 0]
    assert np.flatnonzero(found.missed("detected_raw")).tolist() == [2, 4, 8] and np.flatnonzero(found.missed("labelled_raw")).tolist() == [4]
    assert found.pages.found.tolist() == [2, 1, 2, 2, 0, 1] and found.pages.false.tolist() == [1] * 6 and found.pages.signatures.sum() == 10
    for way in found.ways:                                                       # each row of the table is described by what is in its own box
        for row, place in enumerate(found.places[way]):
            assert place < 0 or np.array_equal(found.descriptions[way].maps.descriptors[place], description(row + 1).maps.descriptors[0])
    with pytest.raises(ValueError, match="1 pages without any"):
        acquire([PAGES[4]], whole, alone)


def test_pages_made_elsewhere_are_the_same_pages_in_the_same_order():
    pages = SyntheticPages(30, seed=4, dpi=50, signers=5, forged=0.5)
    here = list(signed_pages(pages, [3, 1, 8]))
    made = signed_pages(pages, [3, 1, 8, *range(10, 30)], workers=1, ahead=2)
    there = [next(made) for _ in range(3)]
    made.close()
    assert not multiprocessing.active_children()
    for one, other in zip(here, there):
        assert one.name == other.name and np.array_equal(one.image, other.image) and np.array_equal(one.boxes, other.boxes) and one[3:] == other[3:]
    assert [one.name for one in here] == ["000003", "000001", "000008"] and all(len(one.boxes) == len(one.signers) == pages.page(int(one.name)).classes.count("signature") for one in here)
    assert sum(pages.page(i).forged and "signature" in pages.page(i).classes for i in (3, 1, 8)) == sum(any(one.forged) for one in here)


def test_sheets_have_owners(data_dir):
    from signver_kit.pages import open_pages

    sheets = open_pages("ssbi_sheets", data_dir=data_dir)
    one = sheet_page(sheets, 20)
    assert one.image.shape == (3507, 2480, 3) and one.boxes.shape == (8, 4) and set(one.signers) == {sheets.pages.person_id.iloc[20]} and all(one.forged)
    table = sheets.boxes.assign(signer=sheets.boxes.person_id, kind=np.where(sheets.boxes.forged, "skilled", "genuine"))
    assert len(testable(table, 8)) == 9 and testable(table, 9) == []
    with pytest.raises(ValueError, match="columns who and forged"):
        sheet_page(sheets, 0, signer="who")


# ---- claims ----

@st.composite
def tables(draw):
    rows = []
    rows.append(("a9", "a", "genuine"))
    for signer in "abcd"[:draw(st.integers(2, 4))]:
        for number in range(draw(st.integers(1, 5))):
            rows += [(f"{signer}{number}", signer, "genuine")] * draw(st.integers(0, 3)) + [(f"{signer}x{number}", signer, "skilled")] * draw(st.integers(0, 1))
    shared = draw(st.integers(0, 2))
    rows += [("shared", signer, "genuine") for signer in "ab" for _ in range(shared)]
    table = pd.DataFrame(rows, columns=["page", "signer", "kind"])
    return table.assign(index=table.groupby(["signer", "kind"]).cumcount())


@settings(max_examples=25)
@given(tables(), st.integers(1, 4), st.integers(0, 99))
def test_nothing_on_an_enrolment_page_is_questioned(table, k, seed):
    if len(testable(table, k)) < 2:
        with pytest.raises(ValueError, match="two signers"):
            claims(table, k, 2, seed)
        return
    made = claims(table, k, 3, seed)
    assert [(one.signer, one.draw) for one in made] == [(signer, draw) for signer in testable(table, k) for draw in range(3)]
    for one in made:
        candidates, asked = table.iloc[one.candidates], table.iloc[one.questioned]
        assert len(candidates) >= k and set(candidates.signer) == {one.signer} and set(candidates.kind) == {"genuine"} and not set(candidates.page) & set(asked.page)
        own = one.kind != "random"
        assert (asked.kind[own] == one.kind[own]).all() and set(asked.signer[own]) == {one.signer} and "genuine" in one.kind
        assert (asked.kind[~own] == "genuine").all() and one.signer not in set(asked.signer[~own]) and asked.signer[~own].is_unique
        assert set(np.flatnonzero((table.signer == one.signer) & ~table.page.isin(candidates.page))) == set(one.questioned[own])
    again = claims(table, k, 3, seed)
    assert all(np.array_equal(one.candidates, two.candidates) and np.array_equal(one.questioned, two.questioned) for one, two in zip(made, again))


# ---- scores ----

@pytest.fixture(scope="module")
def matcher():
    return Matcher(kind="local").load()


def test_scores_are_the_matchers_and_what_was_missed_is_rejected(matcher):
    found = acquire(PAGES, {"raw": Drawn(misses=[1, 3, 9])}, {"raw": Drawn(whole=False)})
    made = claims(found.table, 1, draws=4)
    labelled, detected = (chain_scores(made, found.places[way], found.descriptions[way], matcher, 1) for way in found.ways)
    keys = ["signer", "draw", "kind", "questioned"]
    assert labelled[keys].equals(detected[keys]) and labelled.acquired.all() and (labelled.references == 1).all()
    gone = detected.questioned.isin([0, 2, 8])
    assert gone.any() and (detected.distance[gone] == NEVER).all() and (detected.distance[~gone] < NEVER / 2).all() and (detected.acquired == ~gone).all()
    one = next(claim for claim in made if claim.signer == "a" and claim.candidates[0] in (0, 2))          # the first candidate was missed: the next one is enrolled
    rows = detected[(detected.signer == "a") & (detected.draw == one.draw) & detected.acquired]
    place = found.places["detected_raw"]
    everything = found.descriptions["detected_raw"]
    for row in rows.itertuples():
        verdict = matcher.explain(everything[[place[row.questioned]]], everything[[place[one.candidates[1]]]])
        assert row.distance == pytest.approx(verdict.distance, abs=0.02) and row.threshold == verdict.threshold


def test_a_signer_of_whom_nothing_could_be_enrolled_is_rejected_always(matcher):
    found = acquire(PAGES, {"raw": Drawn(misses=[1, 2, 3, 4])}, {"raw": Drawn(whole=False)})
    scores = chain_scores(claims(found.table, 2, draws=2), found.places["detected_raw"], found.descriptions["detected_raw"], matcher, 2)
    of_a = scores[scores.signer == "a"]
    assert (of_a.references == 0).all() and (of_a.distance == NEVER).all() and not of_a.acquired.any() and (of_a.threshold > 0).all()
    assert scores[(scores.signer == "b") & (scores.kind == "genuine")].acquired.all()


def trials(distance, kind, acquired=None, signer=None, threshold=0.5):
    count = len(distance)
    acquired = np.ones(count, bool) if acquired is None else np.array(acquired, bool)
    return pd.DataFrame({"signer": signer or [str(k % 4) for k in range(count)], "draw": 0, "kind": kind, "questioned": range(count), "references": 1, "threshold": threshold,
                         "distance": np.where(acquired, distance, NEVER), "acquired": acquired, "k": 1})


def test_a_missed_genuine_signature_is_a_false_rejection_and_a_missed_forgery_is_none():
    kind = ["genuine"] * 8 + ["skilled"] * 8 + ["random"] * 4
    scores = trials([0.1] * 7 + [0.7] + [0.9] * 6 + [0.2] * 2 + [0.9] * 4, kind, [1] * 4 + [0] * 2 + [1] * 2 + [1] * 7 + [0] + [1] * 4)
    chain, there = chain_figures(scores, draws=100), chain_figures(scores, acquired=True, draws=100)
    assert (chain["frr"], there["frr"]) == (3 / 8, 1 / 6) and (chain["far_skilled"], there["far_skilled"]) == (1 / 8, 1 / 7) and chain["far_random"] == there["far_random"] == 0
    assert chain["far_random_ci"] == [0, 0.75] and chain["not_acquired"] == there["not_acquired"] == pytest.approx(3 / 20) and chain["trials"] == 20 and there["trials"] == 17
    y, distance = np.array(kind[:16]) == "genuine", scores.distance[:16].to_numpy()
    assert chain["skilled_eer"] == eer(y, distance).value > there["skilled_eer"] and chain["skilled_eer_ci"][0] <= chain["skilled_eer"] <= chain["skilled_eer_ci"][1]
    assert "skilled_eer" not in chain_figures(scores[scores.kind != "skilled"], draws=100)


def test_a_loss_is_paired():
    rng = np.random.default_rng(5)
    kind, signer = np.repeat(["genuine", "skilled"], 60).tolist(), [str(k % 6) for k in range(120)]
    hard = rng.normal(0, 1, 6)[np.arange(120) % 6]                                # persons differ a lot: unpaired, nothing would be seen
    before = trials(rng.normal(0, 0.6, 120) + hard + np.repeat([0, 1.5], 60), kind, signer=signer)
    value, interval = eer_loss(before, before.assign(distance=before.distance + 5), draws=200)
    assert value == 0 and interval == [0, 0]                                      # a shift of everything costs nothing
    worse = before.assign(distance=before.distance + np.where(np.arange(120) < 6, 3.0, 0))
    value, interval = eer_loss(before, worse, draws=200)
    apart = [chain_figures(one, draws=200) for one in (before, worse)]
    assert value == pytest.approx(apart[1]["skilled_eer"] - apart[0]["skilled_eer"]) and interval[0] <= value <= interval[1] and value > 0
    assert interval[1] - interval[0] < 0.6 * min(np.ptp(one["skilled_eer_ci"]) for one in apart)
    gone = trials(before.distance, kind, [0] * 6 + [1] * 114, signer)
    assert eer_loss(before, gone, draws=200)[0] > 0.02 and abs(eer_loss(before, gone, acquired=True, draws=200)[0]) < 1e-12
    with pytest.raises(ValueError, match="same claims"):
        eer_loss(before, worse[::-1])


def test_stages_are_drawn_where_their_figures_are():
    ax = plot_stages({"labels": (0.1, [0.05, 0.2]), "+ detection": (0.15, [0.1, 0.3]), "+ cleaning": (0.12, [0.1, 0.2])}, title="what is seen")
    bars = [(round(bar.get_y(), 6), round(bar.get_y() + bar.get_height(), 6)) for bar in ax.patches]
    assert bars == [(0, 10), (10, 15), (15, 12)] and ax.get_ylim()[1] > 30 and ax.get_title() == "what is seen" and "%" in ax.get_ylabel()
    assert [text.get_text() for text in ax.texts] == ["10.0 %", "15.0 %\n(+5.0)", "12.0 %\n(−3.0)"]


# ---- retrieval, memory ----

@settings(max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any), st.integers(0, 30))
def test_average_precision_is_scikit_learns_and_falls_by_what_is_cut_off(right, depth):
    ranked, relevant = list(range(len(right))), [k for k, one in enumerate(right) if one]
    assert average_precision(ranked, relevant) == pytest.approx(average_precision_score(right, -np.arange(len(right))))
    assert average_precision(ranked[:depth], relevant) <= average_precision(ranked, relevant) + 1e-12
    assert precision_at(ranked, relevant, len(ranked)) == sum(right[:sum(right)]) / sum(right)


def test_memory_is_read_and_its_trend_is_that_of_the_late_readings():
    before = resident_mb()
    if not np.isnan(before):
        held = np.ones(40 * 2**20, np.uint8)
        assert 30 < resident_mb() - before < 60 and held.all()
    seen = np.arange(0, 1000, 20)
    assert memory_slope(seen, np.where(seen < 200, 100 + seen, 300) + 0.05 * seen) == pytest.approx(50)
    with pytest.raises(ValueError, match="three readings"):
        memory_slope([], [])
