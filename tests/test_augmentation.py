"""Changed pages: boxes stay on what they boxed, nothing handed in is altered, the same generator gives the same bytes."""
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signver_kit.augmentation import (ChangedPage, PageChanges, change_page, erase_boxes, lift_darkness, paper_level, paste_ink, scribble_print)
from signver_kit.documents import SyntheticPages
from signver_kit.images import NoInk
from signver_kit.synthetic import SyntheticSigners

POOL = [lift_darkness(SyntheticSigners(6, seed=5).image(k, "genuine", 0)) for k in range(6)]
NONE = PageChanges.none()
ARTEFACTS = ("contrast", "brightness", "gamma", "shade", "blur", "noise", "speckle", "bilevel", "photocopy", "lines", "jpeg")
MOVED = replace(PageChanges(), **{name: 0.0 for name in ARTEFACTS})


def generator(seed):
    return np.random.default_rng(seed)


def paper(height, width, level=235, seed=0):
    return (level + generator(seed).integers(-3, 4, (height, width))).astype(np.uint8)


def as_pixels(boxes, shape):
    return np.asarray(boxes) * np.tile(shape, 2)


@st.composite
def boxed(draw, most=4, smallest=12):
    """(shape, boxes): a page's size, and boxes with whole pixels for sides."""
    shape = draw(st.integers(40, 400)), draw(st.integers(40, 400))
    boxes = []
    for _ in range(draw(st.integers(0, most))):
        top, left = (draw(st.integers(0, side - smallest)) for side in shape)
        boxes.append([top, left, draw(st.integers(top + smallest, shape[0])), draw(st.integers(left + smallest, shape[1]))])
    return shape, np.array(boxes, float).reshape(-1, 4) / np.tile(shape, 2)


sizes = st.tuples(st.integers(32, 200), st.integers(32, 200))
seeds = st.integers(0, 2**40)
moves = st.builds(PageChanges, scale=st.sampled_from([(0.5, 0.9), (0.85, 1.3), (1.5, 3.0)]), aspect=st.just((0.7, 1.4)),
                  rotate=st.sampled_from([0.0, 2.5, 20.0]), shear=st.sampled_from([0.0, 1.5, 10.0]),
                  crop=st.sampled_from([0.0, 0.5, 1.0]), flip=st.sampled_from([0.0, 0.5]), corners=st.floats(0, 1))


# ---- where things go ----

@settings(max_examples=60, deadline=None)
@given(boxed(), sizes, seeds, moves)
def test_boxes_stay_on_the_canvas_and_in_order(page, size, seed, changes):
    shape, boxes = page
    new = change_page(paper(*shape), boxes, tuple(range(len(boxes))), size, generator(seed), changes)
    assert isinstance(new, ChangedPage) and new.image.shape == size and new.image.dtype == np.uint8 and new.matrix.shape == (2, 3)
    for some in (new.boxes, new.ignored):
        assert some.dtype == np.float64 and some.shape[1:] == (4,) and (some >= 0).all() and (some <= 1).all() and (some[:, :2] < some[:, 2:]).all()
    assert len(new.boxes) == len(new.classes) and len(new.boxes) + len(new.ignored) <= len(boxes)
    assert list(new.classes) == sorted(new.classes)                                 # the order of the boxes is kept


@settings(max_examples=60, deadline=None)
@given(boxed(most=1), st.tuples(st.integers(100, 300), st.integers(100, 300)), seeds, moves)
def test_marked_pixels_land_in_the_mapped_box(page, size, seed, moved):
    shape, boxes = page
    sheet = np.full(shape, 255, np.uint8)
    for top, left, bottom, right in as_pixels(boxes, shape).round().astype(int):
        sheet[top:bottom, left:right] = 0
    changes = replace(MOVED, visible=0.0, corners=1.0, **{name: getattr(moved, name) for name in ("scale", "aspect", "rotate", "shear", "crop", "flip")})
    new = change_page(sheet, boxes, ("signature",) * len(boxes), size, generator(seed), changes)
    level = paper_level(sheet)
    rows, columns = np.nonzero(new.image < 0.45 * level)                             # the mark's from half coverage; a page that is all mark has level 0
    if len(new.boxes):
        [[top, left, bottom, right]] = as_pixels(new.boxes, size)
        assert ((rows + 1 >= top) & (rows <= bottom) & (columns + 1 >= left) & (columns <= right)).all()
        if changes.rotate == changes.shear == 0 and level > 100 and min(bottom - top, right - left) > 4:          # the extent is exact then
            extent = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            assert np.abs(np.array(extent) - [top, left, bottom, right]).max() <= 1.01
    else:
        assert not len(rows)


@settings(max_examples=40, deadline=None)
@given(boxed(), sizes, seeds)
def test_no_change_is_the_page_in_the_middle(page, size, seed):
    shape, boxes = page
    sheet = cv2.GaussianBlur(generator(seed % 100).integers(0, 256, shape, np.uint8), (0, 0), 3)
    new = change_page(sheet, boxes, ("x",) * len(boxes), size, generator(seed), NONE)
    factor = min(size[0] / shape[0], size[1] / shape[1])
    bars = (np.array(size) - factor * np.array(shape)) / 2
    assert np.allclose(new.matrix, [[factor, 0, bars[1]], [0, factor, bars[0]]])
    assert np.allclose(as_pixels(new.boxes, size), as_pixels(boxes, shape) * factor + np.tile(bars, 2))
    assert new.parts == () and len(new.ignored) == 0
    inside = np.ceil(bars).astype(int) + 2
    middles = [(np.arange(start, side - start) + 0.5 - bar) / factor - 0.5 for start, side, bar in zip(inside, size, bars)]
    if factor >= 0.75 and all(len(each) > 2 for each in middles):                   # larger or equal: it can be looked up point by point
        columns, rows = np.meshgrid(*[each.astype(np.float32) for each in middles[::-1]])
        wanted = cv2.remap(sheet, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        found = new.image[inside[0]:size[0] - inside[0], inside[1]:size[1] - inside[1]]
        assert np.abs(found.astype(int) - wanted).mean() < 2


def test_the_same_size_is_the_same_page():
    sheet = generator(0).integers(0, 256, (96, 96), np.uint8)
    new = change_page(sheet, [[0.25, 0.25, 0.5, 0.75]], ("signature",), (96, 96), generator(0), NONE)
    assert np.array_equal(new.image, sheet) and np.allclose(new.boxes, [[0.25, 0.25, 0.5, 0.75]])


@pytest.mark.parametrize("shape", [(1000, 800), (2480, 1754), (3508, 2480)])
def test_large_pages_are_averaged_not_sampled(shape):
    sheet = np.full(shape, 255, np.uint8)
    sheet[::10] = 0                                                                 # a tenth of every area is ink
    new = change_page(sheet, (), (), (256, 256), generator(0), NONE)
    middle = new.image[20:236, 110:146].astype(float)
    assert abs(middle.mean() - 229.5) < 3
    assert middle.min() > 60                                                        # no line came through whole, as it would by picking points


@pytest.mark.parametrize("share, kept", [(0.6, 1), (0.4, 0)])
def test_slivers_are_ignored(share, kept):
    sheet, box = paper(200, 200), [0.4, 0.0, 0.6, 0.2]
    changes = replace(NONE, scale=(2, 2), crop=1.0)
    for seed in range(60):
        new = change_page(sheet, [box], ("signature",), (200, 200), generator(seed), replace(changes, visible=1 - share))
        (top, left), (bottom, right) = (new.matrix[::-1, :2][:, ::-1] @ np.array(corner) * 200 + new.matrix[::-1, 2] for corner in (box[:2], box[2:]))
        inside = max(0, min(bottom, 200) - max(top, 0)) * max(0, min(right, 200) - max(left, 0)) / 80**2
        assert len(new.boxes) == (inside >= 1 - share and inside > 0) and len(new.ignored) == (0 < inside < 1 - share), (seed, inside)
        assert new.classes == ("signature",) * len(new.boxes)


def test_all_three_fates_occur_and_old_ignored_boxes_are_carried():
    fates, carried = set(), set()
    for seed in range(60):
        new = change_page(paper(200, 200), [[0.4, 0.0, 0.6, 0.2]], (3,), (100, 100), generator(seed), replace(NONE, scale=(2, 2), crop=1.0))
        fates.add((len(new.boxes), len(new.ignored)))
        carried.add(len(change_page(paper(200, 200), (), (), (100, 100), generator(seed), replace(NONE, scale=(2, 2), crop=1.0), [[0.4, 0, 0.6, 0.2]]).ignored))
    assert fates == {(1, 0), (0, 1), (0, 0)} and carried == {0, 1}


def test_flip_mirrors_page_and_boxes():
    sheet = generator(1).integers(0, 256, (64, 64), np.uint8)
    new = change_page(sheet, [[0.1, 0.2, 0.3, 0.5]], ("signature",), (64, 64), generator(0), replace(NONE, flip=1.0))
    assert np.array_equal(new.image, sheet[:, ::-1]) and np.allclose(new.boxes, [[0.1, 0.5, 0.3, 0.8]])


def test_whole_pages_are_whole():
    for seed in range(40):
        new = change_page(paper(300, 200), [[0, 0, 1, 1]], ("page",), (128, 160), generator(seed), replace(MOVED, crop=0.0, visible=0.98, corners=1.0))
        [[top, left, bottom, right]] = new.boxes
        assert bottom - top > 0.6 or right - left > 0.6
        corners = np.array([(0, 0), (200, 0), (200, 300), (0, 300)]) @ new.matrix[:, :2].T + new.matrix[:, 2]
        assert (corners >= -1e-6).all() and (corners <= np.array([160, 128]) + 1e-6).all()


def test_what_is_beyond_the_page_has_the_papers_grey():
    sheet = paper(100, 300, level=180)
    new = change_page(sheet, (), (), (200, 200), generator(0), NONE)
    assert (new.image[:60] == paper_level(sheet)).all() and abs(paper_level(sheet) - 180) < 3


# ---- tones ----

@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(ARTEFACTS))
def test_each_artefact_keeps_the_writing(seed, name):
    sheet = paper(160, 160)
    sheet[70:90, 40:120] = 30
    boxes = [[70 / 160, 40 / 160, 90 / 160, 120 / 160]]
    new = change_page(sheet, boxes, ("signature",), (160, 160), generator(seed), replace(NONE, **{name: 1.0}))
    assert new.parts == (() if name in ("contrast", "brightness", "gamma") else (name,))
    assert np.median(new.image[20:60, 20:140]) - np.median(new.image[72:88, 42:118]) > 60
    assert np.allclose(new.boxes, boxes) and new.image.dtype == np.uint8


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_the_copiers_black_edge_covers_no_box(seed):
    sheet, boxes = paper(100, 100, 250), [[0.02, 0.02, 0.98, 0.98]]
    new = change_page(sheet, boxes, ("signature",), (100, 100), generator(seed), replace(NONE, photocopy=1.0))
    assert np.median(new.image[3:97, 3:97][:, [0, -1]]) > 100 and np.median(new.image[3:97, 3:97][[0, -1]]) > 100


def test_black_and_white_is_black_and_white():
    sheet = cv2.resize(paper(80, 80, 200), (160, 160))
    sheet[60:80, 20:140] = 90
    new = change_page(sheet, (), (), (160, 160), generator(0), replace(NONE, bilevel=1.0))
    assert set(np.unique(new.image)) == {0, 255} and (new.image[62:78, 22:138] == 0).all() and (new.image[:50] == 255).all()


def test_shade_is_no_ink_and_a_black_desk_is():
    sheet = np.tile(np.linspace(150, 240, 400).astype(np.uint8), (400, 1))          # light falls from the right
    sheet[100:104] = sheet[100:104] // 4
    sheet[300:] = 5
    for seed in range(6):
        new = change_page(sheet, (), (), (400, 400), generator(seed), replace(NONE, bilevel=1.0))
        assert (new.image[:96] == 255).all() and (new.image[101:103] == 0).all() and (new.image[110:280] == 255).all() and (new.image[304:] == 0).all()


@settings(max_examples=20, deadline=None)
@given(boxed(), seeds)
def test_same_seed_same_bytes_and_nothing_is_altered(page, seed):
    shape, boxes = page
    sheet, classes = paper(*shape), np.arange(len(boxes))
    before = sheet.copy(), boxes.copy(), classes.copy()
    one, other = (change_page(sheet, boxes, classes, (96, 128), generator(seed), PageChanges(**{name: 0.5 for name in ARTEFACTS})) for _ in range(2))
    assert np.array_equal(one.image, other.image) and np.array_equal(one.boxes, other.boxes) and one.parts == other.parts
    assert isinstance(one.classes, np.ndarray) and np.array_equal(one.classes, other.classes)
    pasted = [paste_ink(sheet, boxes, ("date",) * len(boxes), generator(seed), POOL) for _ in range(2)]
    assert np.array_equal(pasted[0][0], pasted[1][0]) and np.array_equal(pasted[0][1], pasted[1][1])
    assert np.array_equal(erase_boxes(sheet, boxes), erase_boxes(sheet, boxes))
    assert np.array_equal(scribble_print(sheet, boxes, generator(seed)), scribble_print(sheet, boxes, generator(seed)))
    assert all(np.array_equal(old, now) for old, now in zip(before, (sheet, boxes, classes)))


def test_chances_are_kept():
    parts = [change_page(paper(40, 40), (), (), (32, 32), generator(seed), replace(NONE, noise=0.3, jpeg=0.8)).parts for seed in range(400)]
    assert 0.22 < np.mean(["noise" in each for each in parts]) < 0.38 and 0.72 < np.mean(["jpeg" in each for each in parts]) < 0.88


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (5, 7)])
def test_tiny_pages(shape):
    sheet = np.full(shape, 200, np.uint8)
    new = change_page(sheet, [[0, 0, 1, 1]], ("signature",), (32, 32), generator(0), PageChanges(**{name: 1.0 for name in ARTEFACTS}))
    assert new.image.shape == (32, 32)
    page, boxes, classes = paste_ink(sheet, (), (), generator(0), POOL)
    assert page.shape == shape and len(boxes) == len(classes)
    assert erase_boxes(sheet, [[0, 0, 1, 1]]).shape == scribble_print(sheet, (), generator(0)).shape == shape


# ---- pasting, erasing ----

@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(150, 700), st.integers(150, 700), st.sampled_from([255, 250]))
def test_pasted_boxes_are_tight_on_new_ink(seed, height, width, level):
    sheet = np.full((height, width), level, np.uint8)                              # 255: black and white; 250: grey
    page, boxes, classes = paste_ink(sheet, (), (), generator(seed), POOL, count=(1, 1), width=(0.15, 0.3), strength=(0.9, 1.0))
    assert len(boxes) == 1 and classes == ("signature",)
    rows, columns = (np.flatnonzero((page < 226).any(axis)) for axis in (1, 0))
    assert np.allclose(as_pixels(boxes, sheet.shape)[0], [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
    # 15 % of the width or more, unless that would be taller than 35 % of the page; a few faint pixels at the ends may be lost
    wide = columns[-1] + 1 - columns[0]
    assert wide < 0.34 * width + 4 and (wide > 0.11 * width or rows[-1] + 1 - rows[0] > 0.25 * height)
    assert page.min() < 120


@settings(max_examples=30, deadline=None)
@given(boxed(), seeds)
def test_pasted_signatures_keep_clear_of_boxes_and_of_each_other(page, seed):
    shape, old = page
    classes = tuple(f"{k}" for k in range(len(old)))
    new, boxes, names = paste_ink(paper(*shape), old, classes, generator(seed), POOL, count=(2, 5), name="mark")
    assert np.array_equal(boxes[:len(old)], old) and names == classes + ("mark",) * (len(boxes) - len(old)) and len(boxes) <= len(old) + 5
    assert (boxes[:, :2] < boxes[:, 2:]).all() and (boxes >= 0).all() and (boxes <= 1).all()
    for k in range(len(old), len(boxes)):
        others = boxes[:k]
        shared = np.prod(np.maximum(0, np.minimum(others[:, 2:], boxes[k, 2:]) - np.maximum(others[:, :2], boxes[k, :2])), 1)
        joint = np.prod(others[:, 2:] - others[:, :2], 1) + np.prod(boxes[k, 2:] - boxes[k, :2]) - shared
        assert (shared <= 0.05 * joint + 1e-12).all()


def test_pasting_on_black_and_white_leaves_black_and_white():
    sheet = np.full((400, 300), 255, np.uint8)
    sheet[50:60] = 0
    page, boxes, _ = paste_ink(sheet, (), (), generator(3), POOL)
    assert len(boxes) and set(np.unique(page)) == {0, 255}
    for top, left, bottom, right in as_pixels(boxes, sheet.shape).round().astype(int):
        ink = page[top:bottom, left:right] == 0
        assert ink[0].any() and ink[-1].any() and ink[:, 0].any() and ink[:, -1].any()


def test_ink_only_darkens_and_a_full_page_takes_none():
    sheet = paper(300, 300)
    page, boxes, _ = paste_ink(sheet, (), (), generator(0), POOL)
    assert (page <= sheet).all() and len(boxes)
    full = [[0, 0, 1, 1]]
    page, boxes, classes = paste_ink(sheet, full, ("redaction",), generator(0), POOL)
    assert np.array_equal(page, sheet) and np.array_equal(boxes, full) and classes == ("redaction",)


def test_print_is_avoided_unless_it_may_be_crossed():
    sheet = paper(400, 300)
    sheet[::6] = 40                                                                 # print everywhere
    assert len(paste_ink(sheet, (), (), generator(0), POOL, crossing=0.0)[1]) == 0
    assert len(paste_ink(sheet, (), (), generator(0), POOL, crossing=1.0)[1]) > 0


def test_low_puts_them_low():
    tops = [paste_ink(paper(300, 200), (), (), generator(seed), POOL, count=(1, 1), low=1.0)[1][0] for seed in range(20)]
    assert all((top + bottom) / 2 > 0.45 for top, _, bottom, _ in tops)


def test_classes_may_be_numbers():
    _, boxes, classes = paste_ink(paper(300, 300), [[0, 0, 0.1, 0.1]], np.array([2]), generator(0), POOL, count=(2, 2), name=1)
    assert isinstance(classes, np.ndarray) and classes.dtype.kind == "i" and len(classes) == len(boxes) > 1 and set(classes[1:]) == {1}
    _, boxes, classes = paste_ink(paper(300, 300), (), np.array([]), generator(0), POOL, count=(2, 2), name=1)
    assert classes.tolist() == [1] * len(boxes)


def test_erasing_leaves_paper_and_touches_nothing_else():
    made = SyntheticPages(8, seed=3, dpi=60, signers=5, kinds=("letter",))
    for i in range(4):
        sheet = made.page(i)
        page = cv2.cvtColor(sheet.image, cv2.COLOR_RGB2GRAY)
        page, boxes, _ = paste_ink(page, (), (), generator(i), POOL, crossing=0.0, low=0.0)
        clean = erase_boxes(page, boxes)
        outside = np.ones(page.shape, bool)
        for top, left, bottom, right in as_pixels(boxes, page.shape).round().astype(int):
            outside[max(0, top - 2):bottom + 2, max(0, left - 2):right + 2] = False
            before, after = page[top:bottom, left:right], clean[top:bottom, left:right]
            assert np.percentile(after, 1) > 0.75 * paper_level(page) > np.percentile(before, 1)
        assert np.array_equal(clean[outside], page[outside])
    assert np.array_equal(erase_boxes(page, ()), page)


def test_printed_distractors_keep_clear_of_boxes():
    sheet, boxes = paper(500, 400), [[0.6, 0.1, 0.75, 0.5]]
    changed = 0
    for seed in range(12):
        page = scribble_print(sheet, boxes, generator(seed), count=(3, 3))
        inside = np.s_[300:375, 40:200]
        changed += (page < sheet - 20).sum()
        assert (page <= sheet).all() and (page[inside] < sheet[inside].astype(int) - 20).mean() < 0.12
    assert changed > 1000


def test_lift_darkness():
    assert all(picture.dtype == np.uint8 and max(picture.shape) <= 400 and picture.max() > 100 and np.median(picture) == 0 for picture in POOL)
    assert max(lift_darkness(SyntheticSigners(2, seed=1).image(0, "genuine", 0), longest=50).shape) == 50
    with pytest.raises(NoInk):
        lift_darkness(np.full((60, 90), 255, np.uint8))


# ---- errors ----

@pytest.mark.parametrize("field", ["speckle_range", "lines_range", "jpeg_range"])
def test_counts_are_whole(field):
    with pytest.raises(ValueError, match=f"PageChanges.{field} must be a pair of whole numbers, got .2.5, 9."):
        PageChanges(**{field: (2.5, 9)})


@pytest.mark.parametrize("field", [field.name for field in fields(PageChanges)])
def test_settings_are_checked(field):
    pair = isinstance(getattr(PageChanges(), field), tuple)
    for wrong in ((1, 2, 3), (2, 1), ("a", "b"), None, (float("nan"), 1), 3) if pair else (-0.1, 99, "often", None, float("nan"), True, (0, 1)):
        with pytest.raises(ValueError, match=f"PageChanges.{field} must be .* got "):
            PageChanges(**{field: wrong})


PAGE = paper(100, 80)


@pytest.mark.parametrize("arguments, message", [
    ((np.zeros((9, 9, 3), np.uint8), (), (), (64, 64)), "grey, uint8 .* got uint8 .9, 9, 3.: read it"),
    ((PAGE.astype(float), (), (), (64, 64)), "got float64"),
    ((np.zeros((0, 9), np.uint8), (), (), (64, 64)), "got uint8 .0, 9."),
    ((PAGE, [0, 0, 1, 1], ("x",), (64, 64)), "wrap one box"),
    ((PAGE, [[10, 10, 50, 50]], ("x",), (64, 64)), "divide pixels"),
    ((PAGE, [[0.5, 0.1, 0.2, 0.4]], ("x",), (64, 64)), "min < max"),
    ((PAGE, [[0.1, 0.1, np.nan, 0.4]], ("x",), (64, 64)), "row 0"),
    ((PAGE, [[0.1, 0.1, 0.2, 0.4]], (), (64, 64)), "one entry a box .1., got 0"),
    ((PAGE, (), (), 64), "size must be .height, width."),
    ((PAGE, (), (), (64,)), "size must be"),
    ((PAGE, (), (), (64, 2.5)), "size must be"),
])
def test_bad_input_to_change_page(arguments, message):
    with pytest.raises(ValueError, match=message):
        change_page(*arguments, generator(0))


@pytest.mark.parametrize("pool, options, message", [
    ([], {}, "pool must hold at least one"),
    (POOL[0], {}, "wrap it as .picture."),
    ([255 - POOL[0]], {}, "hand in 255 - picture"),
    ([POOL[0].astype(np.float32)], {}, "make it with lift_darkness"),
    ([np.zeros((20, 30), np.uint8)], {}, "leave blank pictures out"),
    (POOL, {"count": (3, 1)}, "count must be a pair"),
    (POOL, {"count": 2}, "count must be a pair"),
    (POOL, {"count": (1, 2.5)}, "count must be a pair of whole numbers"),
    (POOL, {"width": (0, 2)}, "width must be a pair"),
    (POOL, {"strength": (0, 1)}, "strength must be a pair"),
])
def test_bad_input_to_paste_ink(pool, options, message):
    with pytest.raises(ValueError, match=message):
        paste_ink(PAGE, (), (), generator(0), pool, **options)


def test_other_bad_input():
    with pytest.raises(ValueError, match="name must be a class's number"):
        paste_ink(PAGE, [[0, 0, 1, 1]], np.array([1]), generator(0), POOL)
    with pytest.raises(ValueError, match="kinds must be some of"):
        scribble_print(PAGE, (), generator(0), kinds=("stamp", "logo"))
    with pytest.raises(ValueError, match="divide pixels"):
        erase_boxes(PAGE, [[0, 0, 30, 30]])
    with pytest.raises(ValueError, match="grey, uint8"):
        paper_level("page.png")
