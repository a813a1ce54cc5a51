"""`signver annotate`, `enrol`, `verify`, `identify`, `index`, `search`, `gallery` and `archive`: answers and exit codes that a script can use, runs that go on where they stopped, and nothing lost."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_cli import assert_refused
from test_cli_clean import invoke
from test_pipeline import Blobs, bytes_in, page_of, strict

from signver_kit import desk, pipeline
from signver_kit.archive import Archive
from signver_kit.desk import Lines, Setup, as_columns, expected_of, find_sheets
from signver_kit.gallery import FunctionExtractor, Gallery, hog_extractor
from signver_kit.pipeline import SignaturePipeline

HOG = hog_extractor()


@pytest.fixture
def office(tmp_path, monkeypatch):
    "An empty working folder, and a function that runs `signver` there without networks: Blobs, no cleaner, HOG. `office.blobs.calls`: pages that were looked at."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGNVER_GALLERY", "gallery")
    monkeypatch.setenv("SIGNVER_ARCHIVE", "archive")
    blobs = Blobs()
    monkeypatch.setattr(Setup, "pipeline", lambda setup, extract=True: SignaturePipeline(blobs, None, HOG if extract else None, setup.gallery, setup.archive))
    monkeypatch.setattr(Setup, "extractor_and_matcher", lambda setup: (HOG, None))
    run = lambda *words: invoke(*words)  # noqa: E731
    run.blobs = blobs
    return run


def write(path, *signed, **how):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), page_of(*signed, **how))
    return path


def write_many(path, *pages):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwritemulti(str(path), [page_of(*signed) for signed in pages])


@pytest.fixture
def staffed(office):
    "Ann, Ben and Cleo are on file, three pages each."
    for signer, name in enumerate(["Ann", "Ben", "Cleo"]):
        for index in range(3):
            write(f"specimens/{name}/{index}.png", (signer, index))
    assert_done(office("enrol", "specimens", "-r", "--by-folder"), "9 pages enrolled for 3 signer(s), 0 already there, 0 failed: gallery\n")
    return office


def assert_done(result, stdout=None, code=0):
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output and (stdout is None or result.stdout == stdout), result.output


def lines_of(result):
    return [strict(line) for line in result.stdout.splitlines()]


def interrupt_after(office, pages):
    "Ctrl-C while the page after so many is looked at."
    look, seen = Blobs.look, []

    def looking(page):
        if max(page.shape) == 1440:  # the sheet on which a picture is looked at a second time
            return look(office.blobs, page)
        seen.append(1)
        if len(seen) > pages:
            raise KeyboardInterrupt
        return look(office.blobs, page)

    office.blobs.look = looking


# ---- which pages, and what is expected


def test_each_page_once_and_nothing_that_is_not_there(office):
    write_many("in/three.tif", [], [(0, 0)], [])
    write("in/deep/one.png")
    assert [(Path(sheet.document).name, sheet.number) for sheet in find_sheets(["in", "in/three.tif", "in/*.tif"])] == [("three.tif", 0), ("three.tif", 1), ("three.tif", 2)]
    assert [(Path(sheet.document).name, sheet.number) for sheet in find_sheets(["in"], True)][-1] == ("one.png", 0)
    assert [sheet.number for sheet in find_sheets(["in/three.tif"], page=2)] == [1]
    assert all(Path(sheet.document).is_absolute() for sheet in find_sheets(["in"]))
    for words in (["annotate", "in", "nowhere.png"], ["annotate", "in", "--page", "4"], ["annotate", "in", "--page", "0"], ["annotate"], ["annotate", "in", "--detect-threshold", "50"],
                  ["annotate", "in", "--engine", "onnx"], ["annotate", "in", "--out", "a.jsonl", "--expected", "1"]):
        assert_refused(office(*words))
    assert sorted(path.name for path in Path().rglob("*")) == ["deep", "in", "one.png", "three.tif"], "nothing was written"


def test_what_can_be_expected(tmp_path):
    (tmp_path / "zones.json").write_text('{"tenant": [0.5, 0, 1, 0.5], "landlord": [2, [0.5, 0.5, 1, 1]]}')
    (tmp_path / "broken.json").write_text("{")
    assert expected_of(None) is None and expected_of(" 2 ") == 2 and expected_of("Ann, Dan O'Hara,") == ["Ann", "Dan O'Hara"]
    assert expected_of(str(tmp_path / "zones.json")) == {"tenant": (None, (0.5, 0, 1, 0.5)), "landlord": (2, (0.5, 0.5, 1, 1))}
    for wrong in ("0", ",", str(tmp_path / "broken.json"), str(tmp_path / "nowhere.json")):
        with pytest.raises((ValueError, OSError)):
            expected_of(wrong)
    assert as_columns([("a", 12), (None, "b")]) == "a  12\n   b"


# ---- annotate


def test_annotate_says_a_line_a_page(office):
    write("in/a.png", (0, 0)), write("in/b.png")
    Path("in/broken.png").write_text("no")
    result = office("annotate", "in")
    assert_done(result, code=1)
    assert [line.split() for line in result.stdout.splitlines()] == [["signed", "1", "signature", "in/a.png"], ["nothing", "in/b.png"]]
    assert result.stderr.startswith("failed: in/broken.png: UnreadableImage") and len(result.stderr.splitlines()) == 1
    first, second, third = lines_of(office("annotate", "in", "--json"))
    assert first["tags"]["signed"] and not second["tags"]["signed"] and third["error"] and third["document"] == str(Path("in/broken.png").resolve()) and "embedding" not in first["findings"][0]


def test_annotate_goes_on_in_its_file(office, monkeypatch):
    for number in range(5):
        write(f"in/{number}.png", (number % 3, 0))
    monkeypatch.setattr(pipeline, "PART_PAGES", 2)
    interrupt_after(office, 3)
    stopped = office("annotate", "in", "--out", "found/all.jsonl")
    assert stopped.exit_code == 130 and "2 of 5 pages are done" in stopped.stderr and "signver annotate --gallery gallery --out found/all.jsonl in" in stopped.stderr, stopped.output
    del office.blobs.look
    with open("found/all.jsonl", "a") as file:
        file.write('{"document": "torn')
    office.blobs.calls.clear()
    assert_done(office("annotate", "in", "--out", "found/all.jsonl"), "3 pages annotated, 2 already there, 0 failed: found/all.jsonl\n")
    kept = [strict(line) for line in Path("found/all.jsonl").read_text().splitlines()]
    assert [Path(entry["document"]).name for entry in kept] == [f"{number}.png" for number in range(5)]
    assert_done(office("annotate", "in", "--out", "found/all.jsonl"), "0 pages annotated, 5 already there, 0 failed: found/all.jsonl\n")
    assert_done(office("annotate", "in", "--out", "found/all.jsonl", "--force"), "5 pages annotated, 0 already there, 0 failed: found/all.jsonl\n")
    Path("mine.txt").write_text("my notes\nand more\n")
    assert_refused(office("annotate", "in", "--out", "mine.txt"))
    assert Path("mine.txt").read_text() == "my notes\nand more\n"


def test_lines_with_errors_are_done_again(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"document": "a", "number": number, "error": error}) + "\n" for number, error in ((0, None), (1, "broken"))))
    assert Lines(file).done == {("a", 0)} and len(file.read_text().splitlines()) == 1


def test_who_must_have_signed(staffed):
    write_many("contract.tif", [], [(0, 5)], [(1, 5)])
    write("letter.png", (0, 6))
    result = staffed("annotate", "contract.tif", "letter.png", "--expected", "Ann,Ben")
    assert_done(result, "complete    contract.tif\nincomplete  letter.png: missing Ben\n", 1)
    assert_done(staffed("annotate", "contract.tif", "--expected", "2"), "complete    contract.tif\n")
    [answer] = lines_of(staffed("annotate", "contract.tif", "--expected", "Ann,Ben", "--json"))
    assert answer["complete"] and answer["parties"] == {"Ann": {"page": 1, "finding": 0}, "Ben": {"page": 2, "finding": 0}} and len(answer["pages"]) == 3
    Path("broken.png").write_text("no")
    assert staffed("annotate", "broken.png", "--expected", "1").exit_code == 2
    assert_refused(staffed("annotate", "contract.tif", "--expected", "Ann,Zoe"))


# ---- enrol, verify, identify


def test_enrol_once_and_goes_on(office):
    for index in range(4):
        write(f"specimens/Ann/{index}.png", (0, index))
    interrupt_after(office, 1)
    stopped = office("enrol", "specimens", "-r", "--by-folder")
    assert stopped.exit_code == 130 and "signver enrol --gallery gallery --by-folder --recursive specimens" in stopped.stderr.replace("--recursive --by-folder", "--by-folder --recursive"), stopped.output
    del office.blobs.look
    Path("specimens/Ann/broken.png").write_text("no")
    result = office("enrol", "specimens", "-r", "--by-folder")
    assert result.exit_code == 1 and "1 failed" in result.stdout and Gallery.open("gallery").signers() == {"Ann": 4}
    office.blobs.calls.clear()
    assert office("enrol", "specimens/Ann", "--signer", "Ann").stdout.startswith("0 pages enrolled for 1 signer(s), 4 already there, 1 failed") and office.blobs.calls == []
    write("moved/0.png", (0, 0))
    assert_done(office("enrol", "moved", "--signer", "Ann"), "0 pages enrolled for 1 signer(s), 1 already there, 0 failed: gallery\n")


def test_a_page_of_several_people_is_not_taken_for_one(office):
    write("both.png", (0, 0), (1, 0))
    refused = office("enrol", "both.png", "--signer", "Ann")
    assert refused.exit_code == 1 and "failed: both.png: 2 signatures are on it" in refused.stderr and not Path("gallery").exists()
    assert_done(office("enrol", "both.png", "--signer", "Ann", "--which", "0"))
    assert_done(office("enrol", "both.png", "--signer", "Both", "--all"))
    assert Gallery.open("gallery").signers() == {"Ann": 1, "Both": 2}
    assert "--which" not in office("enrol", "both.png", "--signer", "Ann", "--which", "0").stderr
    for words in (["enrol", "both.png"], ["enrol", "both.png", "--signer", "A", "--by-folder"], ["enrol", "both.png", "--signer", " A"], ["enrol", "both.png", "--signer", "A", "--which", "-1"]):
        assert_refused(office(*words))


def test_verify_says_yes_no_or_cannot(staffed):
    write("genuine.png", (0, 5)), write("other.png", (1, 5)), write("blank.png")
    write_many("contract.tif", [], [(1, 6), (0, 6)], [])
    Path("broken.png").write_text("no")
    assert staffed("verify", "genuine.png", "--claimed", "Ann").exit_code == 0
    rejected = staffed("verify", "other.png", "--claimed", "Ann")
    assert rejected.exit_code == 1 and rejected.stdout.startswith("rejected: of 1 signature(s) compared") and rejected.stderr == ""
    assert staffed("verify", "contract.tif", "--claimed", "Ann").exit_code == 0 and staffed("verify", "contract.tif", "--claimed", "Cleo").exit_code == 1
    for bad in ("blank.png", "broken.png"):
        result = staffed("verify", bad, "--claimed", "Ann")
        assert result.exit_code == 2 and result.stdout == "" and result.stderr.startswith(f"failed: {bad}: ") and len(result.stderr.splitlines()) == 1, result.output
    result = staffed("verify", "genuine.png", "broken.png", "other.png", "contract.tif", "--claimed", "Ann")
    assert result.exit_code == 2 and [line.split(":")[0] for line in result.stdout.splitlines()] == ["accepted  genuine.png", "rejected  other.png", "accepted  contract.tif page 2"]
    answers = lines_of(staffed("verify", "genuine.png", "broken.png", "other.png", "--claimed", "Ann", "--json"))
    assert [answer["accepted"] for answer in answers] == [True, None, False] and answers[1]["error"] and answers[2]["pages"][0]["best"]["verdict"]["distance"] > 0
    assert staffed("verify", "other.png", "--claimed", "Ann", "--threshold", "1000").exit_code == 0 and staffed("verify", "genuine.png", "--claimed", "Ann", "--threshold", "0").exit_code == 1
    for words in (["verify", "genuine.png"], ["verify", "genuine.png", "--claimed", "Anna"], ["verify", "genuine.png", "--claimed", "Ann", "--gallery", "elsewhere"],
                  ["verify", "genuine.png", "--claimed", "Ann", "--threshold", "low"], ["verify", "genuine.png", "--claimed", "Ann", "--threshold", "nan"]):
        assert_refused(staffed(*words))
    assert not Path("elsewhere").exists()


def test_identify_names_somebody_or_nobody(staffed):
    write("ann.png", (0, 5)), write("nobody.png", (3, 5)), write("blank.png")
    named = staffed("identify", "ann.png")
    assert named.exit_code == 0 and named.stdout.startswith("ann.png, signature 0: written by Ann")
    assert staffed("identify", "nobody.png", "--threshold", "0").exit_code == 1 and staffed("identify", "blank.png").exit_code == 2
    answers = lines_of(staffed("identify", "ann.png", "nobody.png", "--threshold", "0.5", "-k", "1", "--json"))
    assert answers[0]["signers"] == ["Ann"] and len(answers[0]["pages"][0]["results"][0]["candidates"]) == 1


# ---- index, search


def test_index_goes_on_and_search_finds(staffed):
    for signer in range(3):
        for index in range(2):
            write(f"letters/{signer}{index}.png", (signer, index + 3))
    write_many("letters/both.tif", [], [(0, 6)])
    interrupt_after(staffed, 3)
    stopped = staffed("index", "letters")
    assert stopped.exit_code == 130 and "signver index --archive archive letters" in stopped.stderr, stopped.output
    del staffed.blobs.look
    Path("letters/broken.png").write_text("no")
    result = staffed("index", "letters")
    assert result.exit_code == 1 and result.stderr.startswith("failed: letters/broken.png: ") and len(Archive.open("archive").documents()) == 7
    staffed.blobs.calls.clear()
    assert "0 documents with 0 signatures on 0 pages put in, 7 already there, 1 pages failed: archive" in staffed("index", "letters").stdout and staffed.blobs.calls == []
    found = staffed("search", "Ann", "-k", "3")
    assert found.exit_code == 0 and {line.split()[2] for line in found.stdout.splitlines()[1:]} == {"letters/00.png", "letters/01.png", "letters/both.tif"}, found.output
    [answer] = lines_of(staffed("search", "letters/10.png", "-k", "1", "--json"))
    assert answer["documents"][0]["document"] == str(Path("letters/10.png").resolve()) and answer["searched"] == 7
    assert staffed("search", "Ann", "--threshold", "0").exit_code == 1
    for words in (["search"], ["search", "Anna"], ["search", "Ann", "--archive", "elsewhere"], ["search", "Ann", "-k", "0"], ["index"], ["index", "nowhere"]):
        assert_refused(staffed(*words))


# ---- upkeep


def test_upkeep_of_a_gallery(staffed, monkeypatch):
    assert_done(staffed("gallery", "list"), "Ann   3\nBen   3\nCleo  3\n")
    rows = lines_of(staffed("gallery", "list", "Ben", "--json"))
    assert len(rows) == 3 and rows[0]["document"] == str(Path("specimens/Ben/0.png").resolve()) and rows[0]["page"] == 0 and len(rows[0]["box"]) == 4
    assert_done(staffed("gallery", "delete", rows[0]["id"]), f"deleted: {rows[0]['id']}\n")
    assert_done(staffed("gallery", "purge"), "")
    assert_done(staffed("gallery", "export", "all.parquet"), "8 signatures written: all.parquet\n")
    assert_done(staffed("gallery", "import", "all.parquet", "--gallery", "copy"), "8 signatures taken in: copy\n")
    picture = Gallery.open("gallery")._fetch(["image"], "signer = 'Ann'")["image"][0].as_py()
    assert picture in bytes_in(Path("gallery"))
    assert_done(staffed("gallery", "erase", "Ann"), "erased: Ann, 3 signature(s)\n")
    assert picture not in bytes_in(Path("gallery")) and b"specimens/Ann" not in bytes_in(Path("gallery")) and picture in bytes_in(Path("copy")), "exports and copies are the user's"
    other = FunctionExtractor(HOG.embed, "hog", version="2")
    monkeypatch.setattr(Setup, "extractor_and_matcher", lambda setup: (other, None))
    assert_refused(staffed("gallery", "import", "all.parquet"))
    assert staffed("gallery", "reembed").stdout.startswith("5 signatures embedded afresh by hog")
    for words in (["list", "Ann"], ["erase", "Ann"], ["delete", "0" * 32], ["export", "all.parquet"], ["import", "nowhere.parquet"], ["list", "--gallery", "elsewhere"]):
        assert_refused(staffed("gallery", *words))
    monkeypatch.delenv("SIGNVER_GALLERY")
    assert_refused(staffed("gallery", "list"))


def test_upkeep_of_an_archive(office):
    assert_refused(office("archive", "list"))
    for index in range(2):
        write(f"letters/{index}.png", (index, 0))
    assert_done(office("index", "letters"))
    entries = lines_of(office("archive", "list", "--json"))
    assert [entry["signatures"] for entry in entries] == [1, 1] and len(office("archive", "list").stdout.splitlines()) == 2
    [found] = lines_of(office("search", "letters/0.png", "-k", "1", "--json", "--gallery", "none"))
    assert_done(office("archive", "forget", found["documents"][0]["id"]), "forgotten: 1 signature(s)\n")
    assert_done(office("index", "letters"), "0 documents with 0 signatures on 0 pages put in, 2 already there, 0 pages failed: archive\n")
    assert_done(office("archive", "erase", "letters/1.png"), f"erased: {Path('letters/1.png').resolve()}, 1 signature(s)\n")
    assert b"letters/1.png" not in bytes_in(Path("archive"))
    assert_done(office("archive", "purge"), "")
    assert office("archive", "reembed").stdout.startswith("0 signatures")
    assert_refused(office("archive", "erase", "letters/1.png"))
    assert_refused(office("archive", "forget", "0" * 32))


def test_a_setup_says_its_own_command():
    setup = Setup(Path("my gallery"), detector=Path("d"), no_clean=True, detect_threshold=0.3, page=2, as_json=True)
    assert setup.command("verify", ["-odd.png"], claimed="Ann", which=None) == "signver verify --gallery 'my gallery' --detector d --page 2 --detect-threshold 0.3 --claimed Ann --no-clean --json -- -odd.png"


def test_the_networks_are_loaded_as_asked(monkeypatch, tmp_path):
    from signver_kit import cleaner, detector, extractor

    asked = []

    class Model:
        def __init__(self):
            self.model = self.forward = None

        def load(self, folder):
            asked.append((self.kind, folder))
            return self

    for place, kind in ((detector, "Detector"), (cleaner, "Cleaner"), (extractor, "MetricExtractor")):
        monkeypatch.setattr(place, kind, type(kind, (Model,), {"kind": kind}))
    Setup(detector=Path("d"), extractor=tmp_path).pipeline()
    assert asked == [("MetricExtractor", tmp_path), ("Detector", Path("d")), ("Cleaner", None)]
    asked.clear()
    plain = Setup(crops=True, no_clean=True).pipeline()
    assert asked == [("MetricExtractor", None)] and plain.detector is plain.cleaner is None
    asked.clear()
    assert Setup().pipeline(extract=False).extractor is None and asked == [("Detector", None)]
    monkeypatch.setattr(desk, "run_by_openvino", lambda model: ("fast", model))
    assert Setup(engine="openvino", no_clean=True).pipeline().detector[0] == "fast"
    (tmp_path / "matcher.json").write_text("{")
    with pytest.raises(ValueError):
        Setup(extractor=tmp_path).pipeline()


def test_ink_that_is_nowhere_is_no_error_of_the_run(staffed):
    assert cv2.imwrite("grey.png", np.full((300, 300), 128, np.uint8))
    assert staffed("verify", "grey.png", "--claimed", "Ann").exit_code == 2
