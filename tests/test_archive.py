"""The archive of documents: put in whole and once, found by hand, removed for good; a register that says what was looked at."""
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signver_kit.archive import REGISTER, Archive, ArchiveError, UnknownDocument, _Rewritten, document_key
from signver_kit.descriptors import Description
from signver_kit.gallery import Gallery, OtherModel, check_signer, hog_extractor, to_png
from signver_kit.synthetic import SyntheticSigners


@pytest.fixture(scope="module")
def hog():
    return hog_extractor()


@pytest.fixture(scope="module")
def hands():
    """Name -> five genuine pictures."""
    people = SyntheticSigners(5, seed=6, genuine=5, forgeries=0)
    return {name: [people.image(number, "genuine", index) for index in range(5)] for number, name in enumerate("ABCDE")}


def put(archive, document, pictures, content="as it was"):
    places = [{"page": page, "box": [0.7, 0.1, 0.8, 0.4]} for page in range(len(pictures))]
    return archive.put(document, content, pictures, archive.extractor.extract(pictures) if pictures else np.zeros((0, 1980)), places, max(1, len(pictures)))


@pytest.fixture
def archive(tmp_path, hog, hands):
    """A document of each hand with two signatures, and one that nobody signed."""
    made = Archive.create(tmp_path / "archive", hog)
    for name, pictures in hands.items():
        put(made, f"/letters/{name}.pdf", pictures[:2])
    put(made, "/letters/unsigned.pdf", [])
    return made


def bytes_in(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_search_ranks_a_document_by_its_nearest_signature(archive, hog, hands):
    for name, pictures in hands.items():
        found = archive.search(hog.describe(pictures[2:]), k=3)
        assert found.document[0] == f"/letters/{name}.pdf" and found.accepted[0] and len(found) == 3 and not found.document.duplicated().any()
        assert (np.diff(found.distance) >= 0).all() and found.box[0].tolist() == [0.7, 0.1, 0.8, 0.4]
        each = archive.search(hog.describe(pictures[2:]), k=2, each=True)
        assert set(each.document) == {f"/letters/{name}.pdf"} and set(each.page) == {0, 1}
    single = archive.search(hog.describe(hands["A"][2:3]), k=10, shortlist=3)
    assert len(single) <= 3 and single.document[0] == "/letters/A.pdf"
    assert not archive.search(hog.describe(hands["A"][2:]), k=10, threshold=0.0).accepted.any()


def test_a_document_is_put_in_once_and_replaced_when_it_changed(archive, hog, hands):
    assert archive.holds("/letters/A.pdf", "as it was") and archive.holds("/letters/unsigned.pdf", "as it was") and not archive.holds("/letters/A.pdf", "changed")
    assert len(archive) == 10 and len(archive.documents()) == 6
    assert put(archive, "/letters/A.pdf", hands["B"][2:3], "changed") == 1
    assert len(archive) == 9 and archive.documents().set_index("document").signatures.to_dict()["/letters/A.pdf"] == 1
    assert archive.search(hog.describe(hands["A"][2:]), k=1).document[0] != "/letters/A.pdf"
    again = Archive.open(archive.folder, hog)
    assert again.holds("/letters/A.pdf", "changed") and again.search(hog.describe(hands["B"][3:]), k=2).accepted.all()


@pytest.mark.parametrize("line", [1, 2], ids=["after the rows", "before them"])
def test_a_writer_that_dies_leaves_no_double(archive, hands, monkeypatch, line):
    original, lines = _Rewritten.append, []

    def dying(register, document, sha256=None, **values):
        lines.append(document)
        if len(lines) == 3 - line:
            raise KeyboardInterrupt
        original(register, document, sha256, **values)

    monkeypatch.setattr(_Rewritten, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        put(archive, "/letters/A.pdf", hands["A"][:3], "changed")
    monkeypatch.undo()
    again = Archive.open(archive.folder, archive.extractor)
    assert not again.holds("/letters/A.pdf", "changed")
    assert put(again, "/letters/A.pdf", hands["A"][:3], "changed") == 3 and len(again) == 11 and again.holds("/letters/A.pdf", "changed")


def test_erase_and_forget_leave_no_bytes(archive, hog, hands):
    found, described = archive.described(archive.search(hog.describe(hands["B"][2:]), k=9, each=True).id)
    rows = [row for row in range(len(found)) if found.document[row] == "/letters/B.pdf"]
    secrets = [to_png(picture) for picture in hands["B"][:2]] + [described.embeddings[row].tobytes() for row in rows]
    before = bytes_in(archive.folder)
    assert len(rows) == 2 and all(secret in before for secret in [*secrets, b"/letters/B.pdf"])
    assert archive.erase("/letters/B.pdf") == 2
    after = bytes_in(archive.folder)
    assert not any(secret in after for secret in [*secrets, b"/letters/B.pdf", document_key("/letters/B.pdf").encode()]) and not archive.holds("/letters/B.pdf")
    mine = archive.search(hog.describe(hands["C"][2:]), k=9, each=True)
    assert archive.forget(mine.id[mine.document == "/letters/C.pdf"]) == 2
    assert not any(to_png(picture) in bytes_in(archive.folder) for picture in hands["C"][:2])
    assert archive.holds("/letters/C.pdf", "as it was"), "the same content must not come back"
    assert archive.erase("/letters/unsigned.pdf") == 0 and len(archive) == 6
    with pytest.raises(UnknownDocument, match="did you mean '/letters/A.pdf'"):
        archive.erase("/letters/A.pd")
    with pytest.raises(ArchiveError, match="ids must be such as search"):
        archive.forget(["0" * 32])


def test_what_an_archive_refuses(archive, hog, hands, tmp_path):
    with pytest.raises(ArchiveError, match="names nobody"):
        archive.enrol("Ann", hands["A"][0])
    with pytest.raises(ArchiveError, match="hash of its content"):
        archive.put("a", "", [], np.zeros((0, 1980)), [])
    with pytest.raises(OtherModel):
        archive.put("a", "x", hands["A"][:1], np.ones((1, 7)), [{"page": 0}])
    with pytest.raises(ArchiveError, match="described by hog"):
        archive.search(Description(hog.describe(hands["A"][:1]).maps))
    assert not archive.holds("a") and len(archive) == 10
    with pytest.raises(FileExistsError):
        Archive.create(archive.folder, hog)
    Gallery.create(tmp_path / "signers", hog).enrol("Ann", hands["A"][0])
    with pytest.raises(ArchiveError, match="gallery of signers"):
        Archive.open(tmp_path / "signers", hog)
    empty = Archive.create(tmp_path / "empty", hog)
    assert empty.search(hog.describe(hands["A"][:1])).empty and empty.documents().empty


@given(st.text(min_size=1, max_size=400))
def test_a_key_is_a_signers_name_whatever_the_document_is_called(document):
    try:
        document.encode()
    except UnicodeEncodeError:
        with pytest.raises(ArchiveError):
            document_key(document)
        return
    assert check_signer(document_key(document)) and len(document_key(document)) == 49


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc\n\"é"), st.sampled_from([None, "1", "2"]), st.integers(0, 30)), max_size=12))
def test_the_register_says_what_its_lines_say(tmp_path_factory, steps):
    """Also when a line was torn, and when another reader looked in between."""
    path = tmp_path_factory.mktemp("register") / REGISTER
    register, reader, wanted = _Rewritten(path), _Rewritten(path), {}
    for document, sha256, torn in steps:
        register.append(document, sha256, pages=1)
        wanted[document] = sha256
        if torn < 10:
            with open(path, "ab") as file:
                file.write(json.dumps({"document": "torn", "sha256": "9"}).encode()[:torn])
        if torn % 3 == 0:
            assert {name: entry["sha256"] for name, entry in reader.entries().items()} == wanted
        if torn == 30:
            register.rewrite(without=document)
            wanted.pop(document)
    assert {name: entry["sha256"] for name, entry in reader.entries().items()} == wanted
