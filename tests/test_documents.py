"""Dirty signatures and pages: the same bytes always, the answer exact to the pixel, whole files only."""
import errno
import hashlib
import json
import subprocess
import sys
import zlib
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from signver_kit import documents, synthetic
from signver_kit.documents import CLASSES, KINDS, Dirt, DirtyPairs, SyntheticPages, dirty, dirty_light, lift_ink, open_fonts
from signver_kit.images import NoInk, UnreadableImage, crop_boxes, ink_mask, read_image
from signver_kit.synthetic import SyntheticSigners

SIGNERS = SyntheticSigners(30, seed=5)
CHANCES = [field.name for field in fields(Dirt) if isinstance(field.default, float) and field.name not in ("side", "named", "across", "tilted", "bilevel")]


def signature(k=0):
    return SIGNERS.image(k, "genuine", 0)


def widened(mask, reach):
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)).astype(bool)


def fingerprint(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


# ---- pairs ----

@settings(max_examples=25)
@given(st.integers(0, 2**40), st.integers(0, 10**6), st.integers(0, 29))
def test_a_pair_is_aligned_and_keeps_the_signature(seed, index, k):
    grey = signature(k)
    pair = dirty(grey, seed, index)
    assert {array.shape for array in (pair.dirty, pair.clean, pair.ink, pair.print)} == {grey.shape}
    assert pair.dirty.dtype == pair.clean.dtype == np.uint8 and pair.ink.dtype == pair.print.dtype == bool
    assert np.array_equal(pair.ink, ink_mask(grey))
    assert (pair.clean[~widened(pair.ink, 1)] == 255).all() and pair.clean[pair.ink].mean() < 240
    assert pair.dirty[pair.ink].mean() < np.percentile(pair.dirty, 95)


@settings(max_examples=25)
@given(st.integers(0, 2**40), st.integers(0, 1000), st.sampled_from(["lines", "box", "words", "stamp"]))
def test_print_is_all_that_was_added(seed, index, kind):
    pair = dirty(signature(index % 30), seed, index, replace(Dirt.none(), **{kind: 1}))
    assert pair.parts == (kind,)
    added = pair.clean.astype(int) - pair.dirty
    assert (added[pair.print & ~widened(pair.ink, 1)] > 20).all()           # what the mask shows is there
    assert (added[~pair.print] < 48).all()                                  # what it does not show cannot be seen
    assert (added >= 0).all()


@settings(max_examples=15)
@given(st.integers(0, 2**40), st.integers(0, 1000), st.sampled_from(CHANCES), st.sampled_from(CHANCES))
def test_one_kind_of_dirt_does_not_move_another(seed, index, one, other):
    assume(one != other)
    alone, both = (dirty(signature(), seed, index, replace(Dirt.none(), **chosen)) for chosen in ({one: 1}, {one: 1, other: 1}))
    assert set(both.parts) == {one, other}
    assert (both.print >= alone.print).all()
    assert alone.dirty.shape == both.dirty.shape and np.array_equal(alone.clean, both.clean)


def test_no_dirt_is_the_clean_picture():
    pair = dirty(signature(3), 0, 0, Dirt.none())
    assert np.array_equal(pair.dirty, pair.clean) and not pair.print.any() and pair.parts == ()


def test_each_address_has_its_own_dirt():
    prints = {fingerprint(dirty(signature(), seed, index, Dirt(lines=1)).print) for seed in range(4) for index in range(4)}
    assert len(prints) == 16
    assert not np.array_equal(dirty(signature(), 1, 2).dirty, dirty(signature(), 2, 1).dirty)


def test_signver_recipe():
    for index in range(20):
        pair = dirty(signature(index), 1, index, Dirt.signver())
        assert set(pair.parts) == {"lines", "words", "specks"}
    wide = cv2.resize(signature(), (600, 260), interpolation=cv2.INTER_CUBIC)
    lines = [dirty(wide, 3, index, replace(Dirt.signver(), words=0, specks=0)) for index in range(12)]
    for pair in lines:
        count, _, stats, _ = cv2.connectedComponentsWithStats(pair.print.astype(np.uint8))
        assert count > 1 and (stats[1:, cv2.CC_STAT_HEIGHT] <= 40).all()
        assert stats[1:, cv2.CC_STAT_WIDTH].sum() > 0.4 * 600
    assert len({fingerprint(pair.print) for pair in lines}) == 12


def test_dirt_grows_with_the_picture():
    small, large = signature(), cv2.resize(signature(), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    dirt = replace(Dirt.none(), lines=1, line_count=(1, 1), line_width=(2, 2))
    share = [dirty(grey, 0, 5, dirt).print.mean() for grey in (small, large)]
    assert share[0] > 0 and 0.6 < share[0] / share[1] < 1.6


def test_kinds_of_pictures():
    grey = signature(1)
    expected = dirty(grey, 0, 0)
    for picture in (np.dstack([grey] * 3), grey / 255.0, grey[..., None], grey.astype(np.uint16) * 257, grey.astype(np.int64)):
        assert np.array_equal(dirty(picture, 0, 0).dirty, expected.dirty)
    assert np.array_equal(dirty(255 - grey, 0, 0).ink, expected.ink)                # light strokes on dark paper: the clean one is on white
    assert np.median(dirty(255 - grey, 0, 0).clean) == 255


def test_a_path_is_a_picture(tmp_path):
    cv2.imwrite(str(tmp_path / "signature.png"), signature(2))
    assert np.array_equal(dirty(tmp_path / "signature.png", 0, 0).dirty, dirty(signature(2), 0, 0).dirty)


@pytest.mark.parametrize("bad, error", [
    (np.full((60, 90), 250, np.uint8), NoInk), (np.zeros((60, 90), np.uint8), NoInk), (np.full((1, 1), 7, np.uint8), NoInk), (np.zeros((0, 4), np.uint8), UnreadableImage),
    (np.full((60, 90), np.nan), UnreadableImage), (np.full((60, 90), 255.0), UnreadableImage), (np.zeros((2, 3, 4, 5), np.uint8), UnreadableImage),
    (np.zeros((60, 90), complex), UnreadableImage), ("no such file.png", FileNotFoundError), (None, TypeError),
])
def test_what_is_no_signature_is_refused(bad, error):
    with pytest.raises(error):
        dirty(bad, 0, 0)


def test_tiny_and_huge():
    tiny = np.full((12, 16), 240, np.uint8)
    tiny[4:8, 3:13] = 40
    assert dirty(tiny, 0, 0, Dirt(stamp=1, words=1, box=1, fold=1, uneven=1)).dirty.shape == (12, 16)
    huge = cv2.resize(signature(), (4200, 2000), interpolation=cv2.INTER_NEAREST)
    assert dirty(huge, 0, 0, Dirt(stamp=1, words=1, box=1, fold=1)).dirty.shape == (2000, 4200)


@settings(max_examples=60)
@given(st.sampled_from([field.name for field in fields(Dirt)]), st.sampled_from([-0.1, 1.1, "x", None, True, float("nan"), (1,), (3, 2), (-5, 2), (0, 10**9), (1, "y"), [], 10**9]))
def test_impossible_dirt_is_named(name, value):
    with pytest.raises(ValueError, match=rf"Dirt\.{name} must"):
        Dirt(**{name: value})


@pytest.mark.parametrize("call", [
    lambda: dirty(signature(), -1), lambda: dirty(signature(), 0.5), lambda: dirty(signature(), 0, True), lambda: dirty(signature(), 0, 0, {"lines": 1}),
    lambda: dirty(signature(), 0, 0, None, []), lambda: dirty(signature(), 0, 0, None, [__file__]), lambda: dirty(signature(), 0, 0, None, "font.ttf"),
    lambda: DirtyPairs(0), lambda: DirtyPairs(3, seed=-2), lambda: DirtyPairs(3, source=[]), lambda: DirtyPairs(3, size=5), lambda: DirtyPairs(3, size=(4, 100)),
    lambda: DirtyPairs(3, size=(100, 50, 3)), lambda: DirtyPairs(3, dirt="some"), lambda: DirtyPairs(3)[-1], lambda: DirtyPairs(3)["0"],
])
def test_impossible_pairs_are_refused(call):
    with pytest.raises(ValueError, match="must"):
        call()


def test_pairs_are_a_sequence():
    pairs = DirtyPairs(3, seed=9)
    backwards = [pairs[i] for i in (2, 1, 0)][::-1]
    assert len(pairs) == 3 and [fingerprint(pair.dirty, pair.clean) for pair in pairs] == [fingerprint(pair.dirty, pair.clean) for pair in backwards]
    assert fingerprint(DirtyPairs(50, seed=9)[2].dirty) == fingerprint(backwards[2].dirty)
    with pytest.raises(IndexError):
        pairs[3]


@settings(max_examples=15)
@given(st.integers(8, 300), st.integers(8, 300), st.integers(0, 99))
def test_pairs_of_any_size(height, width, i):
    try:
        pair = DirtyPairs(100, seed=1, size=(height, width))[i]
    except NoInk:                       # shrunk until no ink is left that could be seen
        assert min(height, width) < 40
        return
    assert pair.dirty.shape == pair.clean.shape == (height, width)


def test_sources():
    pictures = [signature(k) for k in range(3)]
    from_list, from_set = DirtyPairs(7, source=pictures), DirtyPairs(7, source=SIGNERS.set)
    assert np.array_equal(from_list[4].clean, dirty(pictures[1], 0).clean)
    assert np.array_equal(from_set[0].clean, dirty(SIGNERS.set.read(0), 0).clean)
    assert not np.array_equal(from_list[0].dirty, from_list[3].dirty)


# ---- pages ----

@settings(max_examples=20)
@given(st.integers(0, 2**40), st.integers(0, 10**6), st.sampled_from(KINDS), st.integers(50, 110), st.integers(1, 2000))
def test_any_address_gives_a_page(seed, i, kind, dpi, signers):
    page = SyntheticPages(i + 1, seed, dpi, signers, (kind,)).page(i)
    assert page.image.dtype == np.uint8 and page.image.ndim == 3 and page.image.shape[2] == 3 and page.kind == kind
    count = len(page.classes)
    assert page.boxes.shape == (count, 4) and page.boxes.dtype == np.float64 and len(page.signers) == len(page.masks) == count
    assert set(page.classes) <= set(CLASSES) and page.classes.count("signature") <= 6
    assert (page.boxes >= 0).all() and (page.boxes <= 1).all() and (page.boxes[:, :2] < page.boxes[:, 2:]).all()
    assert all(-1 <= signer < signers for signer in page.signers)
    assert all(signer >= 0 for name, signer in zip(page.classes, page.signers) if name in ("signature", "initials"))
    crops = crop_boxes(page.image, page.boxes)
    for k, crop in enumerate(crops):
        mask = page.mask(k)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert crop.shape[:2] == (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
        assert np.allclose(page.boxes[k] * np.tile(mask.shape, 2), [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def laid_out(pages, i):
    """The page before light and scanner, by the module's own steps: (sheet, matrix, everything drawn on it)."""
    sheet = documents._make_sheet(pages, i, pages.kind(i))
    matrix = documents._lay_down(sheet, documents._stream(pages.seed, i, documents._SCAN))
    return sheet, matrix, [(mark, found) for mark in sheet.marks if (found := documents._drawn(mark, matrix, sheet.size))]


def view(sheet, matrix, drawn):
    return documents._composed(sheet, matrix, drawn, (255, 255, 255), 1.0, 1, documents._stream(0, 0, documents._SCAN))


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.integers(0, 400))
def test_leaving_a_thing_out_changes_its_box_and_nothing_else(seed, i):
    pages = SyntheticPages(401, seed, dpi=70)
    page, (sheet, matrix, drawn) = pages.page(i), laid_out(pages, i)
    whole, boxed = view(sheet, matrix, drawn), [k for k, (mark, _) in enumerate(drawn) if mark.name]
    assert [drawn[k][0].name for k in boxed] == list(page.classes)
    for number, k in enumerate(boxed):
        mark, (top, left, cover, tone) = drawn[k]
        without = [*drawn[:k], (mark, (top, left, np.zeros_like(cover), tone)), *drawn[k + 1:]]
        changed = np.abs(view(sheet, matrix, without) - whole)[..., 0] > 1e-4
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        seen = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
        outside = (page.boxes[number] * np.tile(changed.shape, 2) - seen) * [1, 1, -1, -1]          # how far the change reaches beyond the box
        later = [other for other, _ in drawn[k + 1:] if other.patch]
        assert (outside <= (2 if mark.patch else 1) + 1e-6).all()       # an anti-aliased rim too faint to see, and for a bar the skew's interpolation
        assert later or (outside >= -1 - 1e-6).all()                    # the box is that of the ink, to a pixel; a later bar may hide some of it


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(0, 400))
def test_boxes_hug_the_pen(seed, i):
    # Not from pixels at all: the box must be the strokes' own extent, plus the pen.
    pages = SyntheticPages(401, seed, dpi=80)
    sheet, matrix, drawn = laid_out(pages, i)
    height, width = sheet.size
    for mark, (top, left, cover, _) in drawn:
        if mark.patch:
            continue
        points = np.concatenate(mark.strokes)[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        (x0, y0), (x1, y1) = points.min(0), points.max(0)
        y, x, bottom, right = documents._extent(top, left, cover >= documents._PRINTED)
        pen = 1.5 * mark.pen[0] + 1.5
        assert abs((bottom - y) - (y1 - y0)) <= 2 * pen and abs((right - x) - (x1 - x0)) <= 2 * pen
        if min(x0, y0) > 12 and x1 < width - 12 and y1 < height - 12:       # not pushed back onto the sheet
            assert max(abs(x - x0), abs(y - y0), abs(right - x1), abs(bottom - y1)) <= pen + 1


def test_pages_are_read_and_labelled_as_other_sets_are():
    pages = SyntheticPages(3, seed=6, dpi=60)
    for i in (2, 0, 2, 1):
        page, (boxes, classes) = pages.page(i), pages.truth(i)
        assert np.array_equal(pages.read(i), page.image) and np.array_equal(boxes, page.boxes) and classes == page.classes
    assert pages.read(1) is pages.read(1) and pages.name == "synthetic"        # made once for the picture and its labels
    with pytest.raises(IndexError, match="there are 3"):
        pages.read(3)


def test_writing_is_darker_than_what_is_around_it():
    pages, faint = SyntheticPages(20, seed=8, dpi=100), []
    for page in map(pages.page, range(20)):
        for k, name in enumerate(page.classes):
            mask = page.mask(k)
            if name != "redaction":
                faint.append(page.image[widened(mask, 4) & ~widened(mask, 2)].mean() - page.image[mask].mean())
    assert len(faint) > 30 and min(faint) > 5


def test_the_same_in_another_process_and_another_order():
    code = "from signver_kit.documents import SyntheticPages as P, DirtyPairs as D; import zlib; p, d = P(9, 3, 60), D(9, 3)\n" \
           "print([zlib.crc32(p.page(i).image.tobytes()) for i in (8, 0, 4)], [zlib.crc32(d[i].dirty.tobytes()) for i in (8, 0)])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    pages, pairs = SyntheticPages(20, 3, 60), DirtyPairs(30, 3)
    here = [zlib.crc32(pages.page(i).image.tobytes()) for i in (0, 4, 8)], [zlib.crc32(pairs[i].dirty.tobytes()) for i in (0, 8)]
    assert printed.strip() == f"{[here[0][2], here[0][0], here[0][1]]} {here[1][::-1]}"


def test_streams_are_not_the_signers():
    assert min(documents._DIRT, documents._KIND, documents._LAYOUT, documents._SCAN, documents._LETTERS, documents._FORGED) > synthetic._PAGE_SKILLED


def test_what_pages_hold():
    pages = SyntheticPages(60, seed=1, dpi=50)
    found = [pages.page(i) for i in range(60)]
    assert {page.kind for page in found} == set(KINDS) and {page.look for page in found} == {"colour", "grey", "copy", "bitonal"}
    counts = [page.classes.count("signature") for page in found]
    assert 0 in counts and max(counts) in (4, 5, 6)
    assert any(len(page.classes) == 0 and page.boxes.shape == (0, 4) for page in found)
    for name in CLASSES:
        assert sum(page.classes.count(name) for page in found) >= 10
    assert pages.table.kind.tolist() == [page.kind for page in found]
    for page in found:
        signed = [signer for name, signer in zip(page.classes, page.signers) if name == "signature"]
        assert len(set(signed)) == len(signed)                      # nobody signs twice
        if page.look == "bitonal":
            assert np.isin(page.image, [0, 255]).all()
        if page.look != "colour":
            assert np.array_equal(page.image[..., 0], page.image[..., 2])


def test_forged_pages_are_the_same_sheets_signed_by_another_hand(tmp_path):
    chosen = dict(n=6, seed=4, dpi=50, people=(3, 14, 15, 92, 65, 35))
    honest, some = SyntheticPages(**chosen), SyntheticPages(**chosen, forged=0.5)
    pages = [(honest.page(i), some.page(i)) for i in range(6)]
    assert 0 < sum(forged.forged and "signature" in forged.classes for _, forged in pages) < 6 and not any(page.forged for page, _ in pages)
    for genuine, forged in pages:
        assert genuine.classes == forged.classes and genuine.signers == forged.signers and set(genuine.signers) <= {-1, *chosen["people"]}
        signed = forged.forged and "signature" in forged.classes
        assert np.array_equal(genuine.image, forged.image) != signed
        assert all(np.array_equal(a, b) for a, b, name in zip(genuine.boxes, forged.boxes, forged.classes) if name != "signature")
    some.write(tmp_path / "set")
    notes = json.loads((tmp_path / "set" / "labels.json").read_text())["annotations"]
    assert [note.get("forged", False) for note in notes] == [page.forged and name == "signature" for _, page in pages for name in page.classes]
    with pytest.raises(ValueError, match="another set of pages"):
        honest.write(tmp_path / "set")


def test_a_person_keeps_their_initials_and_pen():
    assert documents._initials_of(3, 17) == documents._initials_of(3, 17)
    assert len({documents._initials_of(3, signer) for signer in range(50)}) > 30


@pytest.mark.parametrize("i", range(4))
def test_resolution_scales_the_page(i):
    coarse, fine = (SyntheticPages(4, seed=i, dpi=dpi, kinds=(KINDS[i],)).page(i) for dpi in (75, 150))
    assert coarse.classes == fine.classes and coarse.signers == fine.signers
    assert np.abs(np.array(fine.image.shape[:2]) - 2 * np.array(coarse.image.shape[:2])).max() <= 1
    assert np.abs(coarse.boxes - fine.boxes).max() < 0.006


def test_open_fonts_are_those_of_every_supported_matplotlib():
    """Later versions bring more, cmti10 among them: a page set in one of those could not be drawn with an earlier version."""
    serif, sans, stix = ("", "-Bold", "-Italic", "-BoldItalic"), ("", "-Bold", "-Oblique", "-BoldOblique"), ("", "Bol", "Italic", "BolIta")
    in_3_10 = {f"DejaVuSerif{style}" for style in serif} | {f"{face}{style}" for face in ("DejaVuSans", "DejaVuSansMono") for style in sans} | \
              {f"STIXGeneral{style}" for style in stix} | {"cmb10", "cmr10", "cmss10", "cmtt10"}
    faces = [Path(face) for family in open_fonts() for face in family]
    assert {face.stem for face in faces} <= in_3_10 and all(face.is_file() for face in faces)


def test_own_fonts():
    face = open_fonts()[1][2]
    other = SyntheticPages(3, seed=6, dpi=60, fonts=[face]).page(0)
    assert other.image.shape == SyntheticPages(3, seed=6, dpi=60).page(0).image.shape
    assert "words" in dirty(signature(), 0, 0, Dirt(words=1), [Path(face)]).parts


@pytest.mark.parametrize("bad", [dict(n=0), dict(n="3"), dict(n=True), dict(seed=-1), dict(seed=None), dict(dpi=49), dict(dpi=601), dict(dpi=99.5), dict(signers=0),
                                 dict(kinds=()), dict(kinds=("letter", "letter")), dict(kinds="postcard"), dict(fonts=[]),
                                 dict(people=()), dict(people=(1, 1)), dict(people=(200,)), dict(forged=-0.1), dict(forged=float("nan"))])
def test_impossible_pages_are_named(bad):
    with pytest.raises(ValueError, match=rf"{next(iter(bad))} must"):
        SyntheticPages(**{"n": 3, **bad})


def test_pages_out_of_range():
    pages = SyntheticPages(3, dpi=50)
    for i in (-1, 1.5, "0", None):
        with pytest.raises(ValueError):
            pages.page(i)
    with pytest.raises(IndexError):
        pages.page(3)
    with pytest.raises(FileNotFoundError):
        SyntheticPages(3, fonts=["no such font.ttf"])


# ---- files ----

SET = dict(n=4, seed=2, dpi=50)
NAMES = sorted([f"{i:06d}.{kind}" for i in range(4) for kind in ("json", "png")] + ["labels.json", "pages.json"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "set"
    assert SyntheticPages(**SET).write(folder) == 4
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_whole_files(folder):
    for path in folder.iterdir():
        assert path.suffix in (".json", ".png"), path.name
        json.loads(path.read_text()) if path.suffix == ".json" else read_image(path)


def test_labels_are_the_pages(whole):
    assert sorted(contents(whole)) == NAMES
    labels, pages = json.loads((whole / "labels.json").read_text()), SyntheticPages(**SET)
    assert [category["name"] for category in labels["categories"]] == list(CLASSES)
    assert [note["id"] for note in labels["annotations"]] == list(range(1, len(labels["annotations"]) + 1))
    for image in labels["images"]:
        page, notes = pages.page(image["id"]), [note for note in labels["annotations"] if note["image_id"] == image["id"]]
        assert np.array_equal(read_image(whole / image["file_name"], mode="rgb"), page.image)
        assert (image["height"], image["width"]) == page.image.shape[:2] and image["kind"] == page.kind
        assert [CLASSES[note["category_id"] - 1] for note in notes] == list(page.classes)
        boxes = np.array([note["bbox"] for note in notes], float).reshape(-1, 4)
        back = np.column_stack([boxes[:, 1], boxes[:, 0], boxes[:, 1] + boxes[:, 3], boxes[:, 0] + boxes[:, 2]]) / np.tile(page.image.shape[:2], 2)
        assert np.allclose(back, page.boxes) and [note["area"] for note in notes] == [int(page.mask(k).sum()) for k in range(len(notes))]


@pytest.mark.parametrize("call", [1, 2, 3, 6, 10])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=["interrupt", "full"])
def test_an_interrupted_write_goes_on(whole, tmp_path, monkeypatch, call, error):
    rename, calls = synthetic.os.replace, []

    def failing(*paths):
        calls.append(paths)
        if len(calls) == call:
            raise error
        rename(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic.os, "replace", failing)
        with pytest.raises(type(error)):
            SyntheticPages(**SET).write(tmp_path / "set")
    check_whole_files(tmp_path / "set")
    assert not (tmp_path / "set" / "labels.json").exists()
    SyntheticPages(**SET).write(tmp_path / "set")
    assert contents(tmp_path / "set") == contents(whole)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_real_limit_on_files(whole, tmp_path):
    small = min(path.stat().st_size for path in whole.glob("*.png"))
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({small - 1000},) * 2)\n" \
           f"from signver_kit.documents import SyntheticPages; SyntheticPages(**{SET}).write({str(tmp_path / 'set')!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode != 0 and "File too large" in run.stderr
    check_whole_files(tmp_path / "set")
    assert not list((tmp_path / "set").glob("*.png"))
    assert SyntheticPages(**SET).write(tmp_path / "set") == 4
    assert contents(tmp_path / "set") == contents(whole)


def test_losses_are_made_good(whole, tmp_path):
    pages = SyntheticPages(**SET)
    pages.write(tmp_path / "set")
    assert pages.write(tmp_path / "set") == 0
    (tmp_path / "set" / "000001.png").unlink()
    (tmp_path / "set" / "000002.json").unlink()
    (tmp_path / "set" / "000003.json").write_text("{")
    (tmp_path / "set" / "labels.json").unlink()
    assert pages.write(tmp_path / "set") == 3
    assert contents(tmp_path / "set") == contents(whole)


def test_foreign_folders_are_refused(whole, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").write_text("x")
    for target in (tmp_path / "file", tmp_path / "other", whole):
        with pytest.raises(ValueError, match="name another"):
            SyntheticPages(**{**SET, "seed": 3}).write(target)
    assert contents(tmp_path / "other") == {"holiday.jpg": b"x"} and sorted(contents(whole)) == NAMES


# ---- what cleaners are trained on beside the usual dirt ----

def test_tilted_lines_run_in_any_direction():
    clean = signature()
    level, tilted = ([dirty(clean, seed, 0, replace(Dirt.none(), lines=1, line_count=(1, 1), tilted=share)).print for seed in range(12)] for share in (0, 1))
    def rise(mask):                                             # of the line's box, in degrees
        rows, columns = np.nonzero(mask)
        return np.degrees(np.arctan2(np.ptp(rows), np.ptp(columns)))
    assert max(rise(mask) for mask in level) < 8
    angles = [rise(mask) for mask in tilted if mask.any()]
    assert len(angles) > 8 and max(angles) > 50 and np.std(angles) > 12


def test_black_and_white_scans_have_a_black_and_white_truth():
    clean = signature()
    plain, cut = (dirty(clean, 1, 3, replace(Dirt(), bilevel=share)) for share in (0, 1))
    assert set(np.unique(cut.dirty)) == set(np.unique(cut.clean)) == {0, 255} and "bilevel" in cut.parts and "bilevel" not in plain.parts
    assert np.array_equal(plain.print, cut.print) and np.array_equal(plain.ink, cut.ink)
    bare = dirty(clean, 1, 3, replace(Dirt.none(), bilevel=1))
    assert np.array_equal(bare.dirty, bare.clean)              # without dirt both are cut alike


def test_dirty_light_is_dirty_without_the_search_for_ink():
    clean = signature()
    mask, light = lift_ink(clean)
    pair, (grey, white, printed, parts) = dirty(clean, 5, 8), dirty_light(light, 5, 8)
    assert np.array_equal(pair.dirty, grey) and np.array_equal(pair.clean, white) and np.array_equal(pair.print, printed) and pair.parts == parts
    assert light.dtype == np.float32 and (light[~mask].min() > 0) and np.array_equal(mask, pair.ink)
    again = dirty_light(white, 5, 8)                           # from a picture of 256 levels as from one of floats
    assert all(np.array_equal(a, b) for a, b in zip(again[:3], dirty_light(white / np.float32(255), 5, 8)[:3])) and np.array_equal(again[1], white)


# ---- what is quick must be what it stands for ----

@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(4, 80), st.booleans())
def test_a_type_case_prints_what_pillow_prints(seed, size, middle):
    rng = np.random.default_rng(seed)
    face = documents._pick(rng, documents._pick(rng, open_fonts()))
    sheet, expected = np.zeros((70, 180), np.uint8), Image.new("L", (180, 70))
    for _ in range(3):                                         # lines run over each other, and over the sheet's edges
        text, (x, y), tone = documents._a_phrase(rng, 0.5), rng.uniform((-80, 0), (170, 90)), int(rng.integers(150, 256))
        documents._print_line(sheet, documents._case(face, size), text, x, y, tone, middle)
        ImageDraw.Draw(expected).text((x, y), text, fill=tone, font=documents._font(face, size), anchor="mm" if middle else "ls")
        assert documents._length(face, text) == documents._font(face, 64).getlength(text) / 64
    assert np.array_equal(sheet, np.asarray(expected))


def test_quick_grain_is_grain():
    size, generator = (501, 703), np.random.Generator(np.random.Philox(3))
    quick, slow = documents._quick_grain(generator, size, 4.0) / 4, documents._grain(generator, size)
    assert quick.dtype == np.float32 and quick.shape == size and abs(quick.mean()) < 0.01
    for a, b in ((quick, slow), (quick[1:] - quick[:-1], slow[1:] - slow[:-1]), (quick[:, 2:] - quick[:, :-2], slow[:, 2:] - slow[:, :-2])):
        assert abs(a.std() / b.std() - 1) < 0.01               # of the noise, and of neighbours' differences
    assert np.allclose(np.percentile(quick, [1, 10, 25, 75, 90, 99]), np.percentile(slow, [1, 10, 25, 75, 90, 99]), atol=0.02)


def test_streams_are_those_of_numpys_seeds():
    for address in ((0, 0), (7, 2**32 - 1), (2**32, 5), (3, 2**40)):
        expected = np.random.Generator(np.random.Philox(np.random.SeedSequence((*address, 100, 4))))
        assert documents._stream(*address, 100, 4).random() == expected.random()
