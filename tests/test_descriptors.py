"""The untrained HOG: against a pixel-by-pixel count, invariants, refusals, its figures on real signatures. Local descriptors: by hand. The statistics of ink: on drawn shapes."""
import pickle
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signver_kit import datasets, protocols
from signver_kit.descriptors import (INK_STATISTICS, Description, LocalMap, describe_hog, describe_ink, describe_local, direction_histograms, gradients, hog,
                                     ink_statistics, normalised_blocks)
from signver_kit.images import NoInk
from signver_kit.metrics import eer


def scribble(seed, shape=(96, 192), points=12):
    """A crooked line of ink, 3 pixels wide."""
    rng = np.random.default_rng(seed)
    ink = np.zeros(shape, np.float32)
    corners = rng.uniform([4, 4], [shape[0] - 5, shape[1] - 5], (points, 2))
    for a, b in zip(corners[:-1], corners[1:]):
        for t in np.linspace(0, 1, 200):
            y, x = np.rint(a + t * (b - a)).astype(int)
            ink[y - 1:y + 2, x - 1:x + 2] = 1
    return ink


def test_gradients_are_central_differences_by_hand():
    image = np.array([[0, 0, 1], [0, 2, 4], [0, 0, 9]], np.float32)
    magnitude, direction = gradients(image)
    # middle pixel: right (4 - 0) / 2, down (0 - 0) / 2; top right corner: right 1 - 0, down 4 - 1 (one-sided at the border)
    assert magnitude[1, 1] == pytest.approx(2) and direction[1, 1] == pytest.approx(0)
    assert magnitude[0, 2] == pytest.approx(np.hypot(1, 3)) and direction[0, 2] == pytest.approx(np.arctan2(3, 1))


def test_direction_is_unsigned_and_below_pi():
    image = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    _, direction = gradients(image)
    _, inverted = gradients(1 - image)
    assert direction.min() >= 0 and direction.max() < np.pi
    turn = np.abs(direction - inverted)
    assert np.minimum(turn, np.pi - turn).max() < 1e-3


def test_a_slope_just_below_zero_stays_in_range():
    image = np.tile(np.arange(4, dtype=np.float32), (4, 1))
    image[:, 0] -= np.float32(1e-9) * np.arange(4, dtype=np.float32)       # direction -1e-9: mod π, float32 rounds that up to π itself
    assert np.mod(np.float32(-1e-9), np.float32(np.pi)) >= np.float32(np.pi)
    assert gradients(image)[1].max() < np.pi


def test_histograms_equal_a_count_pixel_by_pixel():
    image = np.random.default_rng(1).random((12, 24)).astype(np.float32)
    magnitude, direction = gradients(image)
    expected = np.zeros((2, 3, 9))
    for y in range(12):
        for x in range(24):
            for k in range(9):      # triangular share by the distance to the bin's middle, which goes round
                away = abs(direction[y, x] - (k + 0.5) * np.pi / 9)
                away = min(away, np.pi - away) / (np.pi / 9)
                expected[y // 6, x // 8, k] += magnitude[y, x] * max(0, 1 - away)
    assert direction_histograms(image[None], (2, 3))[0] == pytest.approx(expected, abs=1e-4)


def test_blocks_join_four_cells_and_never_exceed_one():
    histograms = np.random.default_rng(2).random((1, 3, 4, 5)).astype(np.float32) * 10
    blocks = normalised_blocks(histograms)
    cells = np.concatenate([histograms[0, 1, 2], histograms[0, 1, 3], histograms[0, 2, 2], histograms[0, 2, 3]])
    assert blocks[0, 1, 2] == pytest.approx(cells / np.linalg.norm(cells), abs=1e-6)
    faint = np.full((1, 2, 2, 1), 0.1, np.float32)      # length 0.2: below the floor, so divided by the floor
    assert normalised_blocks(faint, floor=2.0)[0, 0, 0] == pytest.approx([0.05] * 4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(3, 4), (6, 12), (8, 8)]), st.integers(1, 12))
def test_unit_length_no_negative_entry_and_the_promised_size(seed, cells, directions):
    vector = hog(scribble(seed, points=4), cells, directions)
    assert vector.shape == ((cells[0] - 1) * (cells[1] - 1) * 4 * directions,) and vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) and vector.min() >= 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_a_shift_costs_less_than_another_drawing(seed):
    ink = scribble(seed)
    here, shifted, other = describe_hog([ink, np.roll(ink, 1, axis=1), scribble(seed + 20_000)])
    assert np.linalg.norm(here - shifted) < 0.7 * np.linalg.norm(here - other)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_half_a_turn_turns_the_cells_and_keeps_the_directions(seed):
    histograms = direction_histograms(np.stack([scribble(seed), scribble(seed)[::-1, ::-1]]))
    assert histograms[1] == pytest.approx(histograms[0, ::-1, ::-1], abs=1e-3)


def test_one_image_a_batch_a_list_and_bytes_agree():
    images = np.stack([scribble(k, points=3) for k in range(130)])      # more than one chunk
    batch = hog(images)
    assert batch.shape == (130, 1980)
    for k in (0, 127, 128, 129):
        assert batch[k] == pytest.approx(hog(images[k]), abs=1e-6)
    assert describe_hog(list(images)) == pytest.approx(batch, abs=1e-6)
    assert describe_hog((images * 255).astype(np.uint8)) == pytest.approx(batch, abs=1e-5)
    assert describe_hog(images[0]).shape == (1, 1980)
    assert describe_hog([]).shape == (0, 1980)


def test_another_shape_is_cropped_and_placed():
    ink = scribble(5)
    wide = np.zeros((300, 500), np.float32)
    wide[100:196, 200:392] = ink
    twice = np.kron(ink, np.ones((2, 2), np.float32))
    a, b = describe_hog([wide, np.pad(twice, 7)])
    assert np.linalg.norm(a - b) < 0.25 < np.linalg.norm(a - describe_hog(scribble(6))[0])


@pytest.mark.parametrize("wrong, rule", [
    (np.zeros((96, 192), np.float32), "image 0 is 0 everywhere"),
    (np.ones((96, 192), np.float32), "everywhere"),
    (np.zeros((2, 96, 192, 1), np.float32), "channel axis"),
    (np.full((96, 192), 3.0), r"\[0, 1\]"),
    (np.full((96, 192), -1.0), r"\[0, 1\]"),
    (np.full((96, 192), np.nan), r"\[0, 1\]"),
    ([np.zeros((0, 5))], "not empty"),
    ([np.zeros(5)], "2-D"),
])
def test_what_is_not_ink_is_refused(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        hog(wrong)


def test_blank_is_no_ink_and_cells_must_fit():
    with pytest.raises(NoInk):
        hog(np.zeros((3, 96, 192), np.float32))
    with pytest.raises(ValueError, match="5 x 12 cells on 96 x 192"):
        hog(scribble(0), cells=(5, 12))
    with pytest.raises(ValueError, match="at least 2 x 2"):
        hog(scribble(0), cells=(1, 12))
    with pytest.raises(ValueError, match="one direction"):
        hog(scribble(0), directions=0)


def test_fast_enough_to_be_a_baseline():
    images = np.stack([scribble(k, points=6) for k in range(10)] * 20)
    describe_hog(images[:2])
    begin = time.process_time()
    describe_hog(images)
    assert (time.process_time() - begin) / len(images) < 0.01        # 1.5 ms an image where it was written


def test_the_figures_on_cedar(data_dir):
    """All 55 signers, masked, one reference: 25.3 % skilled and 10.0 % random were measured before the kit was written."""
    signatures = datasets.read_cedar(data_dir / "cedar")
    vectors = describe_hog(signatures.ink(size=(96, 192), input="masked"))
    scores = protocols.wi_scores(signatures.table, vectors, 1, distance="euclidean")
    genuine = scores.loc[scores["kind"] == "genuine", "distance"]
    for kind, figure in (("skilled", 0.253), ("random", 0.100)):
        impostor = scores.loc[scores["kind"] == kind, "distance"]
        found = eer(np.r_[np.ones(len(genuine)), np.zeros(len(impostor))], np.r_[genuine, impostor]).value
        assert found == pytest.approx(figure, abs=0.0125), f"{kind}: {found:.3f}"


# ---- local descriptors

def test_local_blocks_equal_cells_summed_by_hand():
    image = scribble(1)
    found = describe_local(image)
    assert found.shape == (11, 23, 36) and found.descriptors.dtype == found.weights.dtype == np.float32 and len(found) == 1
    magnitude, direction = gradients(image)
    place = direction * 9 / np.pi
    shares = np.stack([np.clip(1 - np.minimum(abs(place - k - 0.5), 9 - abs(place - k - 0.5)), 0, None) for k in range(9)], axis=-1) * magnitude[..., None]
    cells = shares.reshape(12, 8, 24, 8, 9).sum(axis=(1, 3))
    for i, j in ((0, 0), (4, 7), (10, 22)):
        block = np.concatenate([cells[i, j], cells[i, j + 1], cells[i + 1, j], cells[i + 1, j + 1]])
        assert found.weights[0, i, j] == pytest.approx(np.linalg.norm(block), abs=1e-3)
        assert found.descriptors[0, i, j] == pytest.approx(block / max(np.linalg.norm(block), 0.5), abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(8, 9, (96, 192)), (12, 6, (96, 192)), (4, 1, (32, 48)), (16, 4, (32, 32))]))
def test_local_blocks_are_never_longer_than_one_and_paper_weighs_nothing(seed, setting):
    cell, directions, size = setting
    found = describe_local(scribble(seed, size, points=4), cell, directions, size=size)
    assert found.shape == (size[0] // cell - 1, size[1] // cell - 1, 4 * directions)
    length = np.linalg.norm(found.descriptors, axis=-1)
    assert length.max() < 1 + 1e-5 and found.descriptors.min() >= 0
    assert ((length == 0) == (found.weights == 0)).all() and length[found.weights >= 0.5] == pytest.approx(1, abs=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(8, 0), (0, 8), (-8, 16), (16, -8)]))
def test_a_shift_by_whole_cells_shifts_the_map(seed, shift):
    ink = np.pad(scribble(seed, (64, 160), points=4), 16)
    here, there = describe_local([ink, np.roll(ink, shift, axis=(0, 1))])[0], describe_local(np.roll(ink, shift, axis=(0, 1)))
    moved = np.roll(here.descriptors, (shift[0] // 8, shift[1] // 8), axis=(1, 2))
    assert there.descriptors[:, 3:-3, 3:-3] == pytest.approx(moved[:, 3:-3, 3:-3], abs=1e-5)


def test_local_takes_what_hog_takes():
    images = np.stack([scribble(k, points=3) for k in range(130)])      # more than one chunk
    batch = describe_local(images)
    for k in (0, 127, 128, 129):
        assert batch[k].descriptors == pytest.approx(describe_local(images[k]).descriptors, abs=1e-5)
    assert describe_local(list(images[:3])).weights == pytest.approx(batch[:3].weights, abs=1e-4)
    assert describe_local((images[:3] * 255).astype(np.uint8)).descriptors == pytest.approx(batch[:3].descriptors, abs=1e-5)
    wide = np.zeros((300, 500), np.float32)
    wide[100:196, 200:392] = images[0]
    assert describe_local(wide).shape == batch.shape and len(describe_local([])) == 0 and describe_local([]).shape == (11, 23, 36)
    with pytest.raises(NoInk):
        describe_local(np.zeros((96, 192), np.float32))
    for wrong in ({"cell": 7}, {"cell": 0}, {"cell": 96}, {"directions": 0}, {"floor": 0.0}, {"floor": np.nan}):
        with pytest.raises(ValueError, match="the image must be whole cells"):
            describe_local(images[0], **wrong)


def test_maps_are_cut_and_joined():
    maps = describe_local(np.stack([scribble(k, points=3) for k in range(5)]))
    for rows, expected in ((slice(1, 3), [1, 2]), ([4, 0, 4], [4, 0, 4]), (np.array([True, False, False, True, False]), [0, 3]), (np.int64(2), [2]), (-1, [4])):
        part = maps[rows]
        assert isinstance(part, LocalMap) and np.array_equal(part.descriptors, maps.descriptors[expected]) and np.array_equal(part.weights, maps.weights[expected])
    joined = LocalMap.join(maps[k] for k in range(5))
    assert np.array_equal(joined.descriptors, maps.descriptors) and np.array_equal(joined.weights, maps.weights)
    with pytest.raises(ValueError, match="no maps"):
        LocalMap.join([])
    with pytest.raises(ValueError, match=r"\(7, 15, 36\), \(11, 23, 36\)"):
        LocalMap.join([maps, describe_local(scribble(0), 12)])
    with pytest.raises(AttributeError):
        maps.weights = maps.weights


@pytest.mark.parametrize("descriptors, weights, rule", [
    (np.ones((2, 3, 4)), np.ones((2, 3)), r"\(N, h, w, d\)"),
    (np.ones((2, 3, 4, 0)), np.ones((2, 3, 4)), r"\(N, h, w, d\)"),
    (np.ones((2, 3, 4, 5)), np.ones((2, 4, 3)), "one weight a block"),
    (np.full((2, 3, 4, 5), np.nan), np.ones((2, 3, 4)), "120 not finite"),
    (np.ones((2, 3, 4, 5)), np.full((2, 3, 4), np.inf), "24 not finite"),
    (np.ones((2, 3, 4, 5)), np.full((2, 3, 4), -1.0), "24 negative"),
    (np.ones((2, 3, 4, 5)), np.ones((2, 3, 4)) * [[[1]], [[0]]], "none in row 1"),
])
def test_a_map_that_is_none_is_refused(descriptors, weights, rule):
    with pytest.raises(ValueError, match=rule):
        LocalMap(descriptors, weights)


def test_a_description_keeps_the_name_of_its_extractor():
    maps = LocalMap(np.ones((3, 2, 4, 5), np.float32), np.ones((3, 2, 4), np.float32))
    one, other, unknown = (Description(maps, np.eye(3, dtype=np.float32), name) for name in ("1d" * 32, "2e" * 32, None))
    assert one.extractor == "1d" * 32 and Description(maps).extractor is None
    for rows in (1, slice(0, 2), [2, 0], np.array([True, False, True])):
        assert one[rows].extractor == one.extractor and unknown[rows].extractor is None
    assert pickle.loads(pickle.dumps(one)).extractor == one.extractor
    assert Description.join([unknown, unknown]).extractor is None and Description.join([one, one[0]]).extractor == one.extractor
    for parts in ([one, other], [unknown, one, other], [Description.join([unknown, one]), other], [one, Description.join([other, unknown])]):
        with pytest.raises(ValueError, match="one extractor made them, got those of 2 .*1d1d1d1d1d1d…, 2e2e2e2e2e2e….*describe all signatures with one"):
            Description.join(parts)
    bare = [Description(maps, None, name) for name in ("1d" * 32, "2e" * 32)]  # without embeddings there is nothing to mix up
    assert len(Description.join(bare)) == 6 and Description.join(bare).extractor is None
    assert Description.one_extractor(iter([one, unknown, *bare])) == one.extractor and Description.one_extractor([]) is None


# ---- the statistics of ink

def page(*lines, width=3, size=(220, 420), closed=False):
    """Polylines, a given number of pixels wide, as a bool ink image."""
    ink = np.zeros(size, np.uint8)
    for line in lines:
        cv2.polylines(ink, [np.int32(np.rint(np.array(line, float) * 16))], closed, 255, width, cv2.LINE_8, 4)
    return ink > 0


def ring(radius, width=3, size=(220, 420)):
    turn = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    return page(np.column_stack([size[1] / 2 + radius * np.cos(turn), size[0] / 2 + radius * np.sin(turn)]), width=width, size=size, closed=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(30, 100), st.integers(2, 5))
def test_a_circle_turns_by_one_over_its_radius(radius, width):
    found = ink_statistics(ring(radius, width))
    assert found["curvature_px"] == pytest.approx(1 / radius, rel=0.2)
    assert found["length"] * found["size_px"] == pytest.approx(2 * np.pi * radius, rel=0.05)
    assert (found["components"], found["ends"], found["branches"], found["largest_share"]) == (1, 0, 0, 1)
    assert found["holes"] * found["length"] == pytest.approx(1) and found["aspect"] == 1
    assert found["centre_x"] == pytest.approx(0.5, abs=0.01) and found["spread_x"] == pytest.approx(np.sqrt(0.5) * radius / found["height_px"], abs=0.01)


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 300), st.integers(3, 60))
def test_a_rectangle_by_arithmetic(length, width):
    ink = np.zeros((100, 400), np.float32)
    ink[20:20 + width, 40:40 + length] = 1
    found = ink_statistics(ink)
    assert found["aspect"] == pytest.approx(length / width) and found["density"] == 1 and found["components"] == 1
    assert found["size_px"] == pytest.approx(np.sqrt(length * width)) and found["height_px"] == width
    assert found["spread_x"] == pytest.approx(found["spread_y"]) == pytest.approx(1 / np.sqrt(12))
    if length > 3 * width:
        assert found["stroke_px"] == pytest.approx(width, abs=1) and found["inclination"] == pytest.approx(0, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(-50, 50), st.integers(4, 7))
def test_a_leaning_stroke_tells_its_slant(degrees, width):
    lean = np.tan(np.radians(degrees))
    found = ink_statistics(page([(210 - 70 * lean, 180), (210 + 70 * lean, 40)], width=width))
    assert found["slant"] == pytest.approx(degrees, abs=4)       # staircases
    assert abs(found["inclination"]) == pytest.approx(90 - abs(degrees), abs=2)
    assert found["ends"] * found["length"] == pytest.approx(2) and found["branches"] == 0


def test_a_plus_and_three_bars():
    plus = ink_statistics(page([(100, 100), (300, 100)], [(200, 20), (200, 180)], width=5))
    assert plus["ends"] * plus["length"] == pytest.approx(4) and plus["branches"] * plus["length"] == pytest.approx(1) and plus["components"] == 1
    bars = ink_statistics(page(*([(x, 40), (x, y)] for x, y in ((60, 180), (120, 110), (180, 110))), width=5))
    assert bars["components"] == 3 and bars["largest_share"] == pytest.approx(0.5, abs=0.01) and bars["ends"] * bars["length"] == pytest.approx(6)


def test_specks_and_empty_paper_do_not_count():
    ink = page([(60, 60), (200, 160), (340, 60)], width=5)
    spotted = np.zeros((400, 600), bool)
    spotted[100:320, 90:510] = ink
    spotted[[20, 110, 390, 240], [580, 95, 10, 300]] = True
    assert ink_statistics(spotted) == ink_statistics(ink)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_a_scan_its_mask_and_its_negative_say_the_same(seed):
    ink = scribble(seed, (120, 240)) > 0
    grey = np.where(ink, 60, 240).astype(np.uint8)
    assert ink_statistics(grey) == ink_statistics(ink) == ink_statistics(ink.astype(np.float32)) == ink_statistics(0.7 * ink)
    found = ink_statistics(grey)
    assert list(found) == list(INK_STATISTICS) and np.isfinite(list(found.values())).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_mirrored_writing_leans_the_other_way(seed):
    rng = np.random.default_rng(seed)
    x = np.linspace(30, 370, 12)
    line = np.column_stack([x + rng.uniform(-8, 8, 12) + 12 * (np.arange(12) % 2), 110 + np.where(np.arange(12) % 2, -50, 50) + rng.uniform(-9, 9, 12)])
    a, b = ink_statistics(page(line)), ink_statistics(page(line)[:, ::-1])
    assert a["slant"] == pytest.approx(-b["slant"], abs=1.5) and a["inclination"] == pytest.approx(-b["inclination"], abs=1e-6)
    assert a["centre_x"] == pytest.approx(1 - b["centre_x"], abs=1e-9) and a["length"] == pytest.approx(b["length"], rel=0.05)  # thinning takes sides: 3.2 % seen
    for name in ("aspect", "density", "components", "spread_x", "spread_y", "centre_y"):
        assert a[name] == pytest.approx(b[name], abs=1e-9), name


@pytest.mark.parametrize("times", [2, 3])
def test_resolution_cancels(times):
    line = np.column_stack([np.linspace(30, 390, 200), 110 + 60 * np.sin(np.linspace(0, 20, 200))])
    small, large = ink_statistics(page(line, width=5)), ink_statistics(np.kron(page(line, width=5), np.ones((times, times), bool)))
    assert large["size_px"] == pytest.approx(times * small["size_px"]) and large["curvature_px"] == pytest.approx(small["curvature_px"] / times, rel=0.1)
    for name, tolerance in (("aspect", 0), ("density", 0), ("components", 0), ("spread_y", 0.01), ("stroke", 0.15), ("length", 0.03), ("curvature", 0.1), ("ends", 0.03)):
        assert large[name] == pytest.approx(small[name], rel=tolerance), name


def test_the_smallest_ink_has_finite_statistics():
    for shape in ((1, 1), (1, 30), (30, 1), (2, 2), (3, 3)):
        ink = np.zeros((50, 50), np.float32)
        ink[10:10 + shape[0], 10:10 + shape[1]] = 1
        found = ink_statistics(ink)
        assert np.isfinite(list(found.values())).all() and found["aspect"] == shape[1] / shape[0]


def test_many_images_are_rows_in_the_order_of_the_names():
    images = [scribble(1), scribble(2, (50, 90)), scribble(3, (200, 300))]
    rows = describe_ink(images)
    names = [name for name in INK_STATISTICS if not name.endswith("_px")]
    assert rows.shape == (3, len(names)) and rows.dtype == np.float64
    assert dict(zip(names, rows[1])) == {name: value for name, value in ink_statistics(images[1]).items() if name in names}
    assert describe_ink(np.stack([scribble(4)] * 2), ["slant", "size_px"]).shape == (2, 2)
    assert describe_ink([]).shape == (0, len(names))


@pytest.mark.parametrize("wrong, rule", [
    (np.zeros((50, 80), np.float32), "0 everywhere"),
    (np.full((50, 80), 240, np.uint8), "blank"),
    (np.zeros((3, 50, 80), np.float32), r"\(H, W\), got shape \(3, 50, 80\)"),
    (np.full((50, 80), 7.0), r"\[0, 1\]"),
    (np.full((50, 80), np.nan), r"\[0, 1\]"),
])
def test_statistics_refuse_what_is_not_ink(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        ink_statistics(wrong)
    with pytest.raises(ValueError, match="a statistic is one of height_px.*'weight'"):
        describe_ink([scribble(0)], ["weight"])
