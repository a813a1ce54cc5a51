"`signver train cleaner` and `signver clean`: which files are read, which are written, and that nothing a user has is lost."
import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_cli import assert_refused, files_of, hear_ctrl_c, subprocess_environment
from typer.testing import CliRunner

from signver_kit import batch, cli
from signver_kit.cleaner import Cleaner
from signver_kit.documents import DirtyPairs
from signver_kit.images import UnreadableImage


def invoke(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="signver")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "The result of `signver train cleaner --preset tiny`, and the folder it wrote."
    folder = tmp_path_factory.mktemp("trained") / "tiny"
    return invoke("train", "cleaner", "--preset", "tiny", "--out", folder), folder


@pytest.fixture
def clean(trained, tmp_path, monkeypatch):
    "A function that runs `signver clean` with the tiny weights in an empty folder; returns typer's result."
    monkeypatch.chdir(tmp_path)
    return lambda *words: invoke("clean", *words, "--weights", trained[1])


@pytest.fixture
def idle(tmp_path, monkeypatch):
    "The same, with a cleaner that returns what it gets: for tests of which files are touched. Its list holds the number of pictures in each call."
    calls = []

    class Idle:
        def clean(self, pictures):
            calls.append(len(pictures))
            return [pixels / np.float32(255) for pixels in pictures]

    monkeypatch.setattr(batch, "load_cleaner", lambda weights: Idle())
    monkeypatch.chdir(tmp_path)
    run = lambda *words: invoke("clean", *words)  # noqa: E731
    run.calls = calls
    return run


def dirty(number):
    return DirtyPairs(8, seed=3, size=(50, 90))[number].dirty


def write(path, pixels=None, **options):
    "A picture at this path, its folders made; noise of its own when no pixels are given. Returns the path."
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = np.random.default_rng(sum(str(path).encode())).integers(0, 256, (9, 14), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


# ---- train cleaner


def test_train_cleaner_writes_a_folder_and_says_what_was_reached(trained):
    result, folder = trained
    assert result.exit_code == 0, result.output
    cleaner = Cleaner().load(folder)
    reached = cleaner.card["validation"]
    assert len(result.stdout.splitlines()) == 1 and str(folder) in result.stdout
    assert f"PSNR {reached['val_psnr']:.1f} dB, stroke F {reached['val_stroke_f']:.3f}" in result.stdout
    assert np.isfinite(cleaner.clean(dirty(0))).all()


def test_train_cleaner_refuses_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letter").write_text("dear")
    assert_refused(invoke("train", "cleaner"), "--out must name the folder to write, got none")
    assert_refused(invoke("train", "cleaner", "--preset", "tiny", "--out", "letter"), "--out must be a folder, letter is a file")
    assert_refused(invoke("train", "cleaner", "--preset", "huge", "--out", "x"), "a recipe is one of default, tiny, got 'huge'")
    assert files_of(tmp_path) == {"letter": b"dear"}


# ---- clean: what comes out


def test_clean_writes_what_the_cleaner_returns(clean, trained, tmp_path):
    for number, name in enumerate(("a.png", "b.bmp", "c.tif")):
        write(tmp_path / "scans" / name, dirty(number))
    result = clean("scans", "--out", "done")
    assert result.exit_code == 0 and result.stdout == "3 cleaned, 0 already there, 0 failed: done\n", result.output
    assert names("done") == ["a.png", "b.png", "c.png"]
    cleaner = Cleaner().load(trained[1])
    for number, name in enumerate("abc"):
        wanted, found = 255 * cleaner.clean(dirty(number)), read(f"done/{name}.png")
        assert found.dtype == np.uint8 and found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 1.5  # rounding, here and in batches of another size
        assert np.abs(found.astype(int) - dirty(number)).max() > 20  # it is not the picture that came in


def test_clean_keeps_colour_and_size(clean, tmp_path):
    grey = dirty(1)
    blue = np.stack([grey, grey, 255 - (255 - grey) // 4], -1)
    write(tmp_path / "in" / "blue.png", blue)
    write(tmp_path / "in" / "grey-in-rgb.png", np.stack([grey] * 3, -1))
    write(tmp_path / "in" / "large.png", np.kron(grey, np.ones((10, 10), np.uint8)))
    write(tmp_path / "in" / "fax.png", grey > 128)
    assert clean("in", "--out", "out").exit_code == 0
    found = {name: read(f"out/{name}") for name in names("out")}
    assert {name: pixels.shape for name, pixels in found.items()} == {
        "blue.png": (50, 90, 3), "grey-in-rgb.png": (50, 90), "large.png": (500, 900), "fax.png": (50, 90)}
    darkest = found["blue.png"].min(-1)
    ink = darkest <= np.quantile(darkest, 0.02)                                            # a cleaner of twenty steps leaves little
    assert darkest[ink].max() < 250 and (found["blue.png"][ink][:, 0] > found["blue.png"][ink][:, 2]).all()  # OpenCV's order: blue, green, red


def test_a_bad_file_is_reported_and_the_rest_is_done(clean, tmp_path):
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png", dirty(number))
    (tmp_path / "in" / "1.png").write_bytes((tmp_path / "in" / "1.png").read_bytes()[:200])
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    result = clean("in", "--out", "out")
    assert result.exit_code == 1 and result.stdout == "2 cleaned, 0 already there, 2 failed: out\n", result.output
    lines = result.stderr.strip().splitlines()
    assert [re.match(r"failed: (\S+): an image ", line)[1] for line in lines] == ["in/1.png", "in/empty.jpg"] and "Traceback" not in result.stderr
    assert names("out") == ["0.png", "2.png"]
    again = clean("in", "--out", "out")
    assert again.exit_code == 1 and again.stdout == "0 cleaned, 2 already there, 2 failed: out\n"
    assert isinstance(clean("in", "--out", "out", "--debug").exception, UnreadableImage)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (3, 2), (2, 2, 3)])
def test_the_smallest_pictures(clean, tmp_path, shape):
    write(tmp_path / "small.png", np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    result = clean("small.png", "--out", "out")
    assert result.exit_code == 0, result.output
    assert read("out/small.png").shape[:2] == shape[:2]


# ---- which pictures


def test_folders(idle, tmp_path):
    for name in ("1.png", "2.JPG", "week/1.png", "week/day/3.tiff", ".hidden.png", ".cache/4.png"):
        write(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "folder.png").mkdir()
    assert idle("in", "--out", "flat").exit_code == 0 and names("flat") == ["1.png", "2.png"]
    assert idle("in", "-r", "--out", "deep").exit_code == 0
    assert names("deep") == ["1.png", "2.png", "week/1.png", "week/day/3.png"]
    assert np.array_equal(read("deep/week/1.png"), read("in/week/1.png")) and not np.array_equal(read("deep/week/1.png"), read("deep/1.png"))


def test_an_output_folder_among_the_pictures_is_no_input(idle, tmp_path):
    write("in/1.png"), write("in/week/1.png")
    for given in (["in", "--recursive"], ["in/**/*.png"]):
        first, again = (idle(*given, "--out", "in/week/clean") for _ in range(2))
        assert first.exit_code == again.exit_code == 0 and " 0 cleaned, 2 already there" in " " + again.stdout, again.output
        assert names("in/week/clean") == ["1.png", "week/1.png"]


def test_patterns(idle, tmp_path):
    for name in ("mon/1.png", "mon/10.png", "tue/1.png", "tue/note.txt", "tue/a[1].png"):
        write(tmp_path / "in" / name) if not name.endswith("txt") else (tmp_path / "in" / name).write_text("")
    assert idle("in/*/?.png", "--out", "a").exit_code == 0 and names("a") == ["mon/1.png", "tue/1.png"]
    assert idle("in/mon/*", "--out", "b").exit_code == 0 and names("b") == ["1.png", "10.png"]
    assert idle("in/tue/*", "--out", "c").exit_code == 0 and names("c") == ["1.png", "a[1].png"]
    assert idle("in/tue/a[1].png", "--out", "d").exit_code == 0 and names("d") == ["a[1].png"]  # a file of that very name
    assert idle("in/**/1.png", "in/mon", "--out", "e").exit_code == 0 and names("e") == ["1.png", "10.png", "mon/1.png", "tue/1.png"]
    assert idle(str(tmp_path / "in" / "*" / "10.png"), "--out", "f").exit_code == 0 and names("f") == ["mon/10.png"]
    assert_refused(idle("in/*/../../x.png", "--out", "g"), "must not go up")


def test_a_pattern_of_cleaned_pictures_below_the_output_folder(idle):
    write("out/round1/1.png")
    assert idle("out/round1/*.png", "--out", "out").exit_code == 0 and names("out") == ["1.png", "round1/1.png"]


def test_names_with_dots_other_endings_and_dashes(idle):
    write("scan.2024.05.jpg"), write("-dash.png")
    Path("data.001").write_bytes(write("x.png").read_bytes())
    Path("data.002").write_bytes(write("y.png").read_bytes())
    result = idle("scan.2024.05.jpg", "data.001", "data.002", "--out", "out", "--", "-dash.png")
    assert result.exit_code == 0 and names("out") == ["-dash.png", "data.001.png", "data.002.png", "scan.2024.05.png"], result.output


def test_the_same_file_named_twice_is_one_picture(idle):
    write("in/1.png")
    assert idle("in/1.png", "in", "in/*.png", Path("in/1.png").resolve(), "--out", "out").stdout.startswith("1 cleaned, 0 already there")


def test_every_page_becomes_a_picture(idle):
    pages = [np.full((9, 7 + k), 40 * k, np.uint8) for k in range(3)]
    first, *rest = map(Image.fromarray, pages)
    Path("in").mkdir()
    first.save("in/fax.tif", save_all=True, append_images=rest)
    first.convert("RGB").save("in/letter.pdf", save_all=True, append_images=[page.convert("RGB") for page in rest])
    assert idle("in", "--out", "out").stdout == "6 cleaned, 0 already there, 0 failed: out\n"
    assert names("out") == [f"{name}{page}.png" for name in ("fax", "letter") for page in ("-page2", "-page3", "")]
    for page, name in zip(pages, ("fax", "fax-page2", "fax-page3")):
        assert np.array_equal(read(f"out/{name}.png"), page)
    Path("out/fax-page2.png").unlink()
    assert idle("in", "--out", "out").stdout == "1 cleaned, 5 already there, 0 failed: out\n"
    write("in/fax-page3.png")
    assert_refused(idle("in", "--out", "other"), r"in/fax-page3.png and in/fax.tif page 3 would both become other/fax-page3.png")


# ---- nothing is lost


def test_what_is_there_is_kept_and_force_overwrites_it(idle):
    write("in/1.png"), write("in/2.png"), write("out/1.png"), write("out/other.png")
    before = files_of("out")
    result = idle("in", "--out", "out")
    assert result.exit_code == 0 and result.stdout == "1 cleaned, 1 already there, 0 failed: out\n"
    assert {name: data for name, data in files_of("out").items() if name != "2.png"} == before
    assert idle("in", "--out", "out").stdout == "0 cleaned, 2 already there, 0 failed: out\n" and idle.calls == [1]
    assert idle("in", "--out", "out", "--force").stdout == "2 cleaned, 0 already there, 0 failed: out\n"
    assert np.array_equal(read("out/1.png"), read("in/1.png")) and files_of("out")["other.png"] == before["other.png"]


def test_nothing_left_to_do_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("in/1.png"), write("out/1.png")
    program = ("import sys\nfrom signver_kit.cli import app\ntry:\n    app(['clean', 'in', '--out', 'out'])\n"
               "except SystemExit as end:\n    print(end.code, sorted({'keras', 'tensorflow'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=subprocess_environment())
    assert done.stdout == "0 cleaned, 1 already there, 0 failed: out\n0 []\n", done.stderr


def test_two_pictures_for_one_file_are_refused_up_front(idle):
    write("in/a.png"), write("in/b.png"), write("in/b.jpg"), write("more/a.png")
    assert_refused(idle("in", "--out", "out"), r"in/b\.jpg and in/b\.png would both become out/b\.png")
    assert_refused(idle("in/a.png", "more", "--out", "out"), r"in/a\.png and more/a\.png would both become out/a\.png")
    assert not Path("out").exists() and not idle.calls


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("words", [["in/1.png", "--out", "in"], ["in", "--out", "in"], ["in/*.png", "--out", "in"], ["in", "--out", "link"], ["link/1.png", "--out", "in"],
                                   ["in", "--out", "in/../in"], ["more/2.png", "in/2.png", "--out", "in"], ["in/2.png", "in/1.png", "--out", "hard"], ["in/2.png", "--out", "soft"]])
def test_no_picture_is_overwritten(idle, words, force):
    write("in/1.png"), write("in/2.png"), write("more/2.png")
    Path("hard").mkdir(), Path("soft").mkdir()
    Path("link").symlink_to("in")
    os.link("in/1.png", "hard/1.png")
    Path("soft/2.png").symlink_to(Path("in/2.png").resolve())
    before = files_of(".")
    assert_refused(idle(*words, *force), "no picture may be overwritten|must be another folder|would both become")
    assert files_of(".") == before and not idle.calls


def test_wrong_usage_is_refused_in_one_line(idle):
    write("in/1.png"), Path("empty").mkdir(), write("deep/er/1.png")
    os.mkfifo("pipe")
    for words, pattern in ((["--out", "out"], "clean what"), (["in"], "--out must name the folder"), (["in", "nowhere.png", "--out", "out"], "no file or folder 'nowhere.png'"),
                           (["in", "empty", "--out", "out"], "no pictures in the folder empty"), (["deep", "--out", "out"], "--recursive also looks"),
                           (["in/*.jpg", "--out", "out"], "no pictures match 'in/.*jpg'"), (["in", "--out", "in/1.png"], "--out must be a folder, in/1.png is a file"),
                           (["pipe", "--out", "out"], "neither file nor folder"), (["in", "--out", "in/1.png/below"], "Not a directory")):
        assert_refused(idle(*words), pattern)
    assert not Path("out").exists() and not idle.calls


@pytest.mark.parametrize("damage, pattern", [
    (lambda folder: None, "lacks config.json, model.weights.h5, card.json"),
    (lambda folder: (folder / "model.weights.h5").write_bytes(b"cut"), "sha256"),
    (lambda folder: (folder / "config.json").write_text("{"), "--weights must name a folder"),
    (lambda folder: (folder / "config.json").write_text('{"backbone": "resnet18"}'), "--weights must name a folder.*CleanerConfig has no field backbone"),
    (lambda folder: (folder / "config.json").write_text('{"channels": [8, 8]}'), "--weights must name a folder"),
    (lambda folder: (folder / "card.json").write_text("[]"), "--weights must name a folder"),
])
def test_weights_that_cannot_be_read(trained, tmp_path, monkeypatch, damage, pattern):
    monkeypatch.chdir(tmp_path)
    write("in/1.png"), Path("weights").mkdir()
    if "lacks" not in pattern:
        for path in trained[1].glob("*.*"):
            Path("weights", path.name).write_bytes(path.read_bytes())
    damage(tmp_path / "weights")
    assert_refused(invoke("clean", "in", "--out", "out", "--weights", "weights"), pattern)
    assert not Path("out").exists()


def test_memory_stays_bounded(idle, monkeypatch):
    for number in range(9):
        write(f"in/{number}.png", np.full((10, 10 + 90 * (number == 4)), number, np.uint8))
    monkeypatch.setattr(batch, "PART_PICTURES", 3)
    monkeypatch.setattr(batch, "PART_PIXELS", 500)
    assert idle("in", "--out", "out").exit_code == 0
    assert idle.calls == [3, 1, 1, 3, 1]  # the fifth picture is larger than a part may be, and goes alone
    assert all((read(f"out/{number}.png") == number).all() for number in range(9))


def test_a_picture_that_the_network_chokes_on_is_named(idle, monkeypatch):
    for number in range(4):
        write(f"in/{number}.png", np.full((5, 5), number, np.uint8))

    class Choosy:
        def clean(self, pictures):
            if any((pixels == 2).all() for pixels in pictures):
                raise RuntimeError("the graph\nhas an edge")
            return [pixels / np.float32(255) for pixels in pictures]

    monkeypatch.setattr(batch, "load_cleaner", lambda weights: Choosy())
    result = idle("in", "--out", "out")
    assert result.exit_code == 1 and result.stdout.startswith("3 cleaned, 0 already there, 1 failed") and names("out") == ["0.png", "1.png", "3.png"]
    assert result.stderr == "failed: in/2.png: the graph has an edge\n"


def test_an_output_that_cannot_be_written_is_reported(idle):
    write("in/1.png"), write("in/2.png"), Path("out/1.png").mkdir(parents=True)
    result = idle("in", "--out", "out")
    assert result.exit_code == 1 and result.stdout.startswith("1 cleaned, 0 already there, 1 failed") and result.stderr.startswith("failed: in/1.png: ")
    assert names("out") == ["2.png"]


def stop_after(monkeypatch, count, problem):
    "`problem` comes in the middle of writing, once `count` files are there; half of the bytes are written then."
    write_bytes, written = Path.write_bytes, []

    def short(self, data):
        written.append(self)
        if len(written) <= count:
            return write_bytes(self, data)
        write_bytes(self, data[:len(data) // 2])
        raise problem

    monkeypatch.setattr(Path, "write_bytes", short)


@pytest.mark.parametrize("problem, code, words", [(KeyboardInterrupt(), 130, "interrupted"), (OSError(errno.ENOSPC, "No space left on device"), 1, "error: the disk is full")])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_cut_short_it_says_how_to_go_on(idle, monkeypatch, problem, code, words, force):
    for number in range(5):
        write(f"my scans/{number}.png")
    write("out/0.png", read("my scans/0.png"))
    before = files_of("my scans")
    with monkeypatch.context() as patch:
        stop_after(patch, 2, problem)
        result = idle("my scans", "--out", "out", "-r", *force)
    there = 2 if force else 3
    assert result.exit_code == code and result.stdout == "" and "Traceback" not in result.stderr, result.output
    first, second = result.stderr.strip().splitlines()
    assert first.startswith(f"{words}: {there} of 5 cleaned pictures are in out, each of them whole. The same command")
    assert second.strip() == " ".join(["signver clean --out out --recursive", *force, "'my scans'"])
    assert names("out") == [f"{number}.png" for number in range(there if not force else 2)]
    assert idle("my scans", "--out", "out").stdout == f"{5 - there} cleaned, {there} already there, 0 failed: out\n"
    assert files_of("my scans") == before and all(np.array_equal(read(f"out/{name}"), read(f"my scans/{name}")) for name in names("my scans"))


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c(trained, tmp_path):
    picture = write(tmp_path / "in" / "0.png", np.kron(dirty(0), np.ones((12, 12), np.uint8)))
    for number in range(1, 400):
        os.link(picture, tmp_path / "in" / f"{number}.png")
    words = [sys.executable, "-m", "signver_kit.cli", "clean", "in", "--out", "out", "--weights", str(trained[1])]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=subprocess_environment(), preexec_fn=hear_ctrl_c)
    limit = time.monotonic() + 120
    while not (tmp_path / "out" / "0.png").exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130 and stdout == "" and "Traceback" not in stderr, stderr
    written = names(tmp_path / "out")
    assert 0 < len(written) < 400 and all(name.endswith(".png") and read(tmp_path / "out" / name) is not None for name in written)
    assert f"interrupted: {len(written)} of 400 cleaned pictures are in out" in stderr and "signver clean --out out --weights" in stderr
