"The `signver` command: what it prints, where, and with which exit code."
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_benchmark import PACKAGE, make_benchmarks
from typer.testing import CliRunner

from signver_kit import __version__
from signver_kit.benchmark import read_record
from signver_kit.cli import app, sweep_assignment
from signver_kit.synthetic import SyntheticSigners


@pytest.fixture
def signver(tmp_path, monkeypatch):
    "A function that runs a command line in an empty folder with the toy benchmarks; returns typer's result."
    monkeypatch.setenv("SIGNVER_BENCHMARKS", str(make_benchmarks(tmp_path / "benchmarks")))
    monkeypatch.delenv("SIGNVER_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], prog_name="signver")


def subprocess_environment():
    path = os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def assert_refused(result, *patterns):
    "Exit code 2, nothing on stdout, one line on stderr, no traceback."
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and result.stderr.startswith("error: ") and len(result.stderr.strip().splitlines()) == 1, result.output
    for pattern in patterns:
        assert re.search(pattern, result.stderr), result.stderr


def write_signers(folder, signers=3, each=3):
    "The generic layout: SIGNER/genuine/*, SIGNER/forged/*, every picture another one."
    random = np.random.default_rng(0)
    for signer in range(signers):
        for kind in ("genuine", "forged"):
            (folder / str(signer) / kind).mkdir(parents=True)
            for index in range(each):
                page = np.full((60, 120), 255, np.uint8)
                points = random.integers(10, 50, (6, 2)) * [2, 1]
                cv2.polylines(page, [points.astype(np.int32)], False, 0, 2)
                assert cv2.imwrite(str(folder / str(signer) / kind / f"{index}.png"), page)
    return folder


def test_version_and_help(signver):
    assert signver("--version").stdout == f"signver_kit {__version__}\n"
    for words in (["--help"], ["bench", "--help"], ["data", "--help"], ["data", "check", "-h"], ["data", "make", "--help"], ["devices", "--help"]):
        result = signver(*words)
        assert result.exit_code == 0 and "Usage: signver" in result.stdout
    assert signver("bench", "--nonsense").exit_code == 2


def test_help_imports_nothing_slow():
    program = ("import sys\nsys.argv = ['signver', '--help']\nfrom signver_kit.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
               "print(sorted({'keras', 'tensorflow', 'torch', 'jax', 'matplotlib', 'pandas', 'papermill', 'sklearn'} & set(sys.modules)), file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=subprocess_environment())
    assert done.returncode == 0 and done.stderr.strip() == "[]" and "bench" in done.stdout, done


def test_bench_lists(signver):
    result = signver("bench", "--list")
    assert result.exit_code == 0 and result.stdout.splitlines() == ["toy", "    A toy", "    presets: leak, small"]
    detail = signver("bench", "toy", "--list").stdout
    assert re.search(r"small +count=1 rate=0.25", detail) and "count = 3              # a = b in a comment" in detail


def test_bench_refuses_in_one_line(signver, tmp_path):
    assert_refused(signver("bench"), "which benchmark.*toy")
    assert_refused(signver("bench", "tooy"), "did you mean 'toy'")
    assert_refused(signver("bench", "tooy", "--list"), "did you mean 'toy'")
    assert_refused(signver("bench", "toy", "--preset", "smal"), "did you mean 'small'.*leak, small")
    assert_refused(signver("bench", "toy", "-p", "count"), "key=value")
    assert_refused(signver("bench", "toy", "-p", "cuont=3"), "did you mean 'count'")
    assert_refused(signver("bench", "toy", "-p", "count=lots"), "must be a number")
    assert_refused(signver("bench", "toy", "--data", "nowhere"), "no data folder at nowhere")
    assert_refused(signver("bench", "toy", "--out", "benchmarks"), "holds the benchmarks themselves")
    assert not (tmp_path / "runs").exists()


def test_debug_lets_the_traceback_through(signver):
    result = signver("bench", "tooy", "--debug")
    assert isinstance(result.exception, ValueError) and result.exit_code == 1


def test_fast_needs_a_fast_mode(signver, tmp_path):
    text = (tmp_path / "benchmarks" / "toy.ipynb").read_text()
    (tmp_path / "benchmarks" / "slow.ipynb").write_text(text.replace("fast = False", "slow = True"))
    assert_refused(signver("bench", "slow", "--fast"), "no fast mode")


def test_a_leaking_run_ends_with_3_and_a_warning(signver):
    result = signver("bench", "toy", "--preset", "leak", "-p", "rate=0.125", "--fast", "--out", "run")
    assert result.exit_code == 3 and "12.50 %" in result.stdout and "record    run/record.json" in result.stdout
    assert "WARNING: do not quote these figures: the background gives it away" in result.stderr
    record = read_record("run")
    assert record.parameters["fast"] is True and record.finished
    # finished all the same: not overwritten by accident
    assert_refused(signver("bench", "toy", "--preset", "leak", "-p", "rate=0.125", "--fast", "--out", "run"), "finished run.*--force")


def test_a_failing_run_ends_with_1_and_says_where_to_look(signver):
    result = signver("bench", "toy", "-p", "mode=raises", "--out", "run")
    assert result.exit_code == 1 and result.stdout == ""
    assert "error: benchmark toy failed at In [3]: FileNotFoundError" in result.stderr and "run/toy.ipynb" in result.stderr
    assert "Traceback" not in result.stderr


def hear_ctrl_c():
    """In the child, before it starts: a session of its own, and SIGINT heard also where the tests run in the background of a shell, which ignores it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_says_how_to_go_on(tmp_path):
    environment = {**subprocess_environment(), "SIGNVER_BENCHMARKS": str(make_benchmarks(tmp_path / "benchmarks"))}
    words = [sys.executable, "-m", "signver_kit.cli", "bench", "toy", "-p", "mode=waits", "-p", "label=a b", "--out", "run"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment, preexec_fn=hear_ctrl_c)
    for line in process.stderr:
        if "mode waits" in line:
            process.send_signal(signal.SIGINT)
            break
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stdout == "" and "Traceback" not in stderr, stderr
    assert "signver bench toy -p mode=waits -p 'label=a b' --out run" in stderr
    assert read_record(tmp_path / "run").error == "interrupted"


# ---- data and devices


def test_data_list_needs_no_data(signver):
    result = signver("data", "list")
    assert result.exit_code == 0 and "cedar" in result.stdout and "utsig" in result.stdout


def test_data_check_of_a_sound_folder(signver, tmp_path):
    write_signers(tmp_path / "mine")
    result = signver("data", "check", "mine")
    assert result.exit_code == 0, result.output
    assert "3 signers" in result.stdout
    values = json.loads(signver("data", "check", "mine", "--json").stdout)
    assert values["sound"] is True and values["counts"]["0"] == {"genuine": 3, "skilled": 3} and values["unreadable"] == []


def test_data_check_finds_what_is_wrong(signver, tmp_path):
    folder = write_signers(tmp_path / "mine")
    (folder / "0" / "genuine" / "1.png").write_bytes(b"not an image")
    assert signver("data", "check", "mine").exit_code == 1
    values = json.loads(signver("data", "check", "mine", "--json").stdout)
    assert values["sound"] is False and [Path(one["path"]).name for one in values["unreadable"]] == ["1.png"]
    folder = write_signers(tmp_path / "twice")
    (folder / "0" / "genuine" / "1.png").write_bytes((folder / "1" / "genuine" / "0.png").read_bytes())
    result = signver("data", "check", "twice", "--json")
    assert result.exit_code == 1 and len(json.loads(result.stdout)["duplicates"]) == 2


def test_data_refuses_in_one_line(signver, tmp_path):
    assert_refused(signver("data", "check", "cedra"), "cedar")
    assert_refused(signver("data", "check", "cedar", "--data", "nowhere"), "nowhere")
    (tmp_path / "data").mkdir()
    assert_refused(signver("data", "check", "cedar"), "CEDAR")
    assert_refused(signver("data", "download", "utsig"), "cannot be downloaded")
    assert isinstance(signver("data", "check", "cedra", "--debug").exception, ValueError)


def test_devices(signver):
    result = signver("devices")
    assert result.exit_code == 0 and re.search("cpu|gpu|hpu", result.stdout, re.IGNORECASE)


CEDAR_SIGNERS = ("2", "5", "9", "14", "17", "21", "25", "30", "36", "41", "48", "53")


def test_data_check_of_cedar(signver, data_dir, tmp_path):
    for path in (data_dir / "cedar").rglob("*_*_*.png"):       # twelve of its signers, as they lie there: test_datasets reads them all
        if path.stem.split("_")[1] in CEDAR_SIGNERS:
            link = tmp_path / "real" / path.relative_to(data_dir)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    result = signver("data", "check", "cedar", "--data", "real", "--json")
    values = json.loads(result.stdout)
    assert result.exit_code == 0 and sorted(values["counts"]) == sorted(CEDAR_SIGNERS) and values["counts"]["17"] == {"genuine": 24, "skilled": 24}
    assert values["leaks"]["background grey"]["auc"] > 0.99  # the trap of this set; see the raw ablation of the benchmark
    assert "* cedar" in signver("data", "list", "--data", data_dir).stdout


# ---- data make


def files_of(folder):
    "Every file below a folder with its bytes; the recipe and the images."
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


SMALL = ["data", "make", "--signers", 3, "--genuine", 2, "--forgeries", 1]


def test_data_make_writes_a_set_that_the_kit_reads(signver, tmp_path):
    result = signver(*SMALL, "--seed", 5, "--out", "made")
    assert result.exit_code == 0 and "9 images, 9 of them new" in result.stdout and "made" in result.stdout, result.output
    assert "9/9" in result.stderr  # the bar; stdout holds the result only
    assert len(result.stdout.splitlines()) == 1
    assert signver("data", "check", "made").exit_code == 0
    expected = SyntheticSigners(3, seed=5, genuine=2, forgeries=1)
    for signer in range(3):
        for kind, name, count in (("genuine", "genuine", 2), ("skilled", "forged", 1)):
            for index in range(count):
                grey = cv2.imread(str(tmp_path / "made" / str(signer) / name / f"{index}.png"), cv2.IMREAD_UNCHANGED)
                assert np.array_equal(grey, expected.image(signer, kind, index))


def test_data_make_again_keeps_what_is_there(signver, tmp_path):
    signver(*SMALL, "--out", "made")
    before = files_of(tmp_path / "made")
    (tmp_path / "made" / "1" / "genuine" / "0.png").unlink()
    result = signver(*SMALL, "--out", "made")
    assert result.exit_code == 0 and "9 images, 1 of them new" in result.stdout
    assert files_of(tmp_path / "made") == before


@pytest.mark.parametrize("option, value", [("--signers", "0"), ("--signers", "many"), ("--signers", "2.5"), ("--signers", "-3"), ("--seed", "-1"), ("--seed", ""),
                                           ("--genuine", "0"), ("--genuine", "1e3"), ("--forgeries", "-1")])
def test_data_make_refuses_impossible_numbers_by_name(signver, tmp_path, option, value):
    assert_refused(signver("data", "make", option, value, "--out", "made"), f"{option} must be a whole number from [01] up, got '{re.escape(value)}'")
    assert not (tmp_path / "made").exists()


def test_data_make_mixes_with_nothing(signver, tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.jpg").write_bytes(b"sun")
    assert_refused(signver(*SMALL, "--out", "holiday"), "holds other files")
    assert files_of(tmp_path / "holiday") == {"beach.jpg": b"sun"}
    assert_refused(signver(*SMALL, "--out", "holiday/beach.jpg"), "must be a folder")
    signver(*SMALL, "--out", "made")
    before = files_of(tmp_path / "made")
    assert_refused(signver("data", "make", "--signers", 4, "--genuine", 2, "--forgeries", 1, "--out", "made"), "another synthetic set")
    assert_refused(signver(*SMALL, "--seed", 1, "--out", "made"), "another synthetic set")
    assert files_of(tmp_path / "made") == before
    assert_refused(signver("data", "make"), "--out must name the folder")


def cut_short(monkeypatch, problem, after):
    "Writing ends with `problem` once `after` images are there, as when the disk is full; the images before it are whole."
    write = SyntheticSigners.write

    def short(self, folder, **options):
        write(self, folder)
        for path in sorted(Path(folder).glob("*/*/*.png"))[after:]:
            path.unlink()
        raise problem

    monkeypatch.setattr(SyntheticSigners, "write", short)


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded")])
def test_data_make_on_a_full_disk(signver, tmp_path, monkeypatch, problem):
    with monkeypatch.context() as patch:
        cut_short(patch, problem, after=4)
        result = signver(*SMALL, "--out", "a b")
    assert result.exit_code == 1 and result.stdout == "" and len(result.stderr.strip().splitlines()) == 1 and "Traceback" not in result.output, result.output
    assert "the disk is full: 4 of 9 images are in a b, each of them whole" in result.stderr and "goes on where it stopped" in result.stderr
    assert "signver data make --signers 3 --seed 0 --genuine 2 --forgeries 1 --out 'a b'" in result.stderr
    assert "9 images, 5 of them new" in signver(*SMALL, "--out", "a b").stdout
    signver(*SMALL, "--out", "whole")
    assert files_of(tmp_path / "a b") == files_of(tmp_path / "whole")


def test_data_make_leaves_no_half_file_when_writing_fails(signver, tmp_path, monkeypatch):
    """The disk fills up in the middle of a file: half of its bytes are written, then the system refuses."""
    write_bytes, written = Path.write_bytes, []

    def full(self, data):
        written.append(self)
        if len(written) > 5:
            write_bytes(self, data[:len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        result = signver(*SMALL, "--out", "made")
    assert result.exit_code == 1 and "the disk is full" in result.stderr
    pictures = [path for path in (tmp_path / "made").rglob("*") if path.is_file() and path.suffix != ".json"]
    assert 0 < len(pictures) < 9 and all(path.suffix == ".png" and cv2.imread(str(path)) is not None for path in pictures)
    signver(*SMALL, "--out", "made"), signver(*SMALL, "--out", "whole")
    assert files_of(tmp_path / "made") == files_of(tmp_path / "whole")


def test_another_error_of_the_system_is_not_called_a_full_disk(signver, monkeypatch):
    cut_short(monkeypatch, PermissionError(errno.EACCES, "Permission denied", "made/0"), after=1)
    result = signver(*SMALL, "--out", "made")
    assert result.exit_code == 2 and "error: [Errno 13] Permission denied" in result.stderr
    assert "disk is full" not in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_stops_data_make_and_the_same_command_goes_on(signver, tmp_path):
    words = [sys.executable, "-m", "signver_kit.cli", "data", "make", "--signers", "2000", "--genuine", "2", "--forgeries", "1", "--out", "made set"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=subprocess_environment(), preexec_fn=hear_ctrl_c)
    made, limit = tmp_path / "made set", time.monotonic() + 120
    while not (made / "1").exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130 and stdout == "" and "Traceback" not in stderr, stderr
    pictures = list(made.glob("*/*/*.png"))
    assert 0 < len(pictures) < 6000 and all(cv2.imread(str(path)) is not None for path in pictures[:50])
    assert f"interrupted: {len(pictures):,} of 6,000 images are in made set" in stderr
    assert "signver data make --signers 2000 --seed 0 --genuine 2 --forgeries 1 --out 'made set'" in stderr
    assert sorted(path.suffix for path in made.rglob("*") if path.is_file()) == [".json"] + [".png"] * len(pictures)


def test_train_extractor(signver, tmp_path, monkeypatch):
    from signver_kit import extractor as module
    from signver_kit.extractor import MetricExtractor
    from signver_kit.matcher import Matcher

    # the tiny recipe in smaller still: what it makes is test_extractor's business, what becomes of it is checked here
    tiny = module.RECIPES["tiny"]
    smaller = replace(tiny, signers=6, genuine=4, forgeries=2, steering=3, config=replace(tiny.config, backbone="signet", width=2, input_size=(72, 96)),
                      training=replace(tiny.training, epochs=1, steps_per_epoch=2, signers_per_batch=3))
    monkeypatch.setitem(module.RECIPES, "tiny", smaller)
    done = signver("train", "extractor", "--preset", "tiny", "--out", tmp_path / "mine")
    assert done.exit_code == 0 and "skilled forgeries: EER" in done.stdout, done.output
    extractor, matcher = MetricExtractor().load(tmp_path / "mine"), Matcher().load(tmp_path / "mine" / "matcher.json")
    assert matcher.card["extractor_sha256"] == extractor.card["sha256"] and matcher.model_for(1, "fused").threshold > 0
    assert_refused(signver("train", "extractor", "--preset", "huge", "--out", tmp_path / "x"), "a recipe is one of default, tiny, got 'huge'")
    assert_refused(signver("train", "extractor"), "--out must name the folder")


def test_records_are_compared_in_one_file(signver, tmp_path):
    assert signver("bench", "toy", "--out", "runs/one").exit_code == 0
    (tmp_path / "broken.json").write_text("{")
    done = signver("bench", "compare", "runs", str(tmp_path / "broken.json"), "--out", "all.html", "-p", "title=Two machines")
    assert done.exit_code == 0 and "2 records are compared in all.html" in done.stdout
    page = Path("all.html").read_text()
    assert "Two machines" in page and "broken.json" in page
    assert_refused(signver("bench", "compare", "nowhere", "--out", "all.html"), "no record")
    assert_refused(signver("bench", "compare", "runs", "-p", "tilte=x"), "did you mean 'title'")
    assert_refused(signver("bench", "toy", "runs"), "only compare takes records")


def test_a_device_that_is_absent_is_refused_in_one_line(signver, tmp_path):
    assert_refused(signver("train", "cleaner", "--preset", "tiny", "--device", "hpu", "--out", tmp_path / "mine"), "hpu was asked for, but no Gaudi card is visible")
    assert_refused(signver("train", "cleaner", "--preset", "tiny", "--device", "abacus", "--out", tmp_path / "mine"), "a device is 'cpu', 'gpu' or 'hpu', got 'abacus'")
    assert_refused(signver("train", "detector", "--preset", "tiny", "--device", "cpu", "--distribute", "--out", tmp_path / "mine"), "got one cpu: leave --distribute out")
    assert not (tmp_path / "mine").exists()


def test_a_sweep_is_a_grid():
    assert sweep_assignment([]) == []
    assert sweep_assignment(["batch=16,32", "precision=float32,mixed_bfloat16"]) == ['grid={"batch": [16, 32], "precision": ["float32", "mixed_bfloat16"]}']
    for wrong in (["batch"], ["batch="], ["=16"], ["batch=1", "batch=2"]):
        with pytest.raises(ValueError, match="--sweep takes a parameter and its values"):
            sweep_assignment(wrong)


def test_a_benchmark_without_a_grid_takes_no_sweep(signver):
    assert_refused(signver("bench", "toy", "--sweep", "batch=16,32"), "grid")


def test_export_refuses_in_one_line(signver, tmp_path):
    assert_refused(signver("export", "cleaner"), "--out must name the folder")
    assert_refused(signver("export", "matcher", "--out", tmp_path), "a model must be one of extractor, cleaner, detector")
    assert_refused(signver("export", "cleaner", "--format", "coreml", "--out", tmp_path), "a format must be one of")
    assert_refused(signver("export", "cleaner", "--size", "160", "--out", tmp_path), r"--size \(its width\) must be a whole number")
    assert_refused(signver("export", "cleaner", "--weights", tmp_path / "none", "--out", tmp_path), "none")


def test_export_writes_a_checked_file(signver, tmp_path):
    done = signver("export", "cleaner", "--format", "saved_model", "--out", tmp_path / "made")
    assert done.exit_code == 0 and "largest difference" in done.stdout and (tmp_path / "made" / "cleaner_saved_model").is_dir()
    assert_refused(signver("export", "cleaner", "--format", "saved_model", "--out", tmp_path / "made"), "is there already")
