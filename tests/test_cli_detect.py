"`signver detect` and `signver train detector`: what is found is written as COCO, grows page by page, and costs nobody a file."
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image
from test_cli import assert_refused, files_of, hear_ctrl_c, subprocess_environment
from test_cli_clean import invoke, names, read, stop_after, write
from test_images import encrypted_pdf

from signver_kit import batch, cli
from signver_kit.boxes import CLASS_COLOURS, draw_boxes
from signver_kit.images import UnreadableImage, crop_boxes, read_image
from signver_kit.pages import read_coco


class Boxes(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray
    classes: tuple


TWO = Boxes(np.array([[0.5, 0.25, 0.75, 0.75], [0.1, 0.0, 0.3, 1.0]]), np.array([0.9, 0.6]), ("signature", "date"))
NONE = Boxes(np.zeros((0, 4)), np.zeros(0), ())
PAGE = (40, 28)


class Fixed:
    "A detector that finds the same on every page, and nothing on a white one. `calls`: the number of pages in each call."

    def __init__(self, found=TWO):
        self.found, self.calls = found, []

    def detect_pages(self, pages, threshold):
        self.calls.append(len(pages))
        found = [NONE if (page == 255).all() else self.found for page in pages]
        return [Boxes(one.boxes[one.scores >= threshold], one.scores[one.scores >= threshold], one.classes[:(one.scores >= threshold).sum()]) for one in found]


@pytest.fixture
def detect(tmp_path, monkeypatch):
    "A function that runs `signver detect` in an empty folder, with the detector `Fixed` and weights whose hash is the name given with --weights."
    fixed = Fixed()
    monkeypatch.setattr(batch, "load_detector", lambda weights: fixed)
    monkeypatch.setattr(batch, "weights_hash", lambda kind, weights: str(weights))
    monkeypatch.chdir(tmp_path)
    run = lambda *words: invoke("detect", *words)  # noqa: E731
    run.fixed = fixed
    return run


def page(path, seed=0):
    return write(path, np.random.default_rng([seed, *str(path).encode()]).integers(0, 250, PAGE, np.uint8))


def content(folder="out"):
    return json.loads(Path(folder, "detections.json").read_text())


def summary(result):
    assert "Traceback" not in result.output and not isinstance(result.exception, Exception), result.output
    return result.exit_code, result.stdout.splitlines()[0].split(":")[0]


# ---- what comes out


def test_what_is_written(detect):
    page("scans/b.png"), page("scans/a.png")
    result = detect("scans", "--out", "out")
    assert result.exit_code == 0 and result.stderr == "", result.output
    assert result.stdout == "2 pages looked at, 0 already there, 0 failed: out\nfound: 2 signature, 0 initials, 0 redaction, 2 date\n"
    assert names("out") == ["a.jpg", "b.jpg", *(f"crops/{name}-{k}-{kind}.png" for name in "ab" for k, kind in ((1, "signature"), (2, "date"))), "detections.json"]
    for name in "ab":
        pixels = read(f"scans/{name}.png")
        for crop, k, kind in zip(crop_boxes(pixels, TWO.boxes), (1, 2), TWO.classes):
            assert np.array_equal(read(f"out/crops/{name}-{k}-{kind}.png"), crop)
        drawn = read(f"out/{name}.jpg")
        assert drawn.shape == (*PAGE, 3) and (np.ptp(drawn.astype(int), -1) > 60).any()  # the page was grey, the frames are not
    found = content()
    assert found["info"] == {"description": "signver detect", "version": cli.__version__, "weights_sha256": "None", "threshold": 0.5, "finished": True}
    assert found["categories"] == [{"id": 1, "name": "signature"}, {"id": 2, "name": "initials"}, {"id": 3, "name": "redaction"}, {"id": 4, "name": "date"}]
    assert found["images"][0] == {"id": 1, "file_name": "../scans/a.png", "page": 1, "name": "a", "width": 28, "height": 40, "picture": "a.jpg"}
    assert found["annotations"][3] == {"id": 4, "image_id": 2, "category_id": 4, "bbox": [0.0, 4.0, 28.0, 8.0], "area": 224.0, "iscrowd": 0, "score": 0.6, "crop": "crops/b-2-date.png"}
    assert len(found["images"]) == 2 and len(found["annotations"]) == 4


@pytest.mark.parametrize("place", ["given relative", "given whole", "in the folder above"])
def test_read_coco_reads_it(detect, tmp_path, place):
    source = page("scans/week/a.png").parent
    page("scans/week/b.png")
    write("scans/week/white.png", np.full(PAGE, 255, np.uint8))
    out = {"given relative": "results/out", "given whole": "out", "in the folder above": "scans/out"}[place]
    assert detect(source.resolve() if place == "given whole" else source, "--out", out).exit_code == 0
    pages = read_coco(Path(out, "detections.json"))
    assert len(pages) == 3 and not len(pages.problems) and pages.boxes["score"].tolist() == [0.9, 0.6] * 2
    for number, name in enumerate(("a", "b", "white")):
        assert np.array_equal(pages.read(number), read_image(source / f"{name}.png", mode="rgb"))
        boxes, classes = pages.truth(number)
        assert classes == (TWO.classes if name != "white" else ()) and np.allclose(boxes, TWO.boxes if name != "white" else np.zeros((0, 4)), atol=1e-5)
    assert Path(pages.pages["page"][0]).is_absolute() == (place == "given whole")


def test_the_smallest_box_is_one_when_it_is_read(detect, tmp_path):
    page("a.png")
    detect.fixed.found = Boxes(np.array([[0.5, 0.5, 0.5002, 0.5002], [0.9999, 0.9999, 1, 1]]), np.array([0.9, 0.8]), ("initials", "redaction"))
    assert detect("a.png", "--out", "out").exit_code == 0
    pages = read_coco("out/detections.json")
    assert len(pages.boxes) == 2 and not len(pages.problems)
    assert read("out/crops/a-1-initials.png").shape == read("out/crops/a-2-redaction.png").shape == (1, 1)


def test_every_page_of_a_document(detect):
    first, *rest = (Image.fromarray(np.full(PAGE, 40 * k, np.uint8)) for k in range(1, 4))
    Path("in").mkdir()
    first.save("in/fax.tif", save_all=True, append_images=rest)
    first.convert("RGB").save("in/letter.pdf", resolution=150, save_all=True, append_images=[one.convert("RGB") for one in rest])
    assert summary(detect("in", "--out", "out", "--no-crops")) == (0, "6 pages looked at, 0 already there, 0 failed")
    assert names("out") == ["detections.json", *(f"{name}{number}.jpg" for name in ("fax", "letter") for number in ("-page2", "-page3", ""))]
    assert [(Path(image["file_name"]).name, image["page"], image["name"]) for image in content()["images"]] == [
        (file, number, f"{Path(file).stem}{f'-page{number}' if number > 1 else ''}") for file in ("fax.tif", "letter.pdf") for number in (1, 2, 3)]
    assert all((image["height"], image["width"]) == PAGE for image in content()["images"])
    Path("out/fax-page2.jpg").unlink()
    assert summary(detect("in", "--out", "out", "--no-crops")) == (0, "1 pages looked at, 5 already there, 0 failed")


def test_nothing_found_and_left_out_parts(detect):
    write("in/white.png", np.full(PAGE, 255, np.uint8)), page("in/a.png")
    result = detect("in/white.png", "--out", "out")
    assert result.exit_code == 0 and result.stdout.endswith("found: 0 signature, 0 initials, 0 redaction, 0 date\n") and names("out") == ["detections.json", "white.jpg"]
    assert content()["annotations"] == [] and len(content()["images"]) == 1
    assert detect("in", "--out", "bare", "--no-crops", "--no-pictures").exit_code == 0 and names("bare") == ["detections.json"] and len(content("bare")["annotations"]) == 2
    assert summary(detect("in", "--out", "bare", "--no-pictures")) == (0, "1 pages looked at, 1 already there, 0 failed")  # the white page has nothing to cut
    assert names("bare") == ["crops/a-1-signature.png", "crops/a-2-date.png", "detections.json"] and len(content("bare")["annotations"]) == 2


def test_labels_are_drawn_for_the_size_of_the_page():
    for shape in ((1, 1), (30, 20), (1000, 700, 3), (3508, 2480, 3)):
        found = Boxes(np.array([[0, 0, 0.02, 0.1], [0.5, 0.9, 0.6, 1.0], [0.97, 0.2, 1, 0.6]]), np.array([0.99, 0.7, 0.5]), ("signature", "date", "Größe"))
        before = np.full(shape, 255, np.uint8)
        drawn = draw_boxes(before, found)
        assert drawn.shape == (*shape[:2], 3) and drawn.dtype == np.uint8 and (before == 255).all()
        for box, name in zip(found.boxes, found.classes):
            row, column = min(round(box[0] * shape[0]), shape[0] - 1), min(round((box[1] + box[3]) / 2 * shape[1]), shape[1] - 1)
            colour = CLASS_COLOURS.get(name, (60, 60, 60))
            assert shape == (1, 1) or tuple(drawn[row, column]) == colour or shape[0] == 30  # on small pages the labels cover the frames
    label = drawn[int(0.02 * 3508) + 5:160, :700]  # no room above: below the box
    assert (label == CLASS_COLOURS["signature"]).all(-1).sum() > 5000 and (label == 255).all(-1).any()


def test_classes_of_ones_own(detect):
    page("a.png")
    detect.fixed.found = TWO._replace(classes=("stamp / seal", "../x"))
    assert detect("a.png", "--out", "out").exit_code == 0
    assert names("out") == ["a.jpg", "crops/a-1-stamp_seal.png", "crops/a-2-_x.png", "detections.json"]
    assert [(one["id"], one["name"]) for one in content()["categories"]][4:] == [(5, "../x"), (6, "stamp / seal")]
    assert detect("a.png", "--out", "out").stdout.endswith("0 date, 1 ../x, 1 stamp / seal\n")


# ---- which pages, and those that cannot be read


def test_folders_and_patterns(detect):
    for name in ("1.png", "week/1.webp", "week/day/2.bmp", "notes.txt.png"):
        page(f"in/{name}")
    assert detect("in", "--out", "flat", "--no-crops").exit_code == 0 and names("flat") == ["1.jpg", "detections.json", "notes.txt.jpg"]
    assert detect("in", "-r", "--out", "in/deep", "--no-crops").exit_code == 0
    assert names("in/deep") == ["1.jpg", "detections.json", "notes.txt.jpg", "week/1.jpg", "week/day/2.jpg"]
    assert summary(detect("in", "-r", "--out", "in/deep", "--no-crops")) == (0, "0 pages looked at, 4 already there, 0 failed")
    assert detect("in/*/*.webp", "in/1.png", Path("in/1.png").resolve(), "--out", "out").exit_code == 0
    assert names("out") == ["1.jpg", "crops/1-1-signature.png", "crops/1-2-date.png", "crops/week/1-1-signature.png", "crops/week/1-2-date.png", "detections.json", "week/1.jpg"]
    assert summary(detect("in/week", "in/week/day", "-r", "--out", "x", "--no-crops")) == (0, "2 pages looked at, 0 already there, 0 failed")  # each page once, by its first name
    assert names("x") == ["1.jpg", "day/2.jpg", "detections.json"]


def test_bad_files_are_reported_and_the_rest_is_done(detect):
    good = page("in/good.png")
    Image.fromarray(np.zeros(PAGE, np.uint8)).save("in/ok.pdf", resolution=150)
    bad = {"cut.pdf": Path("in/ok.pdf").read_bytes()[:-300], "locked.pdf": encrypted_pdf(), "empty.jpg": b"", "short.png": good.read_bytes()[:200], "text.tif": b"dear"}
    for name, data in bad.items():
        Path("in", name).write_bytes(data)
    for round_ in range(2):
        result = detect("in", "--out", "out")
        assert summary(result) == (1, ["2 pages looked at, 0 already there, 5 failed", "0 pages looked at, 2 already there, 5 failed"][round_])
        lines = result.stderr.strip().splitlines()
        assert [line.split(":")[1].strip() for line in lines] == sorted(f"in/{name}" for name in bad) and all(line.startswith("failed: ") for line in lines)
        assert "fetch it again" in lines[0] and "fetch or scan it again" in lines[1] and "without a password" in lines[2] and "save an unlocked copy" in lines[2]
    assert [image["name"] for image in content()["images"]] == ["good", "ok"] and detect.fixed.calls == [2]
    assert isinstance(detect("in", "--out", "out", "--debug").exception, UnreadableImage)


def test_a_page_that_the_network_chokes_on_is_named(detect, monkeypatch):
    for number in range(3):
        write(f"in/{number}.png", np.full((9, 9), number, np.uint8))
    usual = Fixed.detect_pages

    def choosy(self, pages, threshold):
        if any((one == 1).all() for one in pages):
            raise RuntimeError("no\nmemory")
        return usual(self, pages, threshold)

    monkeypatch.setattr(Fixed, "detect_pages", choosy)
    result = detect("in", "--out", "out")
    assert summary(result) == (1, "2 pages looked at, 0 already there, 1 failed") and result.stderr == "failed: in/1.png: no memory\n"


def test_wrong_usage_is_refused_in_one_line(detect):
    page("in/a.png"), Path("empty").mkdir(), Path("file").write_text("")
    for words, pattern in ((["--out", "out"], "detect on what"), (["in"], "--out must name the folder"), (["nowhere", "--out", "out"], "no file or folder 'nowhere'"),
                           (["empty", "--out", "out"], "no pictures in the folder empty"), (["in/*.pdf", "--out", "out"], "no pictures match"), (["in", "--out", "file"], "is a file"),
                           (["in", "--out", "in"], "another folder"), *((["in", "--out", "out", "--threshold", bad], "--threshold must be a number from 0 to 1") for bad in ("2", "-1", "nan", "x"))):
        assert_refused(detect(*words), pattern)
    assert names(".") == ["file", "in/a.png"] and not detect.fixed.calls


def test_names_that_clash_are_refused_up_front(detect):
    page("in/a.png"), page("in/a.jpg"), page("more/a.png"), page("third/a.png")
    assert_refused(detect("in", "--out", "out"), r"in/a\.jpg and in/a\.png would both become out/a\.jpg")
    assert_refused(detect("in/a.png", "more", "--out", "out"), r"in/a\.png and more/a\.png would both become")
    assert_refused(detect("in/a.png", "--out", "in"), r"no picture may be overwritten|would be by|not from this command")
    assert not Path("out").exists() and not detect.fixed.calls
    assert detect("in/a.png", "--out", "out").exit_code == 0
    before = files_of("out")
    assert_refused(detect("more", "--out", "out"), r"has a a from .*in/a\.png page 1, more/a\.png would be another")
    assert_refused(detect("more", "--out", "out", "--force"), "every page needs names of its own")
    assert files_of("out") == before
    assert detect("more", "--out", "out/more").exit_code == 0 and detect("*/a.png", "--out", "all").exit_code == 0
    assert [image["name"] for image in content("all")["images"]] == ["in/a", "more/a", "third/a"]


# ---- nothing is lost, and it goes on where it stopped


def test_done_pages_are_kept_and_force_looks_again(detect):
    page("in/a.png"), page("in/b.png")
    assert detect("in/a.png", "--out", "out").exit_code == 0
    assert summary(detect("in", "--out", "out")) == (0, "1 pages looked at, 1 already there, 0 failed")
    assert summary(detect(Path("in").resolve(), "--out", "out")) == (0, "0 pages looked at, 2 already there, 0 failed") and detect.fixed.calls == [1, 1]  # however it is written
    detect.fixed.found = Boxes(TWO.boxes[:1], TWO.scores[:1], TWO.classes[:1])
    assert summary(detect("in/a.png", "--out", "out", "--force")) == (0, "1 pages looked at, 0 already there, 0 failed")
    assert names("out/crops") == ["a-1-signature.png", "b-1-signature.png", "b-2-date.png"]  # the date that is no longer found is gone
    assert [image["name"] for image in content()["images"]] == ["a", "b"] and len(content()["annotations"]) == 3


def test_settings_are_not_mixed(detect):
    page("in/a.png"), page("in/b.png")
    assert detect("in", "--out", "out").exit_code == 0
    before = files_of("out")
    assert_refused(detect("in", "--out", "out", "--threshold", "0.7"), "one setting.*threshold 0.5.*threshold 0.7.*another --out.*--force")
    assert_refused(detect("in", "--out", "out", "--weights", "mine"), "weights_sha256 None.*weights_sha256 mine")
    assert_refused(detect("in/a.png", "--out", "out", "--threshold", "0.7", "--force"), r"name all of them, 1 are not")
    assert files_of("out") == before
    assert summary(detect("in", "--out", "out", "--threshold", "0.7", "--force")) == (0, "2 pages looked at, 0 already there, 0 failed")
    assert content()["info"]["threshold"] == 0.7 and names("out/crops") == ["a-1-signature.png", "b-1-signature.png"]
    assert_refused(detect("in", "--out", "out"), "threshold 0.7")


def test_files_of_others_are_not_overwritten(detect):
    page("in/a.png"), page("in/b.png"), write("out/a.jpg"), write("out/notes.png")
    before = files_of("out")
    assert_refused(detect("in", "--out", "out"), "no file may be overwritten, out/a.jpg is not from this command")
    assert files_of("out") == before
    assert detect("in", "--out", "out", "--no-pictures").exit_code == 0 and before.items() <= files_of("out").items()
    write("new/crops/a-2-date.png")
    before = files_of("new")
    result = detect("in", "--out", "new")
    assert summary(result) == (1, "1 pages looked at, 0 already there, 1 failed") and "new/crops/a-2-date.png is not from this command" in result.stderr
    assert names("new") == ["b.jpg", "crops/a-2-date.png", "crops/b-1-signature.png", "crops/b-2-date.png", "detections.json"] and before.items() <= files_of("new").items()
    assert summary(detect("in", "--out", "new", "--force")) == (0, "2 pages looked at, 0 already there, 0 failed")
    for text in ("{", "[]", '{"images": [], "annotations": [], "categories": []}', '{"info": {"description": "mine"}, "images": [], "annotations": [], "categories": []}'):
        Path("other").mkdir(exist_ok=True)
        Path("other/detections.json").write_text(text)
        assert_refused(detect("in", "--out", "other", "--force"), "--out must be a new folder or one that `signver detect` began")
        assert files_of("other") == {"detections.json": text.encode()}


def test_a_record_does_not_reach_out_of_its_folder(detect):
    page("in/a.png"), page("keep.png")
    assert detect("in", "--out", "out").exit_code == 0
    changed = content()
    changed["annotations"][0]["crop"] = "../keep.png"
    Path("out/detections.json").write_text(json.dumps(changed))
    assert detect("in", "--out", "out", "--force").exit_code == 0 and Path("keep.png").exists()


def test_a_place_that_cannot_be_written_is_reported(detect):
    page("in/a.png"), page("in/b.png"), Path("out/crops/a-1-signature.png").mkdir(parents=True)
    result = detect("in", "--out", "out", "--force")
    assert summary(result) == (1, "1 pages looked at, 0 already there, 1 failed") and result.stderr.startswith("failed: in/a.png: ")
    assert [image["name"] for image in content()["images"]] == ["b"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a folder that may not be written")
def test_an_unwritable_folder(detect):
    page("in/a.png"), Path("out").mkdir()
    Path("out").chmod(0o500)
    assert_refused(detect("in", "--out", "out"), "Permission denied")
    Path("out").chmod(0o700)


@pytest.mark.parametrize("problem, code, words", [(KeyboardInterrupt(), 130, "interrupted"), (OSError(errno.ENOSPC, "No space left on device"), 1, "error: the disk is full")])
@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("after", [0, 1, 4, 6])
def test_cut_short_it_says_how_to_go_on(detect, monkeypatch, problem, code, words, force, after):
    for number in range(4):
        page(f"my scans/{number}.png")
    assert detect("my scans/0.png", "--out", "out").exit_code == 0
    before = files_of("my scans")
    with monkeypatch.context() as patch:
        stop_after(patch, after, problem)
        result = detect("my scans", "--out", "out", "--no-pictures", *force)
    assert result.exit_code == code and result.stdout == "" and "Traceback" not in result.stderr, result.output
    first, second = result.stderr.strip().splitlines()
    assert first.startswith(f"{words}: ") and " of 4 pages are done, what was found is in out. The same command " in first
    assert second.strip() == " ".join(["signver detect --out out", *force, "--no-pictures 'my scans'"])
    assert not list(Path("out").rglob("*.part"))
    crops = {box["crop"] for box in content()["annotations"]}  # it can be read
    assert all(read(path) is not None for path in Path("out").rglob("*.png"))
    done = len([image for image in content()["images"] if all((Path("out") / crop).exists() for crop in crops if crop.startswith(f"crops/{image['name']}-"))])
    assert summary(detect("my scans", "--out", "out", "--no-pictures")) == (0, f"{4 - done} pages looked at, {done} already there, 0 failed")
    assert files_of("my scans") == before and {box["crop"] for box in content()["annotations"]} == {f"crops/{name}" for name in names("out/crops")} and len(names("out/crops")) == 8


def test_new_settings_cut_short_are_not_mixed_with_the_old(detect, monkeypatch):
    for number in range(3):
        page(f"in/{number}.png")
    assert detect("in", "--out", "out").exit_code == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 4, KeyboardInterrupt())
        assert detect("in", "--out", "out", "--threshold", "0.7", "--force").exit_code == 130
    assert detect("in", "--out", "out", "--threshold", "0.7").exit_code == 0
    assert [box["score"] for box in content()["annotations"]] == [0.9] * 3 and len(names("out")) == 7


def test_what_a_killed_run_left_is_no_obstacle(detect):
    page("in/a.png"), page("in/b.png")
    assert detect("in", "--out", "out").exit_code == 0
    killed = content()  # as if the process had died after writing b's files, before putting b into the record
    killed["images"], killed["annotations"] = killed["images"][:1], killed["annotations"][:2]
    Path("out/detections.json").write_text(json.dumps(killed))
    assert_refused(detect("in", "--out", "out"), "out/b.jpg is not from this command")  # that run said that it was finished
    killed["info"]["finished"] = False
    Path("out/detections.json").write_text(json.dumps(killed))
    assert summary(detect("in", "--out", "out")) == (0, "1 pages looked at, 1 already there, 0 failed") and content()["info"]["finished"] is True


SLOW = """
import sys, time
import numpy as np
from signver_kit import batch, cli
class Found:
    boxes, scores, classes = np.array([[0.2, 0.2, 0.4, 0.6]]), np.array([0.9]), ("signature",)
class Slow:
    def detect_pages(self, pages, threshold):
        time.sleep(0.02 * len(pages))
        return [Found()] * len(pages)
batch.PART_PICTURES = 1
batch.load_detector = lambda weights: Slow()
batch.weights_hash = lambda kind, weights: "x"
cli.app(sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c(tmp_path):
    first = page(tmp_path / "in" / "0.png")
    for number in range(1, 300):
        os.link(first, tmp_path / "in" / f"{number}.png")
    process = subprocess.Popen([sys.executable, "-c", SLOW, "detect", "in", "--out", "out"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                               env=subprocess_environment(), preexec_fn=hear_ctrl_c)
    limit = time.monotonic() + 60
    while not (tmp_path / "out" / "1.jpg").exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stdout == "" and "Traceback" not in stderr, stderr
    done = len(content(tmp_path / "out")["images"])
    assert 0 < done < 300 and f"interrupted: {done} of 300 pages are done" in stderr and "signver detect --out out in" in stderr
    assert all(done <= len(list((tmp_path / "out").glob(files))) <= done + 1 for files in ("*.jpg", "crops/*.png")) and not list((tmp_path / "out").rglob("*.part"))


def test_memory_stays_bounded(detect, monkeypatch):
    for number in range(5):
        page(f"in/{number}.png")
    monkeypatch.setattr(batch, "PART_PICTURES", 2)
    assert detect("in", "--out", "out").exit_code == 0 and detect.fixed.calls == [2, 2, 1]


def test_the_record_takes_little_of_the_time(detect, monkeypatch):
    page("in/a.png")
    for number in range(1, 40):
        os.link("in/a.png", f"in/{number}.png")
    saved, usual = [], batch.detections_json
    monkeypatch.setattr(batch, "detections_json", lambda record, finished: (saved.append(len(record.pages)), time.sleep(0.05), usual(record, finished))[2])
    assert detect("in", "--out", "out", "--no-crops", "--no-pictures").exit_code == 0
    assert saved[0] == 0 and saved[-1] == 40 and len(saved) < 30  # a twentieth of the time: rarely, when it is slow


# ---- with a network


@pytest.fixture(scope="module")
def small_network():
    "In place of the detector's network one of four layers, which is made, trained and read in a moment; it answers in the same shape."
    import keras
    from signver_kit import detector
    from signver_kit.anchors import LEVELS

    def build(config=detector.DetectorConfig(), policy="float32"):
        page, numbers = keras.Input((None, None, 1)), len(config.classes) + 4
        looks = [keras.layers.Conv2D(numbers * len(config.shapes), 1)(keras.layers.AveragePooling2D(2**level, padding="same")(page)) for level in LEVELS]
        return keras.Model(page, keras.layers.Concatenate(axis=1)([keras.layers.Reshape((-1, numbers))(look) for look in looks]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "build_detector", build)
        yield build


@pytest.fixture(scope="module")
def untrained(small_network, tmp_path_factory):
    "A folder with a detector that has learnt nothing."
    from signver_kit.detector import Detector, DetectorConfig

    config = DetectorConfig(longest=128, limit=5)
    return Detector(model=small_network(config), config=config).save(tmp_path_factory.mktemp("detector") / "untrained")


def test_the_boxes_are_the_detectors(untrained, tmp_path, monkeypatch):
    from signver_kit.detector import Detector

    monkeypatch.chdir(tmp_path)
    pixels = np.full((90, 70, 3), 230, np.uint8)
    cv2.line(pixels, (10, 60), (60, 70), (30, 30, 130), 2)
    write("in/blue.png", pixels), write("in/tiny.png", pixels[:1, :1]), write("in/grey.jpg", pixels[..., 0])
    result = invoke("detect", "in", "--out", "out", "--weights", untrained, "--threshold", "0")
    assert summary(result) == (0, "3 pages looked at, 0 already there, 0 failed")
    together = [read_image(f"in/{name}", mode="rgb") for name in ("blue.png", "grey.jpg", "tiny.png")]  # as the command has them
    found, pages = Detector().load(untrained).detect_pages(together, threshold=0.0)[0], read_coco("out/detections.json")
    boxes, classes = pages.truth("../in/blue.png")
    assert len(boxes) == 5 and np.allclose(boxes, found.boxes, atol=1e-4) and classes == found.classes
    assert np.array_equal(read(f"out/crops/blue-1-{classes[0]}.png")[..., ::-1], crop_boxes(pixels, found.boxes[:1])[0])
    assert content()["info"]["weights_sha256"] == json.loads((untrained / "card.json").read_text())["sha256"]
    assert summary(invoke("detect", "in", "--out", "none", "--weights", untrained, "--threshold", "1")) == (0, "3 pages looked at, 0 already there, 0 failed") and content("none")["annotations"] == []
    monkeypatch.setattr(batch, "load_detector", lambda weights: pytest.fail("nothing is left to do"))
    assert summary(invoke("detect", "in", "--out", "none", "--weights", untrained, "--threshold", "1")) == (0, "0 pages looked at, 3 already there, 0 failed")


@pytest.mark.parametrize("damage, pattern", [
    (lambda folder: (folder / "model.weights.h5").unlink(), "lacks model.weights.h5"),
    (lambda folder: (folder / "model.weights.h5").write_bytes(b"cut"), "sha256"),
    (lambda folder: (folder / "config.json").write_text("{"), "--weights must name a folder that `signver train detector` wrote"),
    (lambda folder: (folder / "config.json").write_text('{"channels": 8}'), "--weights must name a folder"),
])
def test_weights_that_cannot_be_read(untrained, tmp_path, monkeypatch, damage, pattern):
    monkeypatch.chdir(tmp_path)
    page("in/a.png"), Path("weights").mkdir()
    for path in untrained.glob("*.*"):
        Path("weights", path.name).write_bytes(path.read_bytes())
    damage(tmp_path / "weights")
    assert_refused(invoke("detect", "in", "--out", "out", "--weights", "weights"), pattern)
    assert not Path("out").exists()


def test_train_detector_with_pages_is_taken_up_again(small_network, tmp_path, monkeypatch):
    from signver_kit import detector

    monkeypatch.chdir(tmp_path)
    for name, text in {"a": "0 0.5 0.8 0.3 0.06\n", "b": "0 0.4 0.7 0.2 0.05\n0 201 480 96 33\n"}.items():
        write(f"own/images/{name}.png", np.random.default_rng(ord(name)).integers(200, 250, (140, 100), np.uint8))
        Path("own/labels").mkdir(exist_ok=True)
        Path(f"own/labels/{name}.txt").write_text(text)
    words = ["train", "detector", "--preset", "tiny", "--out", "tiny", "--pages", "own"]
    usual, asked = detector.PageSource.batch, []

    def batch(self, n, *rows):
        asked.append(n)
        if n == 4 and len(asked) == 5:
            raise KeyboardInterrupt
        return usual(self, n, *rows)

    monkeypatch.setattr(detector.PageSource, "batch", batch)
    result = invoke(*words)
    assert result.exit_code == 130 and "Traceback" not in result.stderr and asked == [0, 1, 2, 3, 4]
    result = invoke(*words)
    assert result.exit_code == 0 and asked[5:] == [3, 4, 5], result.output
    assert "1 broken boxes of own are left out: `signver data check own` lists them" in result.stderr
    assert result.stdout.startswith("the detector is in tiny; on 3 synthetic pages that taught it nothing, at threshold 0.5: precision ") and len(result.stdout.splitlines()) == 1
    assert detector.Detector().load("tiny").card["trained_on"] == ["synthetic", "own"]


def test_train_detector_refuses_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("letter").write_text("dear"), Path("bare").mkdir()
    for words, pattern in (([], "--out must name the folder"), (["--out", "letter"], "letter is a file"), (["--preset", "huge", "--out", "x"], "a recipe is one of default, tiny, got 'huge'"),
                           (["--out", "x", "--pages", "nowhere"], "labelled pages"), (["--out", "x", "--pages", "bare"], "labelled pages")):
        assert_refused(invoke("train", "detector", *words), pattern)
    assert files_of(tmp_path) == {"letter": b"dear"}


def test_a_document_of_several_pages_is_read_back_page_by_page(detect, tmp_path):
    frames = [Image.fromarray(np.full((60, 80 + 10 * k), 200 + k, np.uint8)) for k in range(3)]
    Path("in").mkdir()
    frames[0].save("in/scan.tif", save_all=True, append_images=frames[1:])
    detect("in", "--out", "out")
    pages = read_coco("out/detections.json")
    assert len(pages) == 3 and [pages.read(k).shape[1] for k in range(3)] == [80, 90, 100] and [int(pages.read(k)[0, 0, 0]) for k in range(3)] == [200, 201, 202]
