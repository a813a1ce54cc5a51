"""images: every format comes back the same, hostile files are refused by name, and the ink image keeps its promises."""

import ast
import hashlib
import inspect
import io
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from signver_kit import images
from signver_kit.images import (
    NoInk,
    SignverError,
    UnreadableImage,
    background,
    count_pages,
    crop_boxes,
    crop_to_ink,
    flatten_light,
    get_image_crops,
    ink_box,
    ink_image,
    ink_mask,
    otsu_threshold,
    paper_is_dark,
    pixel_hash,
    place_on_canvas,
    read_image,
    read_pages,
    to_ink,
)

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def scan(height=120, width=260, paper=238, ink=110, noise=1.5, pen=2, seed=0):
    "A drawn signature on noisy paper, away from the edges."
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, 300)
    x = width * (0.15 + 0.65 * t + 0.035 * np.sin((28 + seed % 5) * t))
    y = height * (0.5 + 0.24 * np.sin((20 + seed % 7) * t) * (1 - 0.6 * t) + 0.08 * np.sin(7 * t))
    stroke = np.zeros((height, width), np.uint8)
    cv2.polylines(stroke, [np.round(np.stack([x, y], 1) * 16).astype(np.int32)], False, 255, pen, cv2.LINE_AA, shift=4)
    picture = paper + (ink - float(paper)) * (stroke / 255.0)
    return np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).round().astype(np.uint8)


def saved(picture, format, **options):
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, format, **options)
    return buffer.getvalue()


def iou(a, b):
    return (a & b).sum() / max(1, (a | b).sum())


GREY = scan()
COLOUR = np.stack([GREY, np.roll(GREY, 3, 1), 255 - GREY // 2], 2)
IMAGE = Image.fromarray(GREY)
SIXTEEN = Image.fromarray(GREY.astype(np.uint16) * 257)
LOSSLESS = {
    "png L": saved(IMAGE, "PNG"),
    "png P": saved(IMAGE.convert("P"), "PNG"),
    "png LA": saved(IMAGE.convert("LA"), "PNG"),
    "png RGB": saved(IMAGE.convert("RGB"), "PNG"),
    "png RGBA": saved(IMAGE.convert("RGBA"), "PNG"),
    "png I;16": saved(SIXTEEN, "PNG"),
    "tiff I;16": saved(SIXTEEN, "TIFF"),
    "tiff I;16 lzw": saved(SIXTEEN, "TIFF", compression="tiff_lzw"),
    "tiff L": saved(IMAGE, "TIFF"),
    "tiff deflate": saved(IMAGE, "TIFF", compression="tiff_adobe_deflate"),
    "tiff float": saved(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
    "tiff int32": saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
    "bmp": saved(IMAGE, "BMP"),
    "bmp RGB": saved(IMAGE.convert("RGB"), "BMP"),
    "webp": saved(IMAGE.convert("RGB"), "WEBP", lossless=True),
    "webp RGBA": saved(IMAGE.convert("RGBA"), "WEBP", lossless=True),
    "gif": saved(IMAGE, "GIF"),
    "ppm": saved(IMAGE, "PPM"),
    "png interlaced P 4 bits": saved((IMAGE.point(lambda v: v // 17 * 17)).quantize(16), "PNG"),
}
BILEVEL = IMAGE.convert("1", dither=Image.Dither.NONE)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("name", [n for n in LOSSLESS if "4 bits" not in n])
def test_lossless_formats_come_back_the_same(name):
    back = read_image(LOSSLESS[name])
    assert back.dtype == np.uint8 and back.shape == GREY.shape
    assert (back == GREY).all()
    rgb = read_image(LOSSLESS[name], mode="rgb")
    assert rgb.shape == (*GREY.shape, 3) and (rgb == GREY[..., None]).all()


@pytest.mark.parametrize("format,options", [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "group4"}), ("BMP", {})])
def test_one_bit(format, options):
    back = read_image(saved(BILEVEL, format, **options))
    assert set(np.unique(back)) == {0, 255} and ((back > 0) == np.asarray(BILEVEL)).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_is_close(mode):
    back = read_image(saved(IMAGE.convert("RGB").convert(mode), "JPEG", quality=95))
    assert np.abs(back.astype(int) - GREY).mean() < 2


def test_jpeg_cmyk_without_adobes_marker_is_not_upside_down():
    cmyk = IMAGE.convert("RGB").convert("CMYK")
    adobe = saved(cmyk, "JPEG", quality=95)
    at = adobe.index(b"\xff\xee")
    length = int.from_bytes(adobe[at + 2 : at + 4], "big")
    assert adobe[at + 4 : at + 9] == b"Adobe"
    # the same data without the marker are not inverted by definition, so write the negative and drop the marker
    negative = saved(Image.eval(cmyk, lambda v: 255 - v), "JPEG", quality=95)
    at = negative.index(b"\xff\xee")
    plain = negative[:at] + negative[at + 2 + length :]
    assert np.abs(read_image(plain).astype(int) - GREY).mean() < 3
    assert np.abs(read_image(adobe).astype(int) - GREY).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation, format):
    upright = np.full((40, 64), 230, np.uint8)
    upright[4:12, 6:50] = 30
    upright[4:36, 6:12] = 30  # an L lying down: no symmetry
    # what a camera stores so that the note `orientation` turns it upright
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.T, 6: np.rot90, 7: lambda a: np.rot90(a.T, 2), 8: lambda a: np.rot90(a, -1)}
    exif = Image.Exif()
    exif[274] = orientation
    options = {"quality": 95} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    content = saved(Image.fromarray(np.ascontiguousarray(undo[orientation](upright))).convert("RGB"), format, exif=exif, **options)
    back = read_image(content)
    assert back.shape == upright.shape and np.abs(back.astype(int) - upright).max() < 60
    assert np.abs(back.astype(int) - upright).mean() < 3


def test_damaged_exif_is_not_fatal():
    content = saved(IMAGE, "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff garbage")
    assert (read_image(content) == GREY).all()


def test_transparent_pixels_become_paper():
    hole = np.zeros((*GREY.shape, 4), np.uint8)
    hole[10:20, 10:20] = (0, 0, 0, 255)
    hole[30:40, 30:40] = (0, 0, 0, 128)
    for format, options in [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]:
        back = read_image(saved(hole, format, **options))
        assert back[0, 0] == 255 and back[15, 15] == 0 and abs(int(back[35, 35]) - 127) <= 1
    la = Image.fromarray(hole).convert("LA")
    assert read_image(saved(la, "PNG"))[0, 0] == 255
    assert read_image(hole)[0, 0] == 255  # as an array
    assert read_image(np.asarray(la))[0, 0] == 255


def test_palette_and_key_transparency_become_paper():
    palette = Image.new("P", (30, 20), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30, 200, 0, 0])
    palette.paste(2, (5, 5, 10, 10))
    whole = read_image(saved(palette, "PNG", transparency=1), mode="rgb")
    assert (whole[0, 0] == 255).all() and (whole[7, 7] == [200, 0, 0]).all()
    partly = read_image(saved(palette, "PNG", transparency=bytes([255, 0, 255])), mode="rgb")
    assert (partly == whole).all()
    assert (read_image(saved(palette, "GIF", transparency=1), mode="rgb") == whole).all()
    key = np.full((20, 30), 7, np.uint8)
    key[5:10] = 100
    back = read_image(saved(key, "PNG", transparency=7))
    assert back[0, 0] == 255 and back[6, 6] == 100


def test_sixteen_bit_grey_key_transparency():
    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    values = np.full((8, 9), 1000, ">u2")
    values[2:4] = 30000
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = (9).to_bytes(4, "big") + (8).to_bytes(4, "big") + bytes([16, 0, 0, 0, 0])
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", (1000).to_bytes(2, "big")) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    back = read_image(png)
    assert back[0, 0] == 255 and back[3, 3] == round(30000 / 257)


def test_sixteen_bit_tiff_with_white_as_zero():
    content = saved(Image.fromarray((255 - GREY).astype(np.uint16) * 257), "TIFF", tiffinfo={262: 0})
    if Image.open(io.BytesIO(content)).tag_v2[262] != 0:
        pytest.skip("this Pillow does not write the tag")
    assert (read_image(content) == GREY).all()


def test_big_endian_sixteen_bit():
    picture = Image.frombytes("I;16B", IMAGE.size, (GREY.astype(">u2") * 257).tobytes())
    assert (read_image(saved(picture, "TIFF")) == GREY).all()


def test_pages_of_a_tiff(tmp_path):
    pages = [scan(seed=s, width=200 + 10 * s) for s in range(3)]
    first, *rest = [Image.fromarray(p) for p in pages]
    path = tmp_path / "three.tif"
    path.write_bytes(saved(first, "TIFF", save_all=True, append_images=rest, compression="tiff_lzw"))
    found = list(read_pages(path))
    assert [p.shape for p in found] == [(120, 200, 3), (120, 210, 3), (120, 220, 3)]
    for number, page in enumerate(pages):
        assert (found[number][..., 1] == page).all() and (read_image(path, page=number) == page).all()
    with pytest.raises(UnreadableImage, match="has 3 and page 3"):
        read_image(path, page=3)


def test_other_images_have_one_page():
    animation = saved(IMAGE, "GIF", save_all=True, append_images=[Image.fromarray(scan(seed=1))])
    assert len(list(read_pages(animation))) == 1
    assert len(list(read_pages(GREY))) == len(list(read_pages(IMAGE))) == 1
    for source in (animation, GREY, IMAGE):
        with pytest.raises(UnreadableImage, match="page"):
            read_image(source, page=1)


def test_array_rules():
    assert (read_image(GREY) == GREY).all() and read_image(GREY) is not GREY
    assert (read_image(COLOUR, mode="rgb") == COLOUR).all()
    assert (read_image(COLOUR) == np.asarray(Image.fromarray(COLOUR).convert("L"))).all()
    assert (read_image(GREY[..., None]) == GREY).all()
    assert (read_image(GREY.astype(np.uint16) * 257) == GREY).all()
    assert (read_image(GREY.astype(np.int64)) == GREY).all()
    assert (read_image(GREY / 255) == GREY).all() and (read_image((GREY / 255).astype(np.float16)) is not None)
    assert (read_image(GREY > 180) == (GREY > 180) * 255).all()
    assert (read_image(IMAGE) == GREY).all()
    assert (read_image(GREY[:, ::-1]) == GREY[:, ::-1]).all()  # not contiguous


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 5), np.uint8),
        np.zeros((5, 0, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((1, 5, 5, 3), np.uint8),
        np.zeros((5, 5, 7), np.uint8),
        np.full((5, 5), np.nan),
        np.full((5, 5), 1.5),
        np.full((5, 5), -0.1),
        np.full((5, 5), np.inf),
        np.full((5, 5), 256),
        np.full((5, 5), -1),
        np.full((5, 5), "a"),
        np.full((5, 5), None),
        np.full((5, 5), 1j),
    ],
    ids=str,
)
def test_arrays_that_are_no_pictures(array):
    with pytest.raises(UnreadableImage):
        read_image(array)


def test_sources(tmp_path):
    path = tmp_path / "päth with spaces.dat"  # the name's ending does not matter
    path.write_bytes(LOSSLESS["png L"])
    assert (read_image(path) == GREY).all() and (read_image(str(path)) == GREY).all()
    assert (read_image(bytearray(LOSSLESS["png L"])) == GREY).all() and (read_image(memoryview(LOSSLESS["png L"])) == GREY).all()
    with path.open("rb") as file:
        assert (read_image(file) == GREY).all() and (read_image(file) == GREY).all() and not file.closed
    with path.open("r", encoding="latin-1") as file, pytest.raises(TypeError, match="binary"):
        read_image(file)
    with pytest.raises(FileNotFoundError, match="no such"):
        read_image(tmp_path / "no such.png")
    with pytest.raises(UnreadableImage, match="folder"):
        read_image(tmp_path)
    for wrong in (None, 3, [1, 2], {}):
        with pytest.raises(TypeError, match="source must be"):
            read_image(wrong)
    for bad in ({"mode": "cmyk"}, {"page": -1}, {"dpi": 0}):
        with pytest.raises(ValueError):
            read_image(path, **bad)


# ---------------------------------------------------------------- PDF

PDF = saved(IMAGE, "PDF", resolution=150, save_all=True, append_images=[Image.fromarray(scan(seed=1))])


def encrypted_pdf():
    "A PDF whose encryption dictionary no password of ours fits."
    body = b"%PDF-1.4\n"
    offsets = []
    for number, text in enumerate(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>",
            b"<</Filter/Standard/V 1/R 2/O<" + b"11" * 32 + b">/U<" + b"22" * 32 + b">/P -4>>",
        ],
        1,
    ):
        offsets.append(len(body))
        body += b"%d 0 obj%s endobj\n" % (number, text)
    start = len(body)
    body += b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % o for o in offsets)
    return body + b"trailer<</Size 5/Root 1 0 R/Encrypt 4 0 R/ID[<00><00>]>>\nstartxref\n%d\n%%%%EOF\n" % start


def test_pdf_pages(tmp_path):
    pytest.importorskip("pypdfium2")
    pages = list(read_pages(PDF, dpi=150))
    assert [p.shape for p in pages] == [(120, 260, 3)] * 2 and pages[0].dtype == np.uint8
    assert np.abs(pages[0][..., 0].astype(int) - GREY).mean() < 4
    path = tmp_path / "two.pdf"
    path.write_bytes(PDF)
    assert (read_image(path, page=1, mode="rgb") == pages[1]).all()
    assert read_image(PDF).shape == GREY.shape and read_image(PDF, dpi=75).shape == (60, 130)
    with pytest.raises(UnreadableImage, match="has 2"):
        read_image(PDF, page=2)
    with pytest.raises(UnreadableImage, match="max_pixels"):
        list(read_pages(PDF, max_pixels=1000))
    assert ink_image(PDF).shape == (150, 220)


@pytest.mark.parametrize("cut", [9, 200, 2000, len(PDF) - 300])
def test_truncated_pdf(cut):
    pytest.importorskip("pypdfium2")
    with pytest.raises(UnreadableImage):
        list(read_pages(PDF[:cut]))


def test_count_pages(tmp_path):
    pytest.importorskip("pypdfium2")
    tiff = saved(IMAGE, "TIFF", save_all=True, append_images=[Image.fromarray(scan(seed=seed)) for seed in (1, 2)])
    animation = saved(IMAGE, "GIF", save_all=True, append_images=[Image.fromarray(scan(seed=1))])
    (tmp_path / "scan").write_bytes(tiff)
    for source in (PDF, tiff, tmp_path / "scan", io.BytesIO(PDF), animation, saved(IMAGE, "PNG"), IMAGE, GREY):
        assert count_pages(source) == len(list(read_pages(source)))
    for bad in (b"", b"hello", PDF[:200], encrypted_pdf()):
        with pytest.raises(UnreadableImage):
            count_pages(bad)
    with pytest.raises(FileNotFoundError):
        count_pages(tmp_path / "none.png")


def test_locked_and_broken_pdf():
    pytest.importorskip("pypdfium2")
    with pytest.raises(UnreadableImage, match="password"):
        list(read_pages(encrypted_pdf()))
    with pytest.raises(UnreadableImage):
        list(read_pages(b"%PDF-1.4\nnothing here\n%%EOF\n"))


def test_threads_read_together():
    pytest.importorskip("pypdfium2")
    with ThreadPoolExecutor(4) as pool:
        out = list(pool.map(lambda i: read_image(PDF if i % 2 else LOSSLESS["png RGBA"]), range(24)))
    assert all((o == out[i % 2]).all() for i, o in enumerate(out))


# ---------------------------------------------------------------- hostile files


def forged_png(width, height):
    content = bytearray(saved(Image.new("1", (8, 8)), "PNG"))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize("size", [(60_000, 60_000), (12_000, 12_000), (60_000, 100), (1, 60_000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_from_the_header(size):
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (read_image, lambda c: list(read_pages(c)), ink_image):
            with pytest.raises(UnreadableImage):
                read(forged_png(*size))
    assert time.perf_counter() - started < 2


def test_bombs_of_other_formats():
    bmp = bytearray(saved(IMAGE, "BMP"))
    bmp[18:26] = (60_000).to_bytes(4, "little") * 2
    gif = bytearray(saved(IMAGE, "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    tiff = saved(Image.new("1", (20_000, 20_000)), "TIFF", compression="group4")
    assert len(tiff) < 100_000
    for content in (bytes(bmp), bytes(gif), tiff, np.broadcast_to(np.uint8(0), (20_000, 20_000))):
        with pytest.raises(UnreadableImage):
            read_image(content)


def test_second_page_may_be_the_bomb():
    content = saved(IMAGE, "TIFF", save_all=True, append_images=[Image.new("1", (20_000, 20_000))], compression="tiff_lzw")
    assert read_image(content).shape == GREY.shape
    pages = read_pages(content)
    next(pages)
    with pytest.raises(UnreadableImage, match="max_pixels"):
        next(pages)


def test_max_pixels_is_a_limit_not_a_guess():
    assert read_image(LOSSLESS["png L"], max_pixels=GREY.size).shape == GREY.shape
    for source in (LOSSLESS["png L"], GREY, IMAGE):
        with pytest.raises(UnreadableImage, match="max_pixels"):
            read_image(source, max_pixels=GREY.size - 1)


def test_pillows_warnings_do_not_leak(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.size - 1)  # Pillow now warns about this image
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for content in LOSSLESS.values():
            read_image(content)
    assert not caught
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # and now it refuses
    with pytest.raises(UnreadableImage, match="sane size"):
        read_image(LOSSLESS["png L"])


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"BM", b"RIFF\0\0\0\0WEBP", b"%PDF-1.7", b"GIF89a", b"version https://git-lfs.github.com/spec/v1\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"], ids=repr
)
def test_not_an_image(content, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(UnreadableImage) as error:
            read_image(source)
        assert str(path) in str(error.value).replace("\\\\", "\\") or source is content


@pytest.mark.parametrize("name", [*LOSSLESS, "jpeg", "jpeg progressive", "jpeg cmyk", "tiff g4", "webp lossy"])
def test_truncated_files_are_refused_or_whole(name, tmp_path):
    more = {
        "jpeg": lambda: saved(IMAGE, "JPEG"),
        "jpeg progressive": lambda: saved(Image.fromarray(COLOUR), "JPEG", progressive=True),
        "jpeg cmyk": lambda: saved(IMAGE.convert("RGB").convert("CMYK"), "JPEG"),
        "tiff g4": lambda: saved(BILEVEL, "TIFF", compression="group4"),
        "webp lossy": lambda: saved(Image.fromarray(COLOUR), "WEBP"),
    }
    content = LOSSLESS[name] if name in LOSSLESS else more[name]()
    whole = read_image(content)
    path = tmp_path / "cut"
    for cut in sorted({1, 5, 20, 60, 200, len(content) // 4, len(content) // 2, 3 * len(content) // 4, len(content) - 300, len(content) - 40, len(content) - 13, len(content) - 5, len(content) - 2, len(content) - 1}):
        if not 0 < cut < len(content):
            continue
        path.write_bytes(content[:cut])
        for source in (content[:cut], path):
            try:
                back = read_image(source)
            except UnreadableImage:
                continue
            # only bytes after the picture (an end marker, padding) may be missing
            assert back.shape == whole.shape and (back == whole).all(), f"{name} cut to {cut} of {len(content)} bytes gave a made-up picture"


@FEW
@given(st.sampled_from(sorted(LOSSLESS)), st.data())
def test_damaged_bytes_never_raise_anything_else(name, data):
    content = bytearray(LOSSLESS[name])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert read_image(bytes(content), max_pixels=4_000_000).dtype == np.uint8
        except UnreadableImage:
            pass


@FEW
@given(st.binary(max_size=300))
def test_random_bytes(content):
    with pytest.raises(UnreadableImage):
        read_image(content)


def test_errors_have_parents():
    assert issubclass(UnreadableImage, SignverError) and issubclass(UnreadableImage, ValueError)
    assert issubclass(NoInk, SignverError) and issubclass(NoInk, ValueError) and not issubclass(NoInk, UnreadableImage)


# ---------------------------------------------------------------- mask


@pytest.mark.parametrize("seed", range(6))
def test_otsu_against_opencv_and_scikit_image(seed):
    filters = pytest.importorskip("skimage.filters")
    grey = scan(seed=seed, noise=1 + 3 * seed, ink=60 + 20 * seed)
    t = otsu_threshold(grey)
    assert t == cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)[0]
    assert ((grey <= t) == (grey <= filters.threshold_otsu(grey))).all()
    where = np.zeros(grey.shape, bool)
    where[20:90, 30:200] = True
    assert otsu_threshold(grey, where) == otsu_threshold(np.ascontiguousarray(grey[20:90, 30:200]))


def test_otsu_by_hand():
    # 6 pixels of 10, 2 of 20, 8 of 200: the split between 20 and 200 explains most
    grey = np.array([10] * 6 + [20] * 2 + [200] * 8, np.uint8).reshape(4, 4)
    assert otsu_threshold(grey) == 20
    assert otsu_threshold(np.full((3, 3), 9, np.uint8)) in range(256)


def test_mask_is_plain_otsu_on_a_plain_scan():
    for seed in range(5):
        grey = scan(seed=seed)
        assert (ink_mask(grey) == (grey <= otsu_threshold(grey))).all()


@pytest.mark.parametrize("method", ["otsu", "local"])
def test_dark_paper(method):
    assert paper_is_dark(255 - GREY) and not paper_is_dark(GREY)
    mask = ink_mask(GREY, method=method)
    negative = 255 - GREY
    assert iou(ink_mask(negative, method=method), mask) > 0.97
    assert iou(ink_mask(negative, method=method, paper="dark"), mask) > 0.97
    assert np.abs(to_ink(negative, method=method) - to_ink(GREY, method=method)).max() < 1e-6
    faint = (255 - GREY) // 3 + 20  # a telephone's dark mode: grey on darker grey
    assert iou(ink_mask(faint), mask) > 0.9


def blank_sheets():
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 2, (200, 300))
    fade = np.linspace(1, 0.5, 300)
    specks = np.full((200, 300), 240, np.uint8)
    specks[rng.integers(0, 200, 40), rng.integers(0, 300, 40)] = 30
    lid = np.clip(238 + noise, 0, 255).astype(np.uint8)
    lid[:, :3] = 60
    lid[-6:] = 10
    return {
        "white": np.full((50, 60), 255, np.uint8),
        "black": np.zeros((50, 60), np.uint8),
        "grey": np.full((50, 60), 128, np.uint8),
        "1x1": np.zeros((1, 1), np.uint8),
        "1x1 white": np.full((1, 1), 255, np.uint8),
        "2x2": np.array([[0, 255], [255, 0]], np.uint8),
        "noise": np.clip(238 + noise, 0, 255).astype(np.uint8),
        "strong noise": np.clip(200 + 8 * noise, 0, 255).astype(np.uint8),
        "uniform noise": rng.integers(0, 256, (200, 300), dtype=np.uint8),
        "fading light": np.clip((238 + noise) * fade, 0, 255).astype(np.uint8),
        "diagonal light": np.clip((238 + noise) * np.add.outer(np.linspace(0, 0.3, 200), np.linspace(0.4, 0.7, 300)), 0, 255).astype(np.uint8),
        "single pixels": specks,
        "the scanner's edges": lid,
        "row": np.tile(np.uint8([200, 210]), 60)[None],
    }


@pytest.mark.parametrize("method", ["otsu", "local"])
@pytest.mark.parametrize("name", list(blank_sheets()))
def test_no_ink(name, method):
    sheet = blank_sheets()[name]
    with pytest.raises(NoInk) as error:
        ink_mask(sheet, method=method)
    assert ":" in str(error.value)
    for kind in ("binarised", "masked", "raw"):
        with pytest.raises(NoInk):
            ink_image(sheet, input=kind, method=method)


@pytest.mark.parametrize("ink,paper,noise", [(215, 245, 1.0), (205, 238, 2.0), (150, 190, 2.0), (10, 60, 2.0)])
def test_light_pens_are_not_blank(ink, paper, noise):
    truth = scan(noise=0, ink=0, paper=255) < 128
    assert iou(ink_mask(scan(ink=ink, paper=paper, noise=noise)), truth) > 0.75


def test_scanner_edges_are_peeled():
    wanted = ink_mask(GREY)
    for side in range(4):
        for depth, offset in ((1, 0), (2, 0), (2, 1), (3, 0), (12, 0)):
            view = np.rot90(GREY, side).copy()
            view[offset : offset + depth] = 70
            framed = np.rot90(view, -side)
            assert iou(ink_mask(np.ascontiguousarray(framed)), wanted) > 0.97, (side, depth, offset)
    slanted = GREY.copy()
    slanted[np.arange(120)[:, None] < np.arange(260) * 10 // 260 + 2] = 15
    assert iou(ink_mask(slanted), wanted) > 0.95
    part = GREY.copy()
    part[30:80, -1] = 100  # 40 % of one side
    assert iou(ink_mask(part), wanted) > 0.99


def test_strokes_that_run_out_of_the_picture_stay():
    thick = np.full((100, 200), 240, np.uint8)
    cv2.line(thick, (0, 3), (90, 3), 30, 9)
    cv2.line(thick, (40, 0), (90, 99), 30, 7)
    assert (ink_mask(thick) == (thick < 128)).all()
    cut = np.ascontiguousarray(GREY[:, 60:180])
    assert (ink_mask(cut) == (cut <= otsu_threshold(cut))).all()


def test_bands_do_not_hide_the_ink():
    wanted = ink_mask(GREY)
    band = GREY.copy()
    band[:, 90:] = (band[:, 90:] * 0.7).astype(np.uint8)
    assert iou(ink_mask(band), wanted) > 0.8
    strip = GREY.copy()
    strip[70:] = (strip[70:] * 0.75).astype(np.uint8)
    assert iou(ink_mask(strip), wanted) > 0.8


def test_local_method_beats_one_threshold_and_sauvola():
    filters = pytest.importorskip("skimage.filters")

    def f1(mask, truth):
        return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())

    for seed in range(3):
        even = scan(seed=seed, ink=130, noise=0)
        truth = even <= 185
        light = np.linspace(1, 0.4, 260) * np.where(np.arange(260) > 150, 0.75, 1.0)
        uneven = np.clip(even * light + np.random.default_rng(seed).normal(0, 2, even.shape), 0, 255).astype(np.uint8)
        local = f1(ink_mask(uneven, method="local"), truth)
        assert local > 0.9
        assert local > f1(uneven <= otsu_threshold(uneven), truth) + 0.3
        assert local > f1(uneven < filters.threshold_sauvola(uneven, 25), truth)
        assert f1(ink_mask(even, method="local"), truth) > 0.97


def test_background_and_flatten_light():
    light = np.linspace(220, 120, 260)[None].repeat(120, 0).astype(np.uint8)
    written = np.where(scan(noise=0, ink=0, paper=255) < 128, 20, light).astype(np.uint8)
    assert np.abs(background(written).astype(int) - light)[:, 30:-30].max() <= 6
    paper = flatten_light(written)[~(written == 20)]
    assert np.percentile(np.abs(paper.astype(int) - 240), 95) < 20
    assert background(np.full((1, 1), 9, np.uint8)).tolist() == [[9]]


@pytest.mark.parametrize("bad", [np.zeros((5, 5)), np.zeros((5, 5, 3), np.uint8), np.zeros((0, 5), np.uint8), np.zeros(5, np.uint8)], ids=str)
def test_mask_arguments(bad):
    for call in (ink_mask, to_ink):
        with pytest.raises(ValueError, match="uint8"):
            call(bad)
    for options in ({"method": "sauvola"}, {"paper": "blue"}):
        with pytest.raises(ValueError, match="must be"):
            ink_mask(GREY, **options)
    with pytest.raises(ValueError, match="input"):
        to_ink(GREY, input="grey")


def test_to_ink():
    mask = ink_mask(GREY)
    binary, masked, raw = (to_ink(GREY, input=kind) for kind in ("binarised", "masked", "raw"))
    assert all(x.dtype == np.float32 and x.shape == GREY.shape for x in (binary, masked, raw))
    assert (binary == mask).all()
    assert (masked[~mask] == 0).all() and np.allclose(masked[mask], 1 - GREY[mask] / 255, atol=1e-6)
    assert np.allclose(raw, 1 - GREY / 255, atol=1e-6)
    assert (to_ink(np.zeros((3, 3), np.uint8), input="raw") == 1).all()  # raw alone looks at nothing


# ---------------------------------------------------------------- crop and canvas


def test_ink_box_by_hand():
    ink = np.zeros((50, 1100), np.float32)
    ink[20:30, 50:1050] = 1  # ten rows, a thousand columns
    assert ink_box(ink, keep=1) == (20, 50, 30, 1050)
    # 0.2 % of the mass are two columns: the box begins with the one in which the mass reaches it
    assert ink_box(ink, keep=0.998) == (20, 51, 30, 1048)
    assert crop_to_ink(ink).shape == (10, 997)
    assert ink_box(ink * 0.3) == ink_box(ink)


def test_specks_do_not_move_the_crop():
    ink = to_ink(GREY, input="binarised")
    wanted = ink_box(ink)
    for row, col in ((1, 1), (118, 257), (3, 250), (115, 2)):
        dirty = ink.copy()
        dirty[row - 1 : row + 2, col - 1 : col + 2] = 1
        assert ink_box(dirty) == wanted
    dot = ink.copy()
    top, left, bottom, right = ink_box(ink, keep=1)
    dot[top - 8 : top - 4, left + 40 : left + 44] = 1  # the dot of an i: close, so it counts
    assert ink_box(dot, keep=1)[0] == top - 8


def test_a_broken_tail_is_followed():
    ink = np.zeros((120, 400), np.float32)
    ink[20:100, 20:120] = (np.indices((80, 100)).sum(0) % 7 < 3).astype(np.float32)
    for start in range(126, 300, 12):
        ink[60:62, start : start + 5] = 1
    assert ink_box(ink, keep=1)[3] >= 290


def test_crop_arguments():
    with pytest.raises(NoInk, match="zero|are 0"):
        crop_to_ink(np.zeros((9, 9), np.float32))
    for bad in (np.full((9, 9), 2.0), np.full((9, 9), np.nan), np.zeros((9, 9), np.uint8), np.zeros((0, 9)), np.zeros((3, 3, 3))):
        with pytest.raises(ValueError):
            crop_to_ink(bad)
        with pytest.raises(ValueError):
            place_on_canvas(bad)
    for keep in (0, 0.5, 1.1, float("nan")):
        with pytest.raises(ValueError, match="keep"):
            crop_to_ink(to_ink(GREY), keep=keep)
    for size, margin in (((0, 5), 1), ((5, -1), 1), ((5, 5), -1)):
        with pytest.raises(ValueError, match="size"):
            place_on_canvas(np.ones((3, 3), np.float32), size, margin=margin)


sides = st.integers(1, 90)


@settings(max_examples=80, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 9))
def test_canvas_keeps_size_range_and_proportions(h, w, height, width, margin):
    canvas = place_on_canvas(np.ones((h, w), np.float32), (height, width), margin=margin)
    assert canvas.shape == (height, width) and canvas.dtype == np.float32
    assert canvas.min() >= 0 and canvas.max() <= 1
    rows, cols = np.flatnonzero(canvas.any(1)), np.flatnonzero(canvas.any(0))
    used = min(margin, (min(height, width) - 1) // 2)
    free_h, free_w = height - 2 * used, width - 2 * used
    scale = min(free_h / h, free_w / w)
    assert abs(len(rows) - max(1, h * scale)) <= 1 and abs(len(cols) - max(1, w * scale)) <= 1
    assert abs((rows[0] + rows[-1]) - (height - 1)) <= 1 and abs((cols[0] + cols[-1]) - (width - 1)) <= 1  # centred


def test_thin_strokes_survive_shrinking():
    ink = np.zeros((1200, 1760), np.float32)
    for offset in range(17, 1100, 131):
        ink[offset] = 1  # one pixel wide
    canvas = place_on_canvas(ink, (150, 220), margin=0)
    assert (canvas.max(axis=1) > 0.1).sum() >= 9
    assert canvas.sum() == pytest.approx(ink.sum() * (220 / 1760) ** 2, rel=0.02)


def test_fill():
    canvas = place_on_canvas(np.zeros((10, 40), np.float32), (20, 40), margin=0, fill=0.25)
    assert (canvas[:5] == 0.25).all() and (canvas[5:15] == 0).all()


# ---------------------------------------------------------------- the whole path


@FEW
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(60, 220),
    width=st.integers(90, 400),
    paper=st.integers(170, 255),
    ink=st.integers(0, 110),
    pen=st.integers(1, 5),
    size=st.tuples(st.integers(8, 200), st.integers(8, 300)),
    input=st.sampled_from(["binarised", "masked", "raw"]),
    method=st.sampled_from(["otsu", "local"]),
)
def test_ink_image_promises(seed, height, width, paper, ink, pen, size, input, method):
    grey = scan(height, width, paper, ink, 2.0, pen, seed)
    before = grey.copy()
    out = ink_image(grey, size, input=input, method=method)
    assert out.shape == size and out.dtype == np.float32 and out.flags.c_contiguous
    assert 0 <= out.min() and out.max() <= 1 and out.max() > 0
    assert (grey == before).all()
    assert (out == ink_image(grey, size, input=input, method=method)).all()


@FEW
@given(st.integers(0, 10_000), st.integers(1, 4), *[st.integers(0, 60)] * 4)
def test_more_paper_changes_nothing(seed, pen, top, bottom, left, right):
    # two grey levels, so that the threshold cannot move with the amount of paper
    grey = np.where(scan(noise=0, ink=0, paper=255, seed=seed, pen=pen) < 128, 90, 240).astype(np.uint8)
    padded = np.pad(grey, ((top, bottom), (left, right)), constant_values=240)
    assert (ink_image(padded) == ink_image(grey)).all()
    noisy = scan(seed=seed, pen=pen)
    wide = np.pad(noisy, ((top, bottom), (left, right)), constant_values=238)
    assert iou(ink_image(wide) > 0.5, ink_image(noisy) > 0.5) > 0.8


@FEW
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_a_second_pass_changes_little(seed, pen):
    once = ink_image(scan(seed=seed, pen=pen))
    twice = ink_image(1 - once)  # float pictures: 1 is white
    assert iou(once > 0.5, twice > 0.5) > 0.75
    assert (ink_image(once) == ink_image(np.round(once * 255).astype(np.uint8))).all()  # an ink image is a picture with dark paper
    assert iou(ink_image(once) > 0.5, twice > 0.5) > 0.9


@FEW
@given(st.integers(0, 10_000), st.floats(0.5, 2.5))
def test_resolution_does_not_matter(seed, factor):
    grey = scan(160, 340, seed=seed, pen=3, noise=0)
    scaled = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    assert iou(ink_image(scaled) > 0.3, ink_image(grey) > 0.3) > 0.55


def test_binarised_is_binary_inside_strokes():
    out = ink_image(scan(300, 660, pen=12))
    core = cv2.erode((out > 0.5).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert core.any() and (out[core] > 0.99).all()
    assert (out[:4] == 0).all() and (out[:, :4] == 0).all()  # the margin


def test_raw_shows_the_scanner_and_binarised_does_not():
    light, dark = (scan(paper=p, seed=3, noise=0, ink=p - 130) for p in (253, 240))
    raw = [np.median(ink_image(g, input="raw")) for g in (light, dark)]
    assert abs(raw[0] - (1 - 253 / 255)) < 0.01 and abs(raw[1] - (1 - 240 / 255)) < 0.01
    assert np.abs(ink_image(light) - ink_image(dark)).mean() < 0.01
    framed = ink_image(light, input="raw")
    assert framed[0, 0] == pytest.approx(1 - 253 / 255, abs=1e-6)  # the padding is the picture's own median


def test_all_sources_give_the_same_ink_image(tmp_path):
    path = tmp_path / "s.png"
    path.write_bytes(LOSSLESS["png RGBA"])
    wanted = ink_image(GREY)
    for source in (path, str(path), LOSSLESS["tiff I;16"], io.BytesIO(LOSSLESS["bmp"]), IMAGE):
        assert (ink_image(source) == wanted).all()


# ---------------------------------------------------------------- hashes and boxes


def test_pixel_hash():
    assert pixel_hash(GREY) == hashlib.sha256(repr(GREY.shape).encode() + GREY.tobytes()).hexdigest()
    assert pixel_hash(GREY) == pixel_hash(read_image(LOSSLESS["webp"])) == pixel_hash(np.asfortranarray(GREY))
    assert pixel_hash(GREY) != pixel_hash(GREY.reshape(-1, 60)) and pixel_hash(GREY) != pixel_hash(GREY.T)
    with pytest.raises(ValueError, match="uint8"):
        pixel_hash(GREY / 255)


def test_crop_boxes_by_hand():
    page = np.arange(100 * 200, dtype=np.int32).reshape(100, 200)
    crop, outside = crop_boxes(page, [[0.1, 0.2, 0.3, 0.25], [-1, 0.995, 0.011, 7]])
    assert (crop == page[10:30, 40:50]).all() and (outside == page[0:2, 199:200]).all()
    assert crop_boxes(page, [[0.5, 0.5, 0.50001, 0.50001]])[0].shape == (1, 1)
    assert crop_boxes(page, []) == [] and crop_boxes(page, np.zeros((0, 4))) == []
    crop[:] = 0
    assert page[10, 40] != 0  # a copy
    for bad in ([0.5, 0.5, 0.5, 0.9], [0.9, 0.1, 0.2, 0.5], [1.2, 0, 1.4, 1], [np.nan, 0, 1, 1], [10, 20, 30, 40]):
        with pytest.raises(ValueError, match="box 0"):
            crop_boxes(page, [bad])
    with pytest.raises(ValueError, match="boxes"):
        crop_boxes(page, [0, 0, 1, 1])
    with pytest.raises(ValueError, match="image"):
        crop_boxes(np.zeros((1, 5, 5, 3)), [[0, 0, 1, 1]])


@FEW
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5), st.integers(1, 50), st.integers(1, 50))
def test_crop_boxes_cover_the_box(raw, height, width):
    boxes = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in raw if a != c and b != d]
    for (y0, x0, y1, x1), crop in zip(boxes, crop_boxes(np.zeros((height, width), np.uint8), boxes)):
        assert crop.shape[0] >= (y1 - y0) * height - 1e-3 and crop.shape[1] >= (x1 - x0) * width - 1e-3
        assert crop.shape[0] <= (y1 - y0) * height + 2 and crop.shape[1] <= (x1 - x0) * width + 2


def test_get_image_crops():
    page = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0.5, 1, 1]])
    crops = get_image_crops(page, boxes, [0.9, 0.22, 0.23])
    assert [c.shape for c in crops] == [(25, 30, 3), (50, 30, 3)]  # the threshold itself is not above it
    batched = get_image_crops(page[None], boxes[None], np.array([[0.9, 0.22, 0.23]]))
    assert all((a == b).all() for a, b in zip(crops, batched))
    assert get_image_crops(page, boxes, [0, 0, 0]) == [] and len(get_image_crops(page, boxes, [0.1] * 3, threshold=0.05)) == 3
    with pytest.raises(ValueError, match="score"):
        get_image_crops(page, boxes, [0.5])
    # a box below the threshold may be nonsense
    assert len(get_image_crops(page, [[0, 0, 1, 1], [0, 0, 0, 0]], [0.9, 0.01])) == 1


# ---------------------------------------------------------------- real scans


def real(data_dir, pattern, every):
    files = sorted(data_dir.glob(pattern))[::every]
    if not files:
        pytest.skip(f"no {pattern} in {data_dir}")
    return files


@pytest.mark.parametrize("pattern,every", [("cedar/full_*/*.png", 13), ("crossmedia/*/*/*.png", 19), ("cedar_native/*/*.png", 9)])
def test_real_signatures_are_read(data_dir, pattern, every):
    shares = []
    for path in real(data_dir, pattern, every):
        out = ink_image(path)
        assert out.shape == (150, 220) and out.dtype == np.float32 and out.max() > 0.9
        rows, cols = np.flatnonzero(out.any(1)), np.flatnonzero(out.any(0))
        assert rows[0] <= 5 or cols[0] <= 5  # the writing fills the canvas one way
        shares.append(float((out > 0.5).mean()))
    assert 0.005 < min(shares) and max(shares) < 0.6


def test_real_scan_edges_specks_and_dark_mode(data_dir):
    real(data_dir, "cedar/full_org/original_1_1.png", 1)
    cedar, phone = data_dir / "cedar", data_dir / "crossmedia" / "experiment"
    for name in ("full_forg/forgeries_48_5", "full_org/original_48_7", "full_forg/forgeries_29_9", "full_org/original_17_11"):
        grey = read_image(cedar / f"{name}.png")
        before, after = grey <= otsu_threshold(grey), ink_mask(grey)
        sides = [before[:, :4].any(1).mean(), before[:, -4:].any(1).mean(), before[:4].any(0).mean(), before[-4:].any(0).mean()]
        peeled = [after[:, :4].any(1).mean(), after[:, -4:].any(1).mean(), after[:4].any(0).mean(), after[-4:].any(0).mean()]
        assert max(sides) > 0.9 and max(peeled) < 0.4, name
    for name in ("full_org/original_44_11", "full_forg/forgeries_5_2", "full_org/original_20_1"):
        mask = ink_mask(read_image(cedar / f"{name}.png"))
        assert ink_box(mask.astype(np.float32))[0] > np.flatnonzero(mask.any(1))[0] + 20, name  # a speck above the name
    if phone.is_dir():
        for writer, number in ((92, 23), (94, 39), (99, 29)):
            grey = read_image(phone / str(writer) / f"{number}.png")
            assert paper_is_dark(grey) and ink_mask(grey).mean() < 0.2
        assert pixel_hash(read_image(phone / "64" / "36.png")) == pixel_hash(read_image(phone / "64" / "37.png"))


def test_real_blank_paper(data_dir):
    refused = 0
    for path in real(data_dir, "cedar/full_org/original_*_1.png", 1):
        grey = read_image(path)
        away = cv2.dilate((grey <= otsu_threshold(grey)).astype(np.uint8), np.ones((9, 9)))
        for corner in (np.s_[5:45, 5:65], np.s_[-45:-5, 5:65], np.s_[5:45, -65:-5], np.s_[-45:-5, -65:-5]):
            if not away[corner].any():
                with pytest.raises(NoInk):
                    ink_mask(np.ascontiguousarray(grey[corner]))
                refused += 1
    assert refused > 20


def test_real_speed(data_dir):
    files = real(data_dir, "cedar/full_org/*.png", 25)
    ink_image(files[0])
    times = []
    for path in files:
        started = time.process_time()
        ink_image(path)
        times.append(time.process_time() - started)
    assert np.median(times) < 0.010  # about 3 ms


def test_nothing_of_the_kit_is_imported():
    tree = ast.parse(inspect.getsource(images))
    found = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)} | {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not [name for name in found if name is None or name.startswith("signver_kit")]
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
