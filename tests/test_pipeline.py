"""The pipeline: what is found, what is left out, who signed; bad pages among good ones; enrol, verify, identify; index, search, erase; and that results are strict JSON and harmless HTML."""
import copy
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from signver_kit import pipeline as module
from signver_kit.boxes import CLASSES
from signver_kit.documents import SyntheticPages
from signver_kit.gallery import AlreadyEnrolled, Gallery, UnknownSigner, hog_extractor, to_png
from signver_kit.images import UnreadableImage
from signver_kit.pipeline import (Annotation, Finding, NoSignature, PipelineError, Sheet, SignaturePipeline, check_expected, content_hash, each_once, share_inside, sheets,
                                  single_signature, widened)
from signver_kit.synthetic import SyntheticSigners


class Found(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray
    classes: tuple


class Blobs:
    "A detector that boxes every blob of dark pixels, joined over a twenty-fifth of the page; a page with a black corner makes it fail. `calls`: pages in each call."

    def __init__(self):
        self.calls = []

    def detect_pages(self, pages, threshold):
        self.calls.append(len(pages))
        return [self.look(page) for page in pages]

    def look(self, page):
        if page[0, 0] == 0:
            raise cv2.error("black corner")
        reach = max(page.shape) // 50
        joined = cv2.dilate((page < 200).astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1)))
        _, _, stats, _ = cv2.connectedComponentsWithStats(joined)
        boxes = [((y + reach) / page.shape[0], (x + reach) / page.shape[1], (y + h - reach) / page.shape[0], (x + w - reach) / page.shape[1]) for x, y, w, h, _ in stats[1:]]
        return Found(np.array(boxes).reshape(-1, 4), np.full(len(boxes), 0.9), ("signature",) * len(boxes))


PEOPLE = SyntheticSigners(4, seed=4, genuine=8, forgeries=3)


def page_of(*signed, size=(1000, 700), kind="genuine"):
    "A white page with signatures: (signer, index) each, below one another."
    page = np.full(size, 255, np.uint8)
    for row, (signer, index) in enumerate(signed):
        signature = PEOPLE.image(signer, kind, index)[:250, :500]
        page[100 + 400 * row:100 + 400 * row + signature.shape[0], 100:100 + signature.shape[1]] = signature
    return page


@pytest.fixture
def toy(tmp_path):
    "A pipeline without networks: Blobs, no cleaner, HOG."
    return SignaturePipeline(Blobs(), None, hog_extractor(), tmp_path / "gallery", tmp_path / "archive")


@pytest.fixture(scope="module")
def shipped():
    "The package's networks."
    return SignaturePipeline.load()


@pytest.fixture(scope="module")
def form():
    "Four signatures and four dates."
    return SyntheticPages(40, seed=3, dpi=100, signers=6).page(5)


# ---- small parts


boxes = st.tuples(*[st.floats(0, 1)] * 4).map(lambda sides: (min(sides[0], sides[2]), min(sides[1], sides[3]), max(sides[0], sides[2]), max(sides[1], sides[3])))


@given(st.lists(boxes, max_size=4), st.integers(1, 3000), st.integers(1, 3000), st.floats(0, 1))
def test_a_widened_box_holds_the_box_and_stays_on_the_page(found, height, width, margin):
    wide = widened(found, (height, width), margin)
    assert wide.shape == (len(found), 4) and (wide >= 0).all() and (wide <= 1).all()
    for own, box in zip(wide, found):
        assert (own[:2] <= box[:2]).all() and (own[2:] >= box[2:]).all()
        steps = [(box[0] - own[0]) * height, (box[1] - own[1]) * width]
        assert max(steps) <= margin * np.sqrt((box[2] - box[0]) * height * (box[3] - box[1]) * width) * (1 + 1e-6) + 1e-6


@given(boxes, boxes)
def test_the_share_inside_is_a_share(box, zone):
    share = share_inside(box, zone)
    assert 0 <= share <= 1 + 1e-9
    assert share_inside(box, (0, 0, 1, 1)) in (0, pytest.approx(1))


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("ABC"), st.integers(0, 3))))
def test_every_party_and_every_signature_once(pairs):
    chosen = each_once(pairs)
    assert len(set(chosen.values())) == len(chosen) and all((party, thing) in {(p, t) for _, p, t in pairs} for party, thing in chosen.items())
    left = [(p, t) for _, p, t in pairs if p not in chosen and t not in chosen.values()]
    assert not left


@pytest.mark.parametrize("expected", [0, -1, True, 1.5, {}, [], "Ann", {"tenant": [0, 0, 1]}, {"tenant": [0.5, 0, 0.2, 1]}, {"tenant": [0, 0, 100, 200]}, [3], {"tenant": None}])
def test_expectations_that_cannot_be(expected):
    with pytest.raises(PipelineError, match="expected is a number"):
        check_expected(expected)


def test_sheets_of_files_bytes_and_arrays(tmp_path):
    Image.fromarray(page_of((0, 0))).save(tmp_path / "one.pdf", save_all=True, append_images=[Image.fromarray(page_of((1, 0)))])
    cv2.imwritemulti(str(tmp_path / "three.tif"), [page_of()] * 3)
    found = list(sheets([tmp_path / "one.pdf", str(tmp_path / "three.tif"), ("upload", (tmp_path / "one.pdf").read_bytes()), page_of(), Sheet(b"x", 7, "given")]))
    assert [(sheet.document and Path(sheet.document).name, sheet.number) for sheet in found] == [
        ("one.pdf", 0), ("one.pdf", 1), ("three.tif", 0), ("three.tif", 1), ("three.tif", 2), ("upload", 0), ("upload", 1), (None, 0), ("given", 7)]
    assert found[1].read().ndim == 3 and found[0].pages == 2
    assert content_hash(tmp_path / "one.pdf") == content_hash((tmp_path / "one.pdf").read_bytes()) != content_hash(page_of()) != content_hash(page_of().T)


# ---- a page


class Tags(HTMLParser):
    "The tags of some HTML."

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)


def test_what_the_networks_find_on_a_form(shipped, form):
    seen = shipped.annotate(form.image, document="<script>alert(1)</script>")
    assert seen.tags["counts"] == {"signature": 4, "initials": 0, "redaction": 0, "date": 4} and not seen.whole
    assert {tag: seen.tags[tag] for tag in ("signed", "initialled", "dated", "redacted")} == {"signed": True, "initialled": False, "dated": True, "redacted": False}
    for finding in seen.findings:
        signature = finding.class_name == "signature"
        assert (finding.cleaned is not None) == (finding.description is not None) == signature and finding.crop.dtype == np.uint8 and finding.note is None
        if signature:
            assert finding.cleaned.shape == finding.crop.shape and np.linalg.norm(finding.embedding) == pytest.approx(1, abs=1e-5)
    shown = seen._repr_html_()
    assert set(Tags(shown).found) <= {"div", "b", "img", "table", "tr", "td", "th"} and "&lt;script&gt;" in shown
    many = list(shipped.annotate_all([form.image, form.image[:700]]))
    assert many[0].image is None and [one.as_dict() for one in many[0].findings] == [one.as_dict() for one in seen.findings], "alone or among others: the same"


def strict(text):
    "JSON as the standard has it: no NaN."
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_json_says_all_and_gives_no_biometrics_unasked(shipped, form):
    seen = shipped.annotate(form.image, expected=5)
    assert strict(seen.to_json()) == seen.as_dict() and "\n" not in seen.to_json()
    assert set(seen.as_dict()["findings"][0]) == {"class", "box", "score", "described", "note"}
    whole = strict(seen.to_json(pictures=True, embeddings=True))
    assert seen.tags["missing"] == whole["tags"]["missing"] == ["signature 5"] and not seen.tags["complete"]
    first = whole["findings"][0]
    assert np.array_equal(cv2.imdecode(np.frombuffer(module.base64.b64decode(first["crop"]), np.uint8), cv2.IMREAD_UNCHANGED), seen.findings[0].crop)
    assert np.allclose(first["embedding"], seen.findings[0].embedding)


@given(st.lists(st.tuples(st.sampled_from([*CLASSES, "stamp"]), boxes, st.floats(0, 1), st.one_of(st.none(), st.text())), max_size=4), st.one_of(st.none(), st.text()), st.one_of(st.none(), st.text()))
def test_any_annotation_becomes_strict_json_and_html(found, document, error):
    findings = tuple(Finding(name, box, score, np.zeros((3, 4), np.uint8), note=note) for name, box, score, note in found)
    seen = Annotation(findings, None, document, 2, error, parties={"<b>": 0 if found else None})
    assert strict(seen.to_json()) == seen.as_dict()
    assert set(Tags(seen._repr_html_()).found) <= {"div", "b", "img", "table", "tr", "td", "th"}
    assert (seen.tags == {}) == (error is not None)


def test_the_picture_of_one_signature_is_not_cut_to_pieces(shipped, form):
    alone = PEOPLE.image(0, "genuine", 0)
    assert single_signature(shipped.detector, cv2.cvtColor(form.image, cv2.COLOR_RGB2GRAY)) is None and single_signature(shipped.detector, np.full((90, 200), 255, np.uint8)) is None
    for around in (0, 40):
        picture = cv2.copyMakeBorder(alone, around, around, around, around, cv2.BORDER_CONSTANT, value=int(np.median(alone)))
        seen = shipped.annotate(picture)
        assert seen.whole and len(seen.findings) == 1 and seen.tags["signed"]
        top, left, bottom, right = np.array(seen.findings[0].box) * [*picture.shape, *picture.shape]
        ink = np.argwhere(picture < 100)
        assert (ink.min(0) >= [top - 1, left - 1]).all() and (ink.max(0) < [bottom + 1, right + 1]).all() and max(seen.findings[0].crop.shape) <= 1.2 * max(alone.shape)
    assert not shipped.annotate(alone, whole=False).whole
    page = page_of((1, 5), (0, 5))
    page[500:] = np.maximum(page[500:], 150)
    assert len(shipped.annotate(page).findings) == 2, "a strong signature and a faint one are a page"
    given = shipped.annotate(alone, whole=True)
    assert given.findings[0].box == (0, 0, 1, 1) and np.array_equal(given.findings[0].crop, alone)


class Bleach:
    "A cleaner that leaves nothing of what is paler than 100."

    def clean(self, pictures):
        return [np.where(picture < 100, picture, 255) / np.float32(255) for picture in pictures]


def test_a_faint_signature_outlives_the_cleaner(toy):
    toy.cleaner = Bleach()
    strong, faint = page_of((2, 2)), np.maximum(page_of((2, 2)), 130)
    [kept], [saved] = toy.annotate(strong).findings, toy.annotate(faint).findings
    assert kept.cleaned is not None and kept.note is None and kept.picture is kept.cleaned
    assert saved.cleaned is None and saved.description is not None and saved.note.startswith("cleaning left no ink") and saved.picture is saved.crop


def test_stages_left_out(shipped, form):
    boxes_only = SignaturePipeline(shipped.detector)
    seen = boxes_only.annotate(form.image)
    assert seen.tags == shipped.annotate(form.image).tags and all(finding.description is finding.cleaned is None for finding in seen.findings)
    uncleaned = SignaturePipeline(shipped.detector, None, shipped.extractor, classes=("signature", "date")).annotate(form.image)
    assert all(finding.description is not None and finding.picture is finding.crop for finding in uncleaned.findings)
    given_whole = SignaturePipeline(None, shipped.cleaner, None).annotate(form.image)
    assert given_whole.whole and given_whole.findings[0].cleaned is not None and given_whole.findings[0].description is None
    assert repr(boxes_only) == "SignaturePipeline(detect)"
    with pytest.raises(PipelineError, match="without the stage that makes them"):
        SignaturePipeline(shipped.detector, gallery="nowhere").enrol(form.image, "Ann")
    with pytest.raises(PipelineError, match="needs the archive"):
        shipped.search(form.image)
    with pytest.raises(PipelineError, match="engine must be keras or openvino, got 'onnx'"):
        SignaturePipeline.load(engine="onnx")


def test_models_take_a_network_that_keras_does_not_run(shipped, monkeypatch):
    "That OpenVINO's networks say what Keras's say is tested where they are made (test_detector, test_export)."
    from signver_kit import detector

    class Halved:
        def __init__(self, network):
            self.network, self.output_shape = network, network.output_shape

        def __call__(self, batch):
            return np.asarray(self.network.predict_on_batch(batch)) / 2

    monkeypatch.setattr(detector, "openvino_forward", Halved)
    models = [module.run_by_openvino(copy.copy(model)) for model in (shipped.detector, shipped.cleaner, shipped.extractor)]
    alone = PEOPLE.image(0, "genuine", 0)
    assert np.allclose(models[2].extract([alone]), shipped.extractor.extract([alone]), atol=1e-5), "half of every view, made length 1 again"
    [half], [whole] = models[1].clean([alone]), shipped.cleaner.clean([alone])
    assert half.mean() > whole.mean() and half.shape == whole.shape
    assert models[0].forward.network is shipped.detector.model and all(model is not own for model, own in zip(models, (shipped.detector, shipped.cleaner, shipped.extractor)))


def test_a_crop_without_ink_stays_and_says_why(toy):
    toy.detector.look = lambda page: Found(np.array([[0.1, 0.1, 0.3, 0.9], [0.6, 0.6, 0.9, 0.9]]), np.array([0.9, 0.6]), ("signature", "signature"))
    seen = toy.annotate(page_of((0, 0)), whole=False)
    assert seen.findings[0].description is not None and seen.findings[1].description is None and "image 0" not in seen.findings[1].note and "ink" in seen.findings[1].note
    assert seen.tags["counts"]["signature"] == 2
    assert len(toy.enrol(seen, "Ann")) == 1, "only what can be compared is put on file"
    with pytest.raises(PipelineError, match=r"here \[0\], got 1"):
        toy.enrol(seen, "Ann", which=1)


# ---- many pages


def test_one_bad_page_never_stops_the_rest(toy, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG cut short")
    cv2.imwritemulti(str(tmp_path / "two.tif"), [page_of((0, 0)), page_of((1, 0), (2, 0))])
    black = page_of((0, 0))
    black[0, 0] = 0
    pages = [page_of((0, 0)), tmp_path / "broken.png", black, tmp_path / "two.tif", tmp_path / "nowhere.png", np.zeros((0, 5)), page_of()]
    found = list(toy.annotate_all(pages, images=True))
    assert [len(seen.findings) for seen in found] == [1, 0, 0, 1, 2, 0, 0, 0] and [seen.number for seen in found] == [0, 0, 0, 0, 1, 0, 0, 0]
    errors = [seen.error and seen.error.split(":")[0] for seen in found]
    assert errors == [None, "UnreadableImage", "error", None, None, "FileNotFoundError", "UnreadableImage", None]
    assert [seen.image is None for seen in found] == [error is not None for error in errors]
    for page in (tmp_path / "broken.png", np.zeros((0, 5))):
        with pytest.raises(UnreadableImage):
            toy.annotate(page)


def test_pages_go_through_in_small_parts_and_none_is_kept(toy, monkeypatch):
    monkeypatch.setattr(module, "PART_PAGES", 3)
    alive = []

    def pages():
        for number in range(8):
            alive.append(number)
            yield page_of((number % 4, 0))

    found = toy.annotate_all(pages(), whole=False)
    assert next(found).image is None and len(alive) <= 4, "no more is read than a part, and the page that did not fit into it"
    assert len(list(found)) == 7 and toy.detector.calls == [3, 3, 2]


# ---- who signed


def test_zones_numbers_and_names(toy):
    page = page_of((0, 7), (1, 7))
    for signer, name in ((0, "Ann"), (1, "Ben"), (2, "Cleo")):
        for index in range(4):
            toy.enrol(page_of((signer, index)), name, whole=False)
    top, bottom, middle = [0.0, 0.0, 0.45, 1.0], [0.45, 0.0, 1.0, 1.0], [0.4, 0.0, 0.48, 1.0]
    seen = toy.annotate(page, expected={"tenant": top, "landlord": bottom, "witness": middle})
    assert seen.tags["missing"] == ["witness"] and not seen.tags["complete"]
    assert seen.findings[seen.parties["tenant"]].box[0] < 0.4 < seen.findings[seen.parties["landlord"]].box[0]
    assert toy.annotate(page, expected={"a": top, "b": top}).tags["missing"] == ["b"], "a signature counts once"
    assert toy.annotate(page, expected=2).tags["complete"] and toy.annotate(page, expected=3).tags["missing"] == ["signature 3"]
    named = toy.annotate(page, expected=["Ann", "Ben", "Cleo"])
    assert named.tags["missing"] == ["Cleo"] and {named.parties["Ann"], named.parties["Ben"]} == {0, 1}
    two = [toy.annotate(page_of((0, 6)), whole=False), toy.annotate(page_of((1, 6)), number=0, whole=False)]
    assert toy.parties(two, {"tenant": (0, top)})["tenant"] == (0, 0) and toy.parties(two, ["Ben", "Ann"]) == {"Ben": (1, 0), "Ann": (0, 0)}
    calls = len(toy.detector.calls)
    with pytest.raises(UnknownSigner):
        toy.annotate(page, expected=["Ann", "Zoe"])
    assert len(toy.detector.calls) == calls, "nothing is looked at for a question that cannot be answered"


def test_enrol_verify_identify(shipped, tmp_path):
    pipe = SignaturePipeline(shipped.detector, shipped.cleaner, shipped.extractor, tmp_path / "gallery")
    with pytest.raises(FileNotFoundError):
        pipe.verify(page_of((0, 0)), "Ann")
    for signer, name in enumerate(["Ann", "Ben", "Cleo"]):
        assert len(pipe.enrol(page_of((signer, 0), (signer, 2)), name)) == 2
    rows = pipe.gallery.list("Ann")
    assert (rows.page == 0).all() and 0.08 < min(box[0] for box in rows.box) < 0.12, "where it was cut from is on file"
    genuine, forged, other = pipe.verify(page_of((0, 5)), "Ann"), pipe.verify(page_of((0, 1), kind="skilled"), "Ann"), pipe.verify(page_of((1, 5)), "Ann")
    assert genuine and not forged and not other and genuine.best.distance < forged.best.distance
    both = pipe.verify(page_of((1, 5), (0, 5)), "Ann")
    assert both.accepted and sorted(result.accepted for result in both.results) == [False, True]
    rejected = [number for number, result in enumerate(both.results) if not result.accepted]
    assert not pipe.verify(both.page, "Ann", which=rejected)
    for answer in (genuine, forged, both, pipe.identify(both.page), pipe.identify(page_of((3, 5)))):
        assert strict(answer.to_json()) == answer.as_dict() and "<table>" in answer._repr_html_() and len(repr(answer)) < 200
    assert pipe.identify(both.page).signers[:2] in (["Ann", "Ben"], ["Ben", "Ann"]) and pipe.identify(page_of((3, 5)), threshold=0.0).signers == []
    assert pipe.verify(PEOPLE.image(0, "genuine", 5), "Ann").page.whole
    for refused, ask in ((NoSignature, lambda: pipe.verify(page_of(), "Ann")), (UnknownSigner, lambda: pipe.verify(page_of((0, 5)), "Anna")), (AlreadyEnrolled, lambda: pipe.enrol(page_of((0, 0)), "Ann")),
                         (PipelineError, lambda: pipe.verify(both.page, "Ann", which=[0, 7])), (NoSignature, lambda: pipe.verify(Annotation(error="x"), "Ann"))):
        with pytest.raises(refused):
            ask()


# ---- the archive


def bytes_in(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_index_and_search(toy, tmp_path):
    (tmp_path / "letters").mkdir()
    for signer in range(3):
        for index in range(2):
            cv2.imwrite(str(tmp_path / "letters" / f"{signer}-{index}.png"), page_of((signer, index)))
    cv2.imwritemulti(str(tmp_path / "letters" / "both.tif"), [page_of(), page_of((0, 2)), page_of((1, 2))])
    (tmp_path / "letters" / "broken.png").write_bytes(b"no")
    files = sorted((tmp_path / "letters").iterdir())
    done = toy.index(files, whole=False)
    assert (done.documents, done.pages, done.signatures, done.already, len(done.failed)) == (7, 9, 8, 0, 1) and done.failed[0][0].endswith("broken.png")
    again = toy.index(files)
    assert (again.documents, again.already, len(again.failed)) == (0, 7, 1) and len(toy.archive) == 8, "not twice"
    for name, signer in (("Ann", 0), ("Ben", 1)):
        toy.enrol(page_of((signer, 5), (signer, 6)), name)
    found = toy.search("Ann", k=3)
    assert {Path(name).name for name in found.documents.document} == {"0-0.png", "0-1.png", "both.tif"} and found.searched == 7
    assert found.documents.set_index(found.documents.document.map(lambda name: Path(name).name)).page["both.tif"] == 1
    assert strict(found.to_json()) == found.as_dict() and set(Tags(found._repr_html_()).found) <= {"div", "b", "img", "table", "tr", "td", "th"}
    asked = toy.search(page_of((0, 6), (1, 6)), k=9)
    assert not asked.documents.document.duplicated().any() and set(asked.documents["query"]) == {0, 1} and asked.page is not None
    cv2.imwrite(str(tmp_path / "letters" / "0-0.png"), page_of((2, 4)))
    assert toy.index(files).documents == 1 and len(toy.archive) == 8
    assert "0-0.png" not in {Path(name).name for name in toy.search("Ann", k=2).documents.document}
    with pytest.raises(PipelineError, match="nobody's name"):
        toy.search("Anna")
    with pytest.raises(NoSignature):
        toy.search(page_of())


def test_documents_are_known_by_their_names(toy):
    assert toy.index([("a", page_of((0, 0))), ("b", io.BytesIO(cv2.imencode(".png", page_of((0, 1)))[1].tobytes()).getvalue()), ("a", page_of((0, 0)))]).already == 1
    with pytest.raises(PipelineError, match="two with the name 'c'"):
        toy.index([("c", page_of((0, 0))), ("c", page_of((1, 0)))])
    with pytest.raises(PipelineError, match="has a name"):
        toy.index([page_of((0, 0))])
    assert set(toy.archive.documents().document) >= {"a", "b"}


def test_a_document_with_a_bad_page_is_looked_at_again(toy, tmp_path):
    black = page_of((1, 0))
    black[0, 0] = 0
    cv2.imwritemulti(str(tmp_path / "two.tif"), [page_of((0, 0)), black])
    first = toy.index([tmp_path / "two.tif"], whole=False)
    assert (first.documents, first.pages, first.signatures, len(first.failed)) == (1, 1, 1, 1)
    assert toy.index([tmp_path / "two.tif"], whole=False).already == 0 and len(toy.archive) == 1


def test_erased_from_gallery_and_archive_no_byte_is_left(toy, tmp_path):
    toy.enrol(page_of((0, 5)), "Ann Example")
    toy.enrol(page_of((1, 5)), "Ben")
    toy.index([("contract of Ann", page_of((0, 0))), ("letter of Ben", page_of((1, 0)))], whole=False)
    secrets = [to_png(finding.picture) for number in (5, 0) for finding in toy.annotate(page_of((0, number)), whole=False).findings]
    before = bytes_in(tmp_path)
    assert all(secret in before for secret in [*secrets, b"Ann Example", b"contract of Ann"])
    found = toy.search("Ann Example", k=1)
    toy.archive.forget(found.documents.id)
    toy.archive.erase("contract of Ann")
    toy.gallery.erase("Ann Example")
    after = bytes_in(tmp_path)
    assert not any(secret in after for secret in [*secrets, b"Ann Example", b"contract of Ann"]) and b"letter of Ben" in after


def test_objects_in_place_of_folders(toy, tmp_path):
    gallery = Gallery.create(tmp_path / "own", toy.extractor)
    pipe = SignaturePipeline(toy.detector, None, toy.extractor, gallery, Gallery.create(tmp_path / "papers", toy.extractor))
    pipe.enrol(page_of((0, 0)), "Ann")
    assert gallery.signers() == {"Ann": 1} and pipe.index([("a", page_of((0, 1)))]).signatures == 1 and pipe.archive.folder == tmp_path / "papers"
    with pytest.raises(PipelineError, match="without one"):
        SignaturePipeline(toy.detector, None, toy.extractor).enrol(page_of((0, 0)), "Ann")
