"""Synthetic signers: the same bytes always, nothing but the handwriting tells genuine from forged, as hard as real ones, safe on disk."""
import hashlib
import json
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from signver_kit import synthetic
from signver_kit.datasets import SignatureSet, read_folder
from signver_kit.descriptors import describe_hog
from signver_kit.images import UnreadableImage, ink_image, read_image, to_ink
from signver_kit.metrics import auc, eer
from signver_kit.synthetic import SyntheticSigners, draw_hand, draw_ink, handwrite, move_pen, read_synthetic, signature_plan

KINDS = ("genuine", "skilled")


def fingerprint(image):
    return image.shape, hashlib.sha256(image.tobytes()).hexdigest()[:16]


GOLDEN = {
    "synthetic:0/0/genuine/0": ((116, 359), "cb2dd176b8cb44e0"),
    "synthetic:0/1/skilled/3": ((177, 610), "0f849ffbdb965761"),
    "synthetic:7/12/genuine/5": ((134, 264), "e2bf0c63ca5a5657"),
    "synthetic:12345678901/99/skilled/23": ((499, 719), "77ea6e7720ea688c"),
}


@pytest.mark.parametrize("path", GOLDEN)
def test_the_same_bytes_as_when_this_was_written(path):
    # Written with NumPy 2.4 and OpenCV 5.0; the same with NumPy 1.26, SciPy 1.13 and OpenCV 4.10.
    # Did you mean to change the generator? Then raise synthetic._GENERATOR and put the new fingerprints here.
    assert fingerprint(read_synthetic(path)) == GOLDEN[path]


def test_the_same_in_another_process_and_another_order():
    code = "from signver_kit.synthetic import SyntheticSigners as S; import zlib; s = S(3, seed=11)\n" \
           "print([zlib.crc32(s.image(k, 'skilled', 2).tobytes()) for k in (2, 0, 1)])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = {k: zlib.crc32(SyntheticSigners(3, seed=11).image(k, "skilled", 2).tobytes()) for k in (0, 1, 2)}
    assert json.loads(printed) == [here[2], here[0], here[1]]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 5000), st.sampled_from(KINDS), st.integers(0, 30))
def test_any_address_gives_a_signature(seed, signer, kind, index):
    signers = SyntheticSigners(signer + 1, seed, genuine=index + 1, forgeries=index + 1)
    image = signers.image(signer, kind, index)
    assert image.dtype == np.uint8 and image.ndim == 2
    assert 30 <= image.shape[0] <= 700 and 40 <= image.shape[1] <= 1000
    assert np.median(image) > 200 and 0.002 < (to_ink(image, input="binarised") > 0).mean() < 0.5
    assert np.array_equal(image, SyntheticSigners(signer + 7, seed, genuine=index + 3, forgeries=40).image(str(signer), kind, index))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 300), st.sampled_from(KINDS))
def test_strokes_are_the_movement_behind_the_image(seed, signer, kind):
    signers = SyntheticSigners(signer + 1, seed, genuine=2, forgeries=2)
    image, strokes = signers.image(signer, kind, 1), signers.strokes(signer, kind, 1)
    assert strokes and all(stroke.ndim == 2 and stroke.shape[1] == 4 and np.isfinite(stroke).all() for stroke in strokes)
    movement = np.concatenate(strokes)
    x, y, t, pressure = movement.T
    assert (np.diff(t) > 0).all() and t[0] == 0
    assert pressure.min() > 0 and pressure.max() <= 1
    assert x.min() >= 7 and y.min() >= 7 and x.max() <= image.shape[1] - 7 and y.max() <= image.shape[0] - 7
    under = image[np.rint(y).astype(int), np.rint(x).astype(int)]
    assert (under < np.median(image) - 25).mean() > 0.9      # a ballpoint leaves gaps


def test_the_faintest_line_is_ink():
    to_ink(read_synthetic("synthetic:43/4648/genuine/5"), input="binarised")      # once the only one of 60,000 that was refused as blank: a thin pen on a noisy scan


def test_signers_images_and_seeds_differ():
    signers = SyntheticSigners(5, genuine=3, forgeries=3)
    images = [fingerprint(signers.image(*key)) for key in zip(signers.table["signer"], signers.table["kind"], signers.table["index"])]
    assert len(set(images)) == 30
    assert fingerprint(SyntheticSigners(1, seed=1).image(0, "genuine", 0)) not in images


def test_the_table_and_the_set():
    signers = SyntheticSigners(3, seed=5, genuine=4, forgeries=2)
    table = signers.table
    assert table.columns.tolist()[:5] == ["path", "signer", "kind", "index", "hash"]
    assert len(table) == 18 and table["path"].is_unique and table["signer"].unique().tolist() == ["0", "1", "2"]
    assert table["path"][0] == "synthetic:5/0/genuine/0" and table["path"][17] == "synthetic:5/2/skilled/1"
    assert isinstance(signers.set, SignatureSet) and signers.set.name == "synthetic" and len(signers.set) == 18
    assert np.array_equal(signers.set.read(4), signers.image("0", "skilled", 0))
    assert signers.set.subset(["2"]).ink(size=(32, 48)).shape == (6, 32, 48)
    assert len(SyntheticSigners(2, genuine=1, forgeries=0).set) == 2


@pytest.mark.parametrize("wrong, name", [
    (dict(n=0), "n must"), (dict(n=-3), "n must"), (dict(n=1.5), "n must"), (dict(n="2"), "n must"), (dict(n=True), "n must"), (dict(n=None), "n must"),
    (dict(n=1, seed=-1), "seed must"), (dict(n=1, seed=0.5), "seed must"), (dict(n=1, genuine=0), "genuine must"),
    (dict(n=1, forgeries=-1), "forgeries must"), (dict(n=1, forgeries=np.nan), "forgeries must"),
])
def test_impossible_sets_are_refused_by_name(wrong, name):
    with pytest.raises(ValueError, match=name):
        SyntheticSigners(**wrong)


@pytest.mark.parametrize("wrong, name", [
    (("2", "genuine", 0), "signer must"), (("a", "genuine", 0), "signer must"), ((-1, "genuine", 0), "signer must"), (("0", "forged", 0), "kind must"),
    (("0", "genuine", 3), "index of a genuine"), (("0", "skilled", 2), "index of a skilled"), (("0", "genuine", -1), "index must"),
])
def test_signatures_that_do_not_exist_are_refused_by_name(wrong, name):
    signers = SyntheticSigners(np.int64(2), genuine=3, forgeries=2)
    for ask in (signers.image, signers.strokes):
        with pytest.raises(ValueError, match=name):
            ask(*wrong)


@pytest.mark.parametrize("path", ["", "synthetic:", "synthetic:0/1/genuine", "synthetic:0/1/forged/2", "synthetic:0/-1/genuine/2", "file:0/1/genuine/2",
                                  "synthetic:0/1/genuine/2/3", "synthetic:0/²/genuine/2", "synthetic:a/1/genuine/2"])
def test_other_paths_are_unreadable(path):
    with pytest.raises(UnreadableImage, match="synthetic:SEED/SIGNER"):
        read_synthetic(path)


@pytest.fixture(scope="module")
def crowd():
    """The table of forty signers, eight signatures and eight forgeries of each, with image, strokes and page of each row, and HOG vectors (signer, genuine then forged, number)."""
    signers = SyntheticSigners(40, seed=2, genuine=8, forgeries=8)
    made = [synthetic._strokes_and_page(2, int(row.signer), row.kind, row.index) for row in signers.table[["signer", "kind", "index"]].itertuples(index=False, name="Row")]
    table = signers.table.assign(strokes=[strokes for strokes, *_ in made], page=[page for _, _, page, _ in made], image=[synthetic.render_strokes(*one) for one in made])
    last = table.iloc[-1]
    assert np.array_equal(last["image"], signers.image(last["signer"], last["kind"], last["index"]))
    assert all(map(np.array_equal, last["strokes"], signers.strokes(last["signer"], last["kind"], last["index"])))
    vectors = describe_hog(np.stack([ink_image(image, (96, 192)) for image in table["image"]]))
    return table, vectors.reshape(40, 16, -1)


def test_the_page_does_not_know_the_label(crowd):
    """What is not handwriting (grey, shade and noise of the paper, margins, pen) has one distribution for both kinds."""
    table, _ = crowd
    properties = [[np.median(image), np.std(image[:6]), image[:, :4].mean() - image[:, -4:].mean(), page.pen, page.dark, page.blur, *page.margins]
                  for image, page in zip(table["image"], table["page"])]
    labels = (table["kind"] == "genuine").to_numpy()
    error = np.sqrt((len(labels) + 1) / (12 * labels.sum() * (~labels).sum()))      # of an AUC without difference
    for column in np.array(properties).T:
        assert abs(auc(labels, column) - 0.5) < 3.5 * error


def test_as_hard_as_real_signatures_for_an_untrained_descriptor(crowd):
    vectors, count, each = crowd[1], 40, 8
    distances = np.sqrt(np.maximum(2 - 2 * np.einsum("sid,tjd->stij", vectors[:, :each], vectors, optimize=True), 0))
    own = distances[np.arange(count), np.arange(count)]
    genuine = own[:, :, :each][:, ~np.eye(each, dtype=bool)].ravel()
    rates = {}
    for kind, impostor in (("skilled", own[:, :, each:].ravel()), ("random", distances[~np.eye(count, dtype=bool)][:, :, :each].ravel())):
        rates[kind] = eer(np.r_[np.ones(len(genuine)), np.zeros(len(impostor))], np.r_[genuine, impostor]).value
    assert 0.18 < rates["skilled"] < 0.32 and 0.03 < rates["random"] < 0.13, rates


def test_a_forger_repeats_the_same_error(crowd):
    """Two forgeries by one forger are nearer to each other than forgeries by two forgers, on average over signers."""
    forged = crowd[1][:, 8:]
    same, other = np.linalg.norm(forged[:, 0] - forged[:, 4], axis=1), np.linalg.norm(forged[:, 0] - forged[:, 1], axis=1)
    assert same.mean() < other.mean() - 0.02


def test_a_plan_is_kept_and_cannot_be_spoilt():
    plan = signature_plan(0, 3)
    assert plan is signature_plan(0, 3)
    assert len(plan.points) == len(plan.stroke) == len(plan.part) and plan.stroke[0] == 0
    assert set(np.diff(plan.stroke)) <= {0, 1} and set(plan.part) == set(range(plan.part.max() + 1))
    with pytest.raises(ValueError, match="read-only"):
        plan.points[0] = 9


def sharp_hand(**changes):
    return replace(signature_plan(0, 0).hand, **{"sharpness": 0.9, "bend": 0.0, **changes})


def test_the_pen_lands_on_the_first_target_and_slows_in_a_turn():
    targets = np.array([(0, 0), (40, 0), (80, 0), (80, 40), (80, 80)], float)
    stroke = move_pen(targets, sharp_hand(), np.random.default_rng(0))
    assert stroke[0, :2] == pytest.approx(targets[0]) and stroke[-1, :2] == pytest.approx(targets[-1])
    speed = np.hypot(*np.diff(stroke[:, :2], axis=0).T) / np.diff(stroke[:, 2])
    turn = np.argmin(np.hypot(*(stroke[:-1, :2] - targets[2]).T))
    assert speed[turn] < 0.9 * np.median(speed)
    assert move_pen(targets[:2], sharp_hand(), np.random.default_rng(0)).shape[1] == 4


class Steady:
    """A generator without chance: every draw is its mean."""

    def normal(self, mean, deviation, size=None):
        return np.zeros(size) + mean


def test_one_movement_is_a_lognormal_one():
    """The way over time of a single command is the lognormal distribution function, scaled to end on the target (Plamondon)."""
    hand, beats = sharp_hand(sharpness=0.0, spread=0.3, beat=0.1), synthetic._ACTIVE
    stroke = move_pen(np.array([(0, 0), (30, 40)], float), hand, Steady())
    law = stats.lognorm(s=0.3, scale=0.62 / 0.3)
    way = np.hypot(stroke[:, 0], stroke[:, 1])[1:-1]
    grid = np.arange(1, 12 * beats + 1) / 12
    expected = 50 * law.cdf(grid) / law.cdf(beats)
    begin = np.argmin(abs(expected - way[0]))
    assert way == pytest.approx(expected[begin:begin + len(way)], abs=1e-9)
    assert stroke[1:-1, 1] == pytest.approx(4 / 3 * stroke[1:-1, 0])              # without bend it is straight


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 20), st.floats(0, 0.9), st.floats(0.14, 0.36), st.floats(0, 1))
def test_movements_add_up_to_a_smooth_path_between_the_ends(seed, count, sharpness, spread, bend):
    rng = np.random.default_rng(seed)
    targets = rng.uniform(0, 100, (count, 2))
    stroke = move_pen(targets, sharp_hand(sharpness=sharpness, spread=spread, bend=bend), rng)
    assert stroke[[0, -1], :2] == pytest.approx(targets[[0, -1]])
    assert np.isfinite(stroke).all() and (np.diff(stroke[:, 2]) > 0).all() and 0 < stroke[:, 3].min() and stroke[:, 3].max() <= 1
    assert np.hypot(*np.diff(stroke[:, :2], axis=0).T).max() < 60                 # no jumps: at most a good part of one chord a sample
    centre, reach = targets.mean(0), np.ptp(targets, axis=0).max()
    assert abs(stroke[:, :2] - centre).max() <= 2 * reach + 1


def test_a_bent_stroke_is_an_arc_of_its_circle():
    chords = np.array([(10, 0), (0, 10), (-10, 0), (0, -10)], float)              # a square, run round: each corner turns by a right angle
    assert synthetic._arcs(chords, 1.0) == pytest.approx(np.array([np.pi / 4, np.pi / 2, np.pi / 2, np.pi / 4]).clip(-1.2, 1.2))
    assert synthetic._arcs(chords, 0.0) == pytest.approx(np.zeros(4))
    assert synthetic._arcs(np.array([(10, 0), (-10, 0.1)], float), 1.0) == pytest.approx(np.zeros(2))      # a cusp


def test_forgers_take_their_time_and_genuine_signers_do_not_repeat_every_stroke(crowd):
    table, _ = crowd
    lasts = table["strokes"].map(lambda strokes: strokes[-1][-1, 2]).groupby(table["kind"]).mean()
    assert lasts["skilled"] > 1.2 * lasts["genuine"]
    genuine = table[(table["kind"] == "genuine") & (table["index"] < 6)]
    counts = genuine["strokes"].map(len).groupby(genuine["signer"]).nunique()
    assert 4 <= (counts > 1).sum() <= 36                     # some do now and then, some never


def test_where_nothing_is_pressed_nothing_is_drawn():
    stroke = np.array([(10, 10, 0, 0.6), (30, 10, 0.1, 0.6), (50, 10, 0.2, 0), (70, 10, 0.3, 0)], float)
    ink = draw_ink([stroke], (20, 80), 2)
    assert ink[10, 20] > 200 and ink[10, 60] == 0 and ink.shape == (20, 80)
    thick, even = draw_ink([stroke], (20, 80), 4), draw_ink([stroke * [1, 1, 1, 0.5]], (20, 80), 2, flow=0)
    assert (thick > 0).sum() > (ink > 0).sum() and np.array_equal(even, draw_ink([stroke], (20, 80), 2, flow=0))


def test_handwriting_on_a_line():
    hand, rng = draw_hand(np.random.default_rng(5)), np.random.default_rng(6)
    strokes = handwrite("Paris 21/11/2026 a-b.", hand, rng, 10)
    points = np.concatenate(strokes)
    assert all(len(stroke) >= 2 for stroke in strokes) and np.isfinite(points).all()
    assert -35 < points[:, 1].min() < -10 and points[:, 1].max() < 25 and 100 < np.ptp(points[:, 0]) < 700
    for wrong in ("", "   ", "10 €", "ä"):
        with pytest.raises(ValueError, match="text must"):
            handwrite(wrong, hand, rng, 10)


def test_written_as_read_and_taken_up_again(tmp_path, monkeypatch):
    signers, folder = SyntheticSigners(3, seed=8, genuine=3, forgeries=2), tmp_path / "a" / "set"
    render, calls = synthetic._image, []

    def breaks(*address):
        calls.append(address)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return render(*address)

    monkeypatch.setattr(synthetic, "_image", breaks)
    with pytest.raises(KeyboardInterrupt):
        signers.write(folder)
    monkeypatch.undo()
    assert len(list(folder.rglob("*.png"))) == 6
    first = (folder / "0" / "genuine" / "0.png").stat().st_mtime_ns
    assert signers.write(folder) == 9 and signers.write(folder) == 0
    assert (folder / "0" / "genuine" / "0.png").stat().st_mtime_ns == first
    assert not list(folder.rglob("*.part"))
    assert np.array_equal(read_image(folder / "2" / "forged" / "1.png"), signers.image("2", "skilled", 1))
    back = read_folder(folder)
    assert back.table.groupby(["signer", "kind"]).size().tolist() == [3, 2] * 3


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        SyntheticSigners(1, genuine=1, forgeries=0).write(tmp_path / "set")
    assert not [file for file in (tmp_path / "set").rglob("*") if file.is_file()]


def test_a_folder_of_something_else_is_refused(tmp_path):
    signers = SyntheticSigners(1, genuine=1, forgeries=1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        signers.write(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        signers.write(tmp_path / "notes.txt")
    signers.write(tmp_path / "set")
    for other in (SyntheticSigners(1, seed=1, genuine=1, forgeries=1), SyntheticSigners(2, genuine=1, forgeries=1)):
        with pytest.raises(ValueError, match="another synthetic set"):
            other.write(tmp_path / "set")
    (tmp_path / "set" / "synthetic.json").write_text("{")
    with pytest.raises(ValueError, match="no readable recipe"):
        signers.write(tmp_path / "set")
