"""The classical cleaner: what each rule removes, what it must keep, and that nothing it is given makes it fall over."""
import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from signver_kit.classical import (
    ClassicalSettings, clean_classically, dark_ink, find_lines, ink_pieces, ink_threshold, keep_signature, printed_pieces, remove_folds, remove_lines,
    remove_print, remove_specks,
)
from signver_kit.documents import Dirt, DirtyPairs


def paper(size=(150, 220), grey=245):
    return np.full(size, grey, np.uint8)


def loops(image, tone=60, top=75, scale=1.0):
    """A run of loops, as a hand might draw them: nothing level, nothing straight."""
    turn = np.linspace(0, 8 * np.pi, 400)
    x, y = 30 + turn * 6 + 9 * np.cos(turn), top - 22 * np.sin(turn) - 0.25 * (turn - 12)
    cv2.polylines(image, [np.rint(np.column_stack([x, y]) * 16 * scale).astype(np.int32)], False, tone, max(1, round(2 * scale)), cv2.LINE_AA, 4)
    return image


def f_of(light, truth):
    grey = np.rint(light * 255).astype(np.uint8)
    dark = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1] > 0 if np.ptp(grey) else np.zeros(grey.shape, bool)
    return 2 * (dark & truth).sum() / max(dark.sum() + truth.sum(), 1)


# ---- any input ----

@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=60)))
def test_any_picture_gives_a_picture(image):
    cleaned = clean_classically(image)
    assert cleaned.shape == image.shape and cleaned.dtype == np.float32
    assert np.isfinite(cleaned).all() and cleaned.min() >= 0 and cleaned.max() <= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 240), st.integers(0, 15), st.integers(0, 2**31))
def test_blank_pictures_come_back_white(height, width, grey, noise, seed):
    image = (grey + np.random.default_rng(seed).integers(0, noise + 1, (height, width))).astype(np.uint8)
    assert (clean_classically(image) == 1).all()


def test_bytes_and_floats_agree_and_the_input_is_kept():
    image = loops(paper())
    before = image.copy()
    assert np.array_equal(clean_classically(image), clean_classically(image / 255))
    assert np.array_equal(clean_classically(image), clean_classically(np.asfortranarray(image)))
    assert np.array_equal(image, before)


@pytest.mark.parametrize("step", [remove_folds, remove_lines, remove_specks, remove_print, keep_signature])
def test_steps_leave_their_input_alone_and_never_darken(step):
    image = loops(paper())
    cv2.line(image, (5, 90), (215, 91), 80, 2)
    ink = dark_ink(image)
    before = ink.copy()
    after = step(ink)
    assert np.array_equal(ink, before) and after.dtype == np.float32 and after.shape == ink.shape
    assert (after <= ink + 1e-6).all()
    assert step(np.zeros((30, 40), np.float32)).max() == 0


@pytest.mark.parametrize("bad", [np.full((9, 9), np.nan), np.full((9, 9), 3.0), np.zeros((0, 5), np.uint8), np.zeros(7, np.uint8), np.full((4, 4), -0.5)])
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ValueError, match="must|needs"):
        clean_classically(bad)


# ---- lines ----

@settings(max_examples=20, deadline=None)
@given(st.integers(20, 130), st.integers(1, 3), st.floats(-0.02, 0.02), st.integers(20, 150))
def test_a_level_line_is_found_where_it_is(y, thick, slope, tone):
    image = paper()
    cv2.line(image, (10, y), (210, round(y + 200 * slope)), tone, thick, cv2.LINE_AA)
    found = find_lines(dark_ink(image))
    assert found and not any(line.upright for line in found)
    assert all(abs(line.offset + line.slope * x - y - slope * (x - 10)) < 2.5 for line in found for x in (line.start, line.stop))
    assert remove_lines(dark_ink(image)).max() < 0.1


def test_upright_lines_and_frames_go_and_the_transpose_is_respected():
    image = paper()
    cv2.rectangle(image, (15, 12), (205, 138), 90, 2)
    found = find_lines(dark_ink(image))
    assert sum(line.upright for line in found) == 2 and len(found) == 4
    assert {round(line.offset) for line in found if line.upright} <= {14, 15, 16, 204, 205, 206}
    assert [line.upright for line in find_lines(dark_ink(image), directions=("upright",))] == [True, True]
    assert remove_lines(dark_ink(image))[30:120, 30:190].max() == 0


def test_a_dashed_line_goes_but_uneven_bars_stay():
    dashes, bars = paper(), paper()
    for x in range(10, 210, 16):
        cv2.line(dashes, (x, 80), (x + 8, 80), 60, 2)
    for x in np.cumsum([10, 13, 27, 16, 31, 15, 22, 30]):
        cv2.line(bars, (int(x), 80), (int(x) + 8, 80), 60, 2)
    assert (remove_lines(dark_ink(dashes)) > 0.1).sum() < 0.1 * (dark_ink(dashes) > 0.1).sum()
    assert (remove_lines(dark_ink(bars)) > 0.1).sum() > 0.9 * (dark_ink(bars) > 0.1).sum()


@pytest.mark.parametrize("angle", [45, 60, 67, 80, 110, 135])
def test_a_crossing_stroke_is_mended(angle):
    image, way = paper(), 40 / np.tan(np.radians(angle))
    cv2.line(image, (round(110 - way), 40), (round(110 + way), 120), 60, 3)
    stroke = dark_ink(image) > 0.3
    cv2.line(image, (10, 80), (210, 80), 60, 2)
    mended = remove_lines(dark_ink(image)) > 0.3
    assert mended[40:120].any(axis=1).all()                                # no gap
    assert (mended & ~stroke).sum() < 0.1 * stroke.sum()                   # and little of the line


def test_handwriting_is_no_line():
    ink = dark_ink(loops(paper()))
    assert find_lines(ink) == [] and np.array_equal(remove_lines(ink), ink)


# ---- folds, specks, print ----

def test_a_fold_is_divided_out_and_the_stroke_in_it_stays():
    image = loops(paper())
    truth = image < 150
    valley = 1 - 0.35 * np.exp(-np.abs(np.arange(220) - 90) / 4)
    ink = dark_ink(np.rint(image * valley).astype(np.uint8))
    after = remove_folds(ink)
    assert ink[:20, 90].mean() > 0.2 > 0.08 > after[:20, 88:93].mean()
    assert after[truth].mean() > 0.5


def test_specks_go_by_area_and_scale_with_the_picture():
    for scale in (1, 3):
        image = loops(paper((150 * scale, 220 * scale)), scale=scale)
        strokes = clean_classically(image) < 0.5
        for x, y in ((10, 10), (200, 20), (30, 140), (190, 130)):
            cv2.rectangle(image, (x * scale, y * scale), ((x + 2) * scale - 1, (y + 2) * scale - 1), 40, -1)
        left = remove_specks(dark_ink(image))
        assert all(left[y * scale, x * scale] == 0 for x, y in ((10, 10), (200, 20), (30, 140), (190, 130)))
        assert (left[strokes] > 0.3).mean() > 0.98
    kept = remove_specks(dark_ink(image), settings=ClassicalSettings(speck_area=1))
    assert kept[10 * scale, 10 * scale] > 0.3


def test_words_on_a_base_line_go_and_scattered_letters_stay():
    letters, scattered = loops(paper()), loops(paper())
    for number, x in enumerate(range(60, 114, 9)):
        cv2.putText(letters, "HEXTNA"[number], (x, 135), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 60, 1, cv2.LINE_AA)
        cv2.putText(scattered, "HEXTNA"[number], (x, 122 + 5 * (number * 2 % 5)), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 60, 1, cv2.LINE_AA)
    before = (dark_ink(letters) > 0.3)[120:].sum()
    assert (remove_print(dark_ink(letters)) > 0.3)[120:].sum() == 0
    assert (remove_print(dark_ink(scattered)) > 0.3)[110:].sum() > 0.5 * before
    assert (remove_print(dark_ink(letters)) > 0.3)[:115].sum() > 0.95 * (dark_ink(letters) > 0.3)[:115].sum()


def test_small_pieces_cut_off_by_a_side_are_print_and_large_ones_are_not():
    image = paper()
    cv2.line(image, (0, 30), (20, 45), 60, 3)
    cv2.line(image, (0, 140), (210, 60), 60, 3)
    ink = dark_ink(image)
    pieces = ink_pieces(ink, ink_threshold(ink))
    printed = printed_pieces(pieces, ink.shape)
    assert printed.tolist() == [False, True, False]
    assert pieces.size[1:].tolist() == sorted(pieces.size[1:])


def test_pieces_count_areas_and_darkness():
    ink = np.zeros((40, 60), np.float32)
    ink[5:10, 5:15], ink[20:30, 40:44] = 0.5, 0.8
    pieces = ink_pieces(ink, 0.1)
    assert pieces.area.tolist()[1:] == [50, 40] and np.allclose(pieces.darkness[1:], [0.5, 0.8]) and pieces.size[1:].tolist() == [10, 10]
    assert (pieces.left[1], pieces.right[1], pieces.top[1], pieces.bottom[1]) == (5, 15, 5, 10)


def test_far_and_paler_pieces_are_left_out():
    image = loops(paper(), tone=60)
    cv2.circle(image, (200, 135), 5, 60, -1)                  # equally dark, but far from every stroke
    cv2.circle(image, (60, 110), 5, 190, -1)                  # near, but pale
    cv2.circle(image, (120, 105), 4, 60, -1)                  # near and dark: a dot
    left = keep_signature(dark_ink(image))
    assert left[135, 200] == 0 and left[110, 60] == 0 and left[105, 120] > 0.5


# ---- whole pictures ----

@pytest.fixture(scope="module")
def pairs():
    pairs = DirtyPairs(40, seed=21, size=(150, 220))
    return [pairs[i] for i in range(40)]


def test_it_cleans(pairs):
    dirty = np.array([f_of(pair.dirty / 255, pair.ink) for pair in pairs])
    cleaned = np.array([f_of(clean_classically(pair.dirty), pair.ink) for pair in pairs])
    error = np.array([[np.mean((light - pair.clean / 255) ** 2) for light in (pair.dirty / 255, clean_classically(pair.dirty))] for pair in pairs])
    assert cleaned.mean() > max(0.7, dirty.mean() + 0.15)
    assert np.log10(error[:, 0] / error[:, 1]).mean() > 1     # 10 dB


def test_clean_signatures_survive():
    pairs = DirtyPairs(25, seed=22, size=(150, 220), dirt=Dirt.none())
    kept = [f_of(clean_classically(pair.dirty), pair.ink) for pair in pairs]
    assert np.mean(kept) > 0.9


def test_twice_the_size_is_cleaned_about_as_well(pairs):
    small, large = [], []
    for pair in pairs[:20]:
        double = clean_classically(cv2.resize(pair.dirty, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
        assert double.shape == (300, 440)
        small.append(f_of(clean_classically(pair.dirty), pair.ink))
        large.append(f_of(cv2.resize(double, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), pair.ink))
    assert np.mean(large) > np.mean(small) - 0.12


def test_settings_are_frozen_and_used(pairs):
    with pytest.raises(AttributeError):
        ClassicalSettings().letters = 2
    image = loops(paper())
    cv2.line(image, (10, 130), (210, 130), 60, 2)
    never = ClassicalSettings(line_length=(400, 400), same_dark=1.0)
    assert (clean_classically(image, never)[128:133, 40:180] < 0.5).any() and clean_classically(image)[128:133, 40:180].min() > 0.9
