"""The quality of cleaned pictures: worked by hand, held against scikit-image, and what must be true of any picture."""
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from signver_kit import quality
from signver_kit.documents import Dirt, DirtyPairs, dirty
from signver_kit.images import NoInk, ink_mask, otsu_threshold
from signver_kit.quality import (PSNR_CAP, cleaning_metrics, ink_band, ink_lost, main_strokes, print_left, psnr, ssim, stray_ink, stroke_metrics,
                                 stroke_threshold, summarise_cleaning)

SKIMAGE = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)
NAMES = {"psnr", "psnr_input", "ssim", "ssim_input", "psnr_ink", "ssim_ink", "psnr_ink_input", "stroke_precision", "stroke_recall", "stroke_f",
         "stroke_f_input", "ink_lost", "print_left"}
SEEDS = st.integers(0, 10**6)
FEW = settings(max_examples=40)         # pictures are dear, and these rules break on almost any picture or on none


def strokes(seed, size=(40, 60)):
    """A clean uint8 picture: soft strokes of some darkness on white paper."""
    rng, picture = np.random.default_rng(seed), np.full(size, 255, np.uint8)
    points = rng.integers(3, (size[1] - 3, size[0] - 3), size=(rng.integers(2, 7), 2)).astype(np.int32)
    cv2.polylines(picture, [points], False, int(rng.integers(0, 160)), int(rng.integers(1, 4)), cv2.LINE_AA)
    return picture


def anything(seed, size=(40, 60)):
    """Any picture, float in [0, 1]."""
    rng = np.random.default_rng((seed, 1))
    return np.clip(rng.normal(rng.uniform(0, 1), rng.uniform(0, 0.6), size), 0, 1)


def mixed_up(truth, seed):
    """A uint8 output that has something of the truth: grey, shifted, blurred or covered."""
    rng = np.random.default_rng((seed, 2))
    output = np.roll(truth, tuple(rng.integers(-2, 3, 2)), (0, 1)) * rng.uniform(0.4, 1) + rng.uniform(0, 40)
    return np.clip(output + rng.normal(0, rng.uniform(0, 60), truth.shape), 0, 255).astype(np.uint8)


# ---- PSNR ----

def test_psnr_by_hand():
    assert psnr(np.zeros((2, 2)), np.ones((2, 2))) == 0
    assert psnr(np.full((4, 5), 0.9), np.ones((4, 5))) == pytest.approx(20)
    assert psnr(np.float64([[1, 1], [1, 0.5]]), np.ones((2, 2))) == pytest.approx(10 * np.log10(16))           # MSE 1/16
    assert psnr(np.uint8([[255, 204]]), np.uint8([[255, 255]])) == pytest.approx(10 * np.log10(50))            # one of two wrong by 1/5
    assert psnr(np.uint8([[255, 204]]), np.uint8([[255, 255]]), np.array([[False, True]])) == pytest.approx(10 * np.log10(25))


def test_psnr_is_capped():
    picture = anything(3)
    assert psnr(picture, picture) == PSNR_CAP == psnr(picture, np.clip(picture - 1e-9, 0, 1))
    assert psnr(picture, np.abs(picture - 1e-4)) == pytest.approx(80, abs=0.01)
    one_level = np.full((160, 320), 255, np.uint8)
    one_level[3, 4] = 254
    assert psnr(one_level, np.full_like(one_level, 255)) == pytest.approx(20 * np.log10(255) + 10 * np.log10(160 * 320))


@FEW
@given(SEEDS)
def test_psnr_is_scikit_images_and_symmetric(seed):
    output, truth = anything(seed), strokes(seed)
    assert psnr(output, truth) == psnr(truth, output) == pytest.approx(peak_signal_noise_ratio(truth / 255, output, data_range=1))


@FEW
@given(SEEDS, st.lists(st.floats(0.01, 0.9), min_size=2, max_size=2, unique=True))
def test_psnr_falls_with_noise(seed, amounts):
    truth, noise = np.full((20, 30), 0.5), np.random.default_rng(seed).uniform(-0.5, 0.5, (20, 30))
    little, much = sorted(amounts)
    assert psnr(truth + little * noise, truth) > psnr(truth + much * noise, truth) - 1e-9
    assert psnr(truth + little * noise, truth) - psnr(truth + much * noise, truth) == pytest.approx(20 * np.log10(much / little), abs=1e-6)


@FEW
@given(SEEDS)
def test_a_mask_is_a_selection(seed):
    output, truth = anything(seed), anything(seed + 1)
    mask = anything(seed + 2) > np.median(anything(seed + 2))
    mask[3, 7] = True
    assert psnr(output, truth, mask) == pytest.approx(psnr(output[mask][None], truth[mask][None]))
    assert psnr(output, truth, np.ones_like(mask)) == psnr(output, truth)
    changed = np.where(mask, output, 1 - output)
    assert psnr(changed, truth, mask) == psnr(output, truth, mask)


# ---- SSIM ----

@FEW
@given(SEEDS)
def test_ssim_is_scikit_images(seed):
    output, truth, mask = anything(seed), strokes(seed), anything(seed + 1) > 0.5
    mask[0, 0] = True
    mean, values = structural_similarity(output, truth / 255, full=True, **SKIMAGE)
    assert ssim(output, truth) == pytest.approx(mean, abs=1e-12)
    assert ssim(output, truth, mask) == pytest.approx(values[mask].mean(), abs=1e-12)
    assert ssim(output, truth) == pytest.approx(ssim(truth, output), abs=1e-9)
    assert -1 <= ssim(output, truth) <= 1 and ssim(truth, truth) == 1


def test_ssim_from_the_formula():
    """One window, reckoned out from equation 13 of the paper, without scikit-image."""
    x, y = anything(5, (11, 11)), anything(6, (11, 11))
    bell = np.exp(-np.arange(-5, 6) ** 2 / (2 * 1.5**2))
    weight = np.outer(bell, bell) / bell.sum() ** 2
    mx, my = (weight * x).sum(), (weight * y).sum()
    vx, vy, cov = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum(), (weight * (x - mx) * (y - my)).sum()
    c1, c2 = 0.01**2, 0.03**2
    by_hand = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(x, y) == pytest.approx(by_hand, abs=1e-9)          # an 11 x 11 picture has one whole window


def test_ssim_of_flat_pictures():
    assert ssim(np.zeros((11, 11)), np.ones((11, 11))) == pytest.approx(1e-4 / (1 + 1e-4))
    assert ssim(np.full((12, 12), 0.5), np.ones((12, 12))) == pytest.approx((1 + 1e-4) / (1.25 + 1e-4))


# ---- the band ----

@FEW
@given(SEEDS, st.floats(0, 9))
def test_band_is_a_distance(seed, width):
    ink = np.random.default_rng(seed).random((9, 14)) < 0.04
    place = np.argwhere(ink)
    band = ink_band(ink, width)
    for at in np.ndindex(ink.shape):
        assert band[at] == (len(place) > 0 and np.sqrt(((place - at) ** 2).sum(axis=1)).min() <= width)


def test_band_by_hand():
    ink = np.zeros((13, 13), bool)
    assert not ink_band(ink).any() and ink_band(~ink).all()
    ink[6, 6] = True
    assert [int(ink_band(ink, width).sum()) for width in (0, 1, 1.5, 2, 5)] == [1, 5, 9, 13, 81]
    assert np.array_equal(ink_band(ink), ink_band(ink, 5)) and ink_band(ink).dtype == bool


# ---- strokes ----

@FEW
@given(SEEDS)
def test_threshold_splits_as_otsu_does(seed):
    truth = strokes(seed)
    threshold = stroke_threshold(truth)
    assert np.array_equal(truth / 255 <= threshold, truth <= otsu_threshold(truth)) and 0 < threshold < 1
    assert stroke_threshold(truth / 255) == stroke_threshold(np.float32(truth) / 255) == threshold
    assert not (truth / 255 == threshold).any()


def test_threshold_lies_in_the_middle_of_the_gap():
    assert stroke_threshold(np.uint8([[0, 255]])) == 0.5
    assert stroke_threshold(np.uint8([[0, 30, 60, 255, 240, 240]])) == pytest.approx(150 / 255)


def test_strokes_by_hand():
    truth = np.float64([[0, 0, 0, 0, 1, 1, 1, 1, 1, 1]])
    output = np.float64([[0, 0.5, 0.51, 0.9, 0.2, 1, 1, 1, 1, 1]])             # 3 called ink, 2 rightly, of 4
    assert stroke_metrics(output, truth) == pytest.approx({"stroke_precision": 2 / 3, "stroke_recall": 1 / 2, "stroke_f": 4 / 7})
    nothing = stroke_metrics(np.ones_like(truth), truth)
    assert np.isnan(nothing["stroke_precision"]) and nothing["stroke_recall"] == nothing["stroke_f"] == 0
    wrong = stroke_metrics(1 - truth, truth)
    assert wrong == {"stroke_precision": 0, "stroke_recall": 0, "stroke_f": 0}
    assert stroke_metrics(np.zeros_like(truth), truth) == pytest.approx({"stroke_precision": 0.4, "stroke_recall": 1, "stroke_f": 0.8 / 1.4})


@FEW
@given(SEEDS)
def test_f_is_the_harmonic_mean(seed):
    truth = strokes(seed)
    found = stroke_metrics(mixed_up(truth, seed), truth)
    precision, recall = found["stroke_precision"], found["stroke_recall"]
    assert 0 <= found["stroke_f"] <= 1 and 0 <= recall <= 1 and (np.isnan(precision) or 0 <= precision <= 1)
    if precision + recall > 0:
        assert found["stroke_f"] == pytest.approx(2 * precision * recall / (precision + recall))


@FEW
@given(SEEDS)
def test_nothing_in_the_output_moves_the_threshold(seed):
    """Only the side of the truth's threshold counts: any output with the same cut has the same figures."""
    truth = strokes(seed)
    output, threshold = mixed_up(truth, seed), stroke_threshold(truth)
    cut = (output / 255 > threshold).astype(float)
    np.testing.assert_equal(stroke_metrics(output, truth), stroke_metrics(cut, truth))


# ---- ink lost, print left ----

@FEW
@given(SEEDS, st.floats(0, 1))
def test_fading_loses_what_it_fades(seed, share):
    truth = strokes(seed) / 255
    assert ink_lost(1 - (1 - share) * (1 - truth), truth) == pytest.approx(share, abs=1e-9)


@FEW
@given(SEEDS)
def test_ink_lost_in_any_output(seed):
    truth = strokes(seed)
    output = mixed_up(truth, seed)
    assert 0 <= ink_lost(output, truth) <= 1
    assert ink_lost(np.minimum(output, truth), truth) == 0                     # darker strokes lose nothing
    elsewhere = np.where(truth / 255 <= stroke_threshold(truth), output, 255).astype(np.uint8)
    assert ink_lost(elsewhere, truth) == ink_lost(output, truth)               # what lies beside the ink does not matter


def test_darker_strokes_make_up_for_nothing():
    assert ink_lost(np.float64([[0, 1, 1, 1]]), np.float64([[0.5, 0.5, 1, 1]])) == pytest.approx(0.5)


@FEW
@given(SEEDS, st.floats(0, 2))
def test_print_left_is_a_share(seed, share):
    truth, rng = strokes(seed) / 255, np.random.default_rng((seed, 3))
    printed = rng.random(truth.shape) < 0.3
    added = 0.5 * np.where(printed, np.minimum(truth, 1), 0) * rng.uniform(0.1, 1, truth.shape)
    left = print_left(truth - share * added, truth - added, truth, printed)
    assert left == pytest.approx(share, abs=1e-9)


def test_print_left_by_hand():
    truth = np.float64([[0, 1, 1, 1, 1]])
    dirt = np.float64([[0, 0.2, 0.5, 0.5, 0.9]])
    printed = np.array([[True, True, True, True, False]])
    output = np.float64([[1, 0, 0.6, 1, 0]])                                   # counted: the third and the fourth pixel; left 0.4 of 1.0
    assert print_left(output, dirt, truth, printed) == pytest.approx(0.4)
    assert print_left(np.zeros_like(truth), dirt, truth, printed) == pytest.approx(2)
    assert np.isnan(print_left(output, dirt, truth, np.zeros_like(printed)))
    assert np.isnan(print_left(output, dirt, truth, np.array([[True, True, False, False, False]])))            # only on and beside the ink
    assert np.isnan(print_left(output, truth, truth, printed))                                                 # printed on, but nothing got darker


# ---- whole pairs ----

PAIRS = [DirtyPairs(6, seed=3, size=(64, 128), dirt=Dirt(words=1))[i] for i in range(6)]


@pytest.mark.parametrize("pair", PAIRS)
def test_a_perfect_output(pair):
    found = cleaning_metrics(pair.clean, pair)
    assert set(found) == NAMES and all(type(value) is float for value in found.values())
    assert found["psnr"] == found["psnr_ink"] == PSNR_CAP and found["ssim"] == pytest.approx(1) and found["ssim_ink"] == pytest.approx(1)
    assert found["stroke_precision"] == found["stroke_recall"] == found["stroke_f"] == 1 and found["ink_lost"] == 0 and found["print_left"] == 0


@pytest.mark.parametrize("pair", PAIRS)
def test_doing_nothing(pair):
    found = cleaning_metrics(pair.dirty, pair)
    assert all(found[name] == found[f"{name}_input"] for name in ("psnr", "ssim", "psnr_ink", "stroke_f"))
    assert found["print_left"] == 1 and found["stroke_f"] < 0.9


@pytest.mark.parametrize("pair", PAIRS)
def test_an_empty_sheet(pair):
    """It is what PSNR and SSIM reward, and what the others are for."""
    found = cleaning_metrics(np.full_like(pair.clean, 255), pair)
    assert found["ink_lost"] == 1 and found["print_left"] == 0 and found["stroke_f"] == found["stroke_recall"] == 0 and np.isnan(found["stroke_precision"])
    assert found["ssim_ink"] < 0.5 < found["ssim"] and found["psnr_ink"] < found["psnr"]


@pytest.mark.parametrize("pair", PAIRS[:3])
def test_a_whole_is_its_parts_and_changes_nothing(pair):
    output, band = mixed_up(pair.clean, 1), ink_band(pair.ink)
    before = [array.copy() for array in (output, pair.dirty, pair.clean, pair.ink, pair.print)]
    found = cleaning_metrics(output, pair)
    assert all(np.array_equal(*both) for both in zip(before, (output, pair.dirty, pair.clean, pair.ink, pair.print)))
    assert found == {"psnr": psnr(output, pair.clean), "psnr_input": psnr(pair.dirty, pair.clean), "ssim": ssim(output, pair.clean),
                     "ssim_input": ssim(pair.dirty, pair.clean), "psnr_ink": psnr(output, pair.clean, band), "ssim_ink": ssim(output, pair.clean, band),
                     "psnr_ink_input": psnr(pair.dirty, pair.clean, band), **stroke_metrics(output, pair.clean),
                     "stroke_f_input": stroke_metrics(pair.dirty, pair.clean)["stroke_f"], "ink_lost": ink_lost(output, pair.clean),
                     "print_left": print_left(output, pair.dirty, pair.clean, pair.print)}
    as_float = cleaning_metrics(np.float32(output) / 255, pair)
    assert as_float == pytest.approx(found, rel=1e-4)
    assert all(as_float[name] == found[name] for name in ("stroke_precision", "stroke_recall", "stroke_f"))


def test_a_margin_changes_the_paper_only():
    """What the band, the strokes and the two faults say does not depend on how much white there is around."""
    pair = PAIRS[0]
    wide = SimpleNamespace(**{name: np.pad(getattr(pair, name), 40, constant_values=value)
                              for name, value in (("dirty", 255), ("clean", 255), ("ink", False), ("print", False))})
    output = pair.dirty
    near, far = cleaning_metrics(output, pair), cleaning_metrics(np.pad(output, 40, constant_values=255), wide)
    assert far["psnr"] == pytest.approx(near["psnr"] + 10 * np.log10(wide.clean.size / pair.clean.size)) and far["ssim"] > near["ssim"]
    for name in ("psnr_ink", "ink_lost", "print_left"):
        assert far[name] == pytest.approx(near[name])
    assert abs(stroke_threshold(wide.clean) - stroke_threshold(pair.clean)) < 0.1          # Otsu's own: more paper moves it a little


def test_without_print_there_is_none_left():
    pair = dirty(PAIRS[0].clean, seed=1, dirt=Dirt.none())
    found = cleaning_metrics(pair.dirty, pair)
    assert np.isnan(found["print_left"]) and found["stroke_f"] > 0.95


# ---- summaries ----

def test_summary_by_hand():
    rows = [{"psnr": 20.0, "print_left": float("nan"), "stroke_precision": float("nan")}, {"psnr": 30.0, "print_left": 0.25, "stroke_precision": float("nan")},
            {"psnr": 100.0, "print_left": 0.75, "stroke_precision": float("nan")}]
    np.testing.assert_equal(summarise_cleaning(rows), {"psnr": 50.0, "print_left": 0.5, "stroke_precision": float("nan"), "psnr_median": 30.0})


def test_summary_of_pairs():
    rows = [cleaning_metrics(pair.dirty, pair) for pair in PAIRS]
    found = summarise_cleaning(iter(rows))
    assert set(found) == NAMES | {"psnr_median"} and found["stroke_f"] == pytest.approx(np.mean([row["stroke_f"] for row in rows]))
    np.testing.assert_equal(summarise_cleaning(rows[:1]), rows[0] | {"psnr_median": rows[0]["psnr"]})


@pytest.mark.parametrize("rows, says", [
    ([], "got none"), ({"psnr": 1.0}, "got str"), ([{"psnr": 1.0}, 2.0], "got float"), ([{"psnr": 1.0}, {"ssim": 1.0}], "row 1 differs in psnr, ssim"), ([{"ssim": 1.0}], "row 0 differs in psnr"),
    ([{"psnr": 1.0, "file": "a.png"}], "must be a number"), ([{"psnr": None}], "must be a number"),
])
def test_what_cannot_be_summarised(rows, says):
    with pytest.raises(ValueError, match=says):
        summarise_cleaning(rows)


# ---- without a truth ----

def scattered(seed, size=(30, 44)):
    """Dark blots of any sizes on white paper; none are so many that the paper is in doubt."""
    rng, picture = np.random.default_rng((seed, 4)), np.full(size, 255, np.uint8)
    picture[3:3 + rng.integers(4, 9), 5:5 + rng.integers(4, 14)] = 40           # writing, not only specks
    for _ in range(rng.integers(2, 7)):
        top, left = rng.integers(1, size[0] - 2), rng.integers(1, size[1] - 2)
        picture[top:min(size[0] - 1, top + rng.integers(1, 9)), left:min(size[1] - 1, left + rng.integers(1, 14))] = rng.integers(0, 90)
    return picture


def by_walking(ink, share, bridge):
    """Main strokes without any labelling: from pixel to pixel, in steps of at most bridge + 1 to each side."""
    left, pieces = {tuple(at) for at in np.argwhere(ink).tolist()}, []
    while left:
        piece, edge = set(), {left.pop()}
        while edge:
            piece |= edge
            edge = {(y, x) for y, x in left if any(max(abs(y - v), abs(x - u)) <= bridge + 1 for v, u in edge)}
            left -= edge
        pieces.append(np.array(list(piece)))
    extent = [np.sqrt(np.prod(np.ptp(piece, axis=0) + 1)) for piece in pieces]
    main = np.zeros_like(ink)
    for piece, own in zip(pieces, extent):
        main[tuple(piece.T)] = own >= share * max(extent)
    return main


@FEW
@given(SEEDS, st.sampled_from([0, 0.1, 0.25, 0.5, 1]), st.integers(0, 3))
def test_main_strokes_are_the_extended_pieces(seed, share, bridge):
    picture = scattered(seed)
    ink = ink_mask(picture)
    main = main_strokes(picture, share, bridge)
    assert main.dtype == bool and np.array_equal(main, by_walking(ink, share, bridge))
    assert np.array_equal(main_strokes(picture / 255, share, bridge), main)
    if share == 0:
        assert np.array_equal(main, ink)


def test_length_alone_and_height_alone_do_not_make_main_strokes():
    page = np.full((120, 330), 255, np.uint8)
    cv2.ellipse(page, (120, 50), (95, 28), 0, 0, 360, 30, 2)                   # what is written: about 190 x 57 pixels
    page[112:114, 5:325] = 30                                                   # a ruled line below it
    page[20:31, 280:288] = 30                                                   # a letter
    main = main_strokes(page)
    assert main[:100, :230].any() and not main[105:].any() and not main[:, 250:].any()
    page[75:113, 120] = 30                                                      # a stroke comes down to the line: one piece now
    assert main_strokes(page)[112:114, 5:325].all()


def test_gaps_up_to_the_bridge():
    for gap in range(4):
        for step in ((0, 1), (1, 0), (1, 1)):
            page = np.full((40, 40), 255, np.uint8)
            page[3:15, 3:15] = 0
            at = 15 + gap * step[0] if step[0] else 10, 15 + gap * step[1] if step[1] else 10
            page[at] = 0
            assert [bool(main_strokes(page, bridge=bridge)[at]) for bridge in range(4)] == [gap <= bridge for bridge in range(4)]


@FEW
@given(SEEDS)
def test_stray_ink_of_nothing_done_and_of_the_empty_sheet(seed):
    before = scattered(seed)
    ink, main = ink_mask(before), main_strokes(before)
    stray = (ink & ~main).sum() / ink.sum()
    removed = np.nan if stray == 0 else 0
    np.testing.assert_equal(stray_ink(before, before), {"stray_before": stray, "stray_after": stray, "stray_removed": removed, "main_kept": 1})
    white = stray_ink(before, np.full_like(before, 255))
    np.testing.assert_equal(white, {"stray_before": stray, "stray_after": 0, "stray_removed": removed + 1, "main_kept": 0})
    perfect = stray_ink(before, np.where(main, before, 255).astype(np.uint8))
    np.testing.assert_equal(perfect, {"stray_before": stray, "stray_after": 0, "stray_removed": removed + 1, "main_kept": 1})


def test_stray_ink_by_hand():
    before = np.full((30, 60), 250, np.uint8)
    before[5:25, 5:25] = 50                                                     # main: 400 pixels
    before[10:14, 40:45] = 50                                                   # stray: 20 pixels
    after = before / 255
    after[5:10, 5:25] = 1                                                       # a quarter of the main strokes is gone
    after[10:14, 42:45] = 1                                                     # 12 of 20 stray pixels are
    found = stray_ink(before, after)
    assert found == pytest.approx({"stray_before": 20 / 420, "stray_after": 8 / 420, "stray_removed": 0.6, "main_kept": 0.75})
    after[28, 30:40] = 0.1                                                      # 10 pixels of new ink on the paper
    assert stray_ink(before, after)["stray_after"] == pytest.approx(18 / 420)
    after[28, 30:40] = 0.9                                                      # new, but not as dark as ink
    assert stray_ink(before, after)["stray_after"] == pytest.approx(8 / 420)
    after[25:27, 5:25] = 0.1                                                    # a stroke that grew by two pixels is no stray ink
    assert stray_ink(before, after)["stray_after"] == pytest.approx(8 / 420)


def test_half_of_the_darkness_is_still_dark():
    before = np.full((20, 40), 200, np.uint8)                                   # grey paper; ink of darkness 0.8 beside it
    before[5:15, 5:15] = 40
    for grey, kept in ((0.2, 1), (0.59, 1), (0.61, 0), (1.0, 0)):               # on white paper now
        after = np.ones((20, 40))
        after[5:15, 5:15] = grey
        assert stray_ink(before, after)["main_kept"] == kept
    assert stray_ink(before, np.where(before < 99, 40, 255).astype(np.uint8))["main_kept"] == 1


def test_light_ink_on_a_dark_ground_is_ink():
    before = scattered(5)
    after = np.where(np.arange(before.shape[1]) < 12, before, 255).astype(np.uint8)            # what lies at the right is gone
    assert np.array_equal(main_strokes(255 - before), main_strokes(before))
    assert stray_ink(255 - before, after) == pytest.approx(stray_ink(before, after), nan_ok=True) and stray_ink(before, after)["main_kept"] > 0


@pytest.mark.parametrize("share, bridge, says", [(-0.1, 1, "share must lie"), (1.1, 1, "share must lie"), (float("nan"), 1, "share must lie"), (0.25, -1, "bridge must be"),
                                                 (0.25, 0.5, "bridge must be")])
def test_bad_shares_and_bridges(share, bridge, says):
    for call in (lambda: main_strokes(TRUTH, share, bridge), lambda: stray_ink(TRUTH, TRUTH, share, bridge)):
        with pytest.raises(ValueError, match=says):
            call()


def test_blank_crops_have_no_main_strokes():
    for call in (main_strokes, lambda blank: stray_ink(blank, TRUTH)):
        with pytest.raises(NoInk, match="16 grey levels"):
            call(WHITE)


def test_all_black_is_no_improvement():
    found = stray_ink(TRUTH, np.zeros_like(TRUTH))
    assert found["main_kept"] == 1 and found["stray_after"] > 0.5 + found["stray_before"]


# ---- bad input ----

WHITE = np.full((16, 20), 255, np.uint8)
TRUTH = strokes(2, (16, 20))
CALLS = {
    "psnr": lambda output: psnr(output, TRUTH), "psnr's truth": lambda output: psnr(TRUTH, output), "ssim": lambda output: ssim(output, TRUTH),
    "strokes": lambda output: stroke_metrics(output, TRUTH), "threshold": stroke_threshold, "main strokes": main_strokes, "stray": lambda before: stray_ink(before, TRUTH), "stray after": lambda after: stray_ink(TRUTH, after), "ink lost": lambda output: ink_lost(output, TRUTH),
    "print left": lambda output: print_left(output, TRUTH, TRUTH, TRUTH < 99),
    "print left's dirty": lambda dirt: print_left(TRUTH, dirt, TRUTH, TRUTH < 99),
    "all": lambda output: cleaning_metrics(output, SimpleNamespace(dirty=TRUTH, clean=TRUTH, ink=TRUTH < 99, print=TRUTH < 99)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("output, says", [
    (WHITE * 1.0, r"must lie in \[0, 1\], got 255 to 255"), (WHITE / -255, "must lie in"), (np.full((16, 20), np.nan), "got nan to nan"),
    (WHITE > 0, "got dtype bool"), (WHITE.astype(int), "got dtype int64"), (WHITE[None], r"got shape \(1, 16, 20\)"), (WHITE[:0], "got shape"),
    (None, "dtype object"),
], ids=["255.0", "negative", "NaN", "bool", "int", "batch", "empty", "None"])
def test_no_picture(call, output, says):
    with pytest.raises(ValueError, match=says):
        call(output)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("threshold", "main strokes")])
def test_shapes_must_agree(name):
    with pytest.raises(ValueError, match=r"must have one shape, got .*\(15, 20\)"):
        CALLS[name](WHITE[1:])


def test_a_hair_beyond_white_is_rounding():
    truth = TRUTH / 255
    assert psnr(truth * np.float32(1 + 1e-6), truth) == PSNR_CAP
    with pytest.raises(ValueError, match=r"got .* to 1\.001"):
        psnr(truth * 1.001, truth)


@pytest.mark.parametrize("mask, says", [(WHITE, "must be bool"), (WHITE[1:] > 0, "must have the pictures' shape"), (WHITE > 255, "at least one pixel"),
                                        ((WHITE > 0)[None], "must be bool")])
def test_bad_masks(mask, says):
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match=says):
            measure(TRUTH, TRUTH, mask)


def test_other_refusals():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(TRUTH[:10], TRUTH[:10])
    for width in (-1, float("nan")):
        with pytest.raises(ValueError, match="width must be"):
            ink_band(TRUTH < 99, width)
    with pytest.raises(ValueError, match="printed must be bool"):
        print_left(TRUTH, TRUTH, TRUTH, TRUTH)
    with pytest.raises(ValueError, match="ndarray without dirty"):
        cleaning_metrics(TRUTH, TRUTH)
    no_ink = SimpleNamespace(dirty=TRUTH, clean=TRUTH, ink=TRUTH > 255, print=TRUTH < 99)
    with pytest.raises(ValueError, match="at least one pixel"):
        cleaning_metrics(TRUTH, no_ink)


@pytest.mark.parametrize("blank", [WHITE, np.full((16, 20), 0.4), np.zeros((16, 20), np.uint8), np.uint8(255 - 15 * (TRUTH < 99))])
def test_a_blank_truth_has_no_strokes(blank):
    for call in (stroke_threshold, lambda truth: stroke_metrics(TRUTH, truth), lambda truth: ink_lost(TRUTH, truth),
                 lambda truth: cleaning_metrics(TRUTH, SimpleNamespace(dirty=TRUTH, clean=truth, ink=TRUTH < 99, print=TRUTH < 99))):
        with pytest.raises(NoInk, match="at least 16 grey levels"):
            call(blank)


def test_the_names_of_the_module():
    assert set(quality.__all__) == {"PSNR_CAP", "psnr", "ssim", "ink_band", "stroke_threshold", "stroke_metrics", "ink_lost", "print_left", "cleaning_metrics",
                                    "summarise_cleaning", "main_strokes", "stray_ink"}
