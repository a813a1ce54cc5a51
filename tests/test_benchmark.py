"Records, presets, parameters, and runs of tiny notebooks that end well, fail, are stopped, or lose their kernel."
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signver_kit import benchmark
from signver_kit.benchmark import (
    BenchmarkFailed, LiveLog, Record, benchmarks_directory, compare_records, format_table, list_benchmarks, list_presets, load_preset,
    merge_parameters, notebook_parameters, parse_assignment, read_record, run_benchmark, run_folder, shorten_paths, stopping_signals, thin_curve,
)

PACKAGE = Path(benchmark.__file__).resolve().parents[1]

PARAMETERS = """mode = "good"          # good, raises, dies, waits, silent, leaks or invalid
count = 3              # a = b in a comment
rate: float = 0.5
fast = False
layers = [
    1,  # first
    2,
]
options = {}
label = "a" "b"
cores = max(1, 2)
out_dir = "."
data_dir = None
started = None"""

WORK = """import os, sys, time
from pathlib import Path
from signver_kit.benchmark import Record
print("mode", mode, flush=True)
checkpoint = Path(out_dir) / "work" / "step"
resumed = checkpoint.exists()
checkpoint.parent.mkdir(exist_ok=True)
checkpoint.write_text("1")
if mode in ("raises", "silent"):
    Record("toy", started=started, environment={"device": "toy"}, data={"name": "toys"}, error="interrupted").write(out_dir)
if mode == "waits" and not resumed:
    time.sleep(600)
if mode == "raises":
    raise FileNotFoundError(f"no set in {Path.home() / 'private'}")
if mode == "dies":
    time.sleep(2)  # a kernel that runs out of memory does not die in the moment in which it prints
    os._exit(9)"""

REPORT = """figures = Path(out_dir) / "figures"
figures.mkdir(exist_ok=True)
(figures / "roc.png").write_bytes(b"not really")
print("reading", Path.home() / "private" / "scan.png", "in", os.getcwd())
error = "the background gives it away" if mode == "leaks" else None
record = Record("toy", started=started, metrics={"wi1_skilled_eer": rate, "count": count, "resumed": resumed},
                data={"data_dir": data_dir}, environment={"executable": sys.executable}, error=error)
if mode == "invalid":
    (Path(out_dir) / "record.json").write_text("{")
elif mode != "silent":
    record.write(out_dir)"""


def make_benchmarks(folder):
    "A folder of benchmarks: one notebook, `toy`, with two presets."
    cells = [nbformat.v4.new_markdown_cell("# toy\n\n> A toy"), *(nbformat.v4.new_code_cell(text) for text in (PARAMETERS, WORK, REPORT))]
    cells[1].metadata["tags"] = ["parameters"]
    (folder / "presets" / "toy").mkdir(parents=True)
    # the name that the notebook gives to its kernel must not matter
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "somebody-else", "display_name": "x"}}), folder / "toy.ipynb")
    (folder / "presets" / "toy" / "small.json").write_text('{"count": 1, "rate": 0.25}')
    (folder / "presets" / "toy" / "leak.json").write_text('{"mode": "leaks"}')
    return folder


@pytest.fixture
def toys(tmp_path):
    return make_benchmarks(tmp_path / "benchmarks")


# ---- where benchmarks live, presets, parameters


def test_directory_order(toys, tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNVER_BENCHMARKS", str(tmp_path))
    assert benchmarks_directory() == tmp_path
    assert benchmarks_directory(toys) == toys
    with pytest.raises(FileNotFoundError, match="SIGNVER_BENCHMARKS"):
        monkeypatch.setenv("SIGNVER_BENCHMARKS", str(tmp_path / "none"))
        benchmarks_directory()
    monkeypatch.delenv("SIGNVER_BENCHMARKS")
    assert benchmarks_directory() in (PACKAGE / "benchmarks", PACKAGE / "signver_kit" / "_benchmarks")


def test_names_are_listed_and_near_ones_offered(toys):
    assert list_benchmarks(toys) == ["toy"] and list_presets("toy", toys) == ["leak", "small"]
    with pytest.raises(ValueError, match="did you mean 'toy'"):
        run_benchmark("tooy", directory=toys)
    with pytest.raises(ValueError, match="'smal'.*did you mean 'small'.*leak, small"):
        load_preset("toy", "smal", toys)
    with pytest.raises(ValueError, match="known: toy"):
        run_benchmark("../toy", directory=toys)


@pytest.mark.parametrize("text", ["[1, 2]", "{", ""])
def test_a_bad_preset_file_is_named(toys, text):
    (toys / "presets" / "toy" / "bad.json").write_text(text)
    with pytest.raises(ValueError, match="bad.json"):
        load_preset("toy", "bad", toys)


def test_parameters_cell_is_read_whole(toys):
    assert notebook_parameters(toys / "toy.ipynb") == {
        "mode": "good", "count": 3, "rate": 0.5, "fast": False, "layers": [1, 2], "options": {}, "label": "ab", "cores": "max(1, 2)",
        "out_dir": ".", "data_dir": None, "started": None,
    }


def test_a_file_that_is_no_notebook_is_named(toys):
    (toys / "magic.ipynb").write_text((toys / "toy.ipynb").read_text().replace("count = 3 ", "%time x = 3 "))
    with pytest.raises(ValueError, match="magic.ipynb must be plain assignments: line 2"):
        run_benchmark("magic", directory=toys)
    (toys / "half.ipynb").write_text('{"cells": [')
    with pytest.raises(ValueError, match="half.ipynb is not a Jupyter notebook"):
        run_benchmark("half", directory=toys)


@pytest.mark.parametrize("text, pair", [
    ("a=3", ("a", 3)), ("a=0.1", ("a", 0.1)), ("a=true", ("a", True)), ("a=null", ("a", None)), ("a=[1,2]", ("a", [1, 2])),
    ("a=x y", ("a", "x y")), ("a=b=c", ("a", "b=c")), ("a=", ("a", "")), ('a="3"', ("a", "3")), ("a=True", ("a", "True")),
])
def test_assignments(text, pair):
    assert parse_assignment(text) == pair


@pytest.mark.parametrize("text", ["a", "=3", "", "a b=3", "1a=3"])
def test_assignments_refused(text):
    with pytest.raises(ValueError, match="key=value"):
        parse_assignment(text)


def test_merge_order_and_refusals():
    defaults = {"epochs": 3, "fast": False, "loss": "triplet", "sizes": [1], "weights": None, "out_dir": "."}
    merged = merge_parameters(defaults, {"epochs": 5, "loss": "supcon"}, {"epochs": 7})
    assert merged == {**defaults, "epochs": 7, "loss": "supcon"} and defaults["epochs"] == 3
    assert merge_parameters(defaults, None, {"epochs": 0.5, "weights": "x", "sizes": None})["weights"] == "x"
    for given_, pattern in [({"epoch": 1}, "did you mean 'epochs'"), ({"epochs": "many"}, "number"), ({"epochs": True}, "number"),
                            ({"fast": 1}, "true or false"), ({"fast": "True"}, "true or false"), ({"sizes": 3}, "list"), ({"out_dir": "x"}, "--out")]:
        with pytest.raises(ValueError, match=pattern):
            merge_parameters(defaults, None, given_)
        with pytest.raises(ValueError, match=pattern):
            merge_parameters(defaults, given_, None)


# ---- the record


def test_record_schema_is_the_designs(tmp_path):
    path = Record("verification", seconds=1.0).write(tmp_path)
    values = json.loads(path.read_text())
    assert list(values) == ["schema", "benchmark", "started", "seconds", "environment", "data", "parameters", "metrics", "probes", "curves", "error"]
    assert values["schema"] == 1 and values["error"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", values["started"])
    assert [one.name for one in tmp_path.iterdir()] == ["record.json"]


def test_numpy_and_friends_become_json(tmp_path):
    Point = namedtuple("Point", "far frr")
    record = Record("x", metrics={
        "a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.arange(3), "e": Point(0.0, np.float64(1)), "f": {"z", "y"},
        "g": Path("a") / "b", "h": (1, 2), "i": pd.Series([1, 2]), 3: "number as name", "j": object,
    })
    back = json.loads(record.write(tmp_path).read_text())
    assert back["metrics"] == {"a": 0.5, "b": 3, "c": True, "d": [0, 1, 2], "e": {"far": 0.0, "frr": 1.0}, "f": ["y", "z"], "g": str(Path("a/b")),
                               "h": [1, 2], "i": [1, 2], "3": "number as name", "j": "<class 'object'>"}
    assert list(back["notes"]) == ["metrics.j"]


def test_nan_becomes_null_with_a_reason(tmp_path):
    record = Record("x", metrics={"eer": math.nan, "ci": [0.1, math.inf], "fine": 0.5}, curves={"det": {"t": np.array([-np.inf, 0.0])}},
                    notes={"metrics.wi10_skilled_eer": "fewer than 11 genuine signatures"})
    path = record.write(tmp_path)
    values = json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(f"{text} in the file"))
    assert values["metrics"] == {"eer": None, "ci": [0.1, None], "fine": 0.5} and values["curves"]["det"]["t"] == [None, 0.0]
    assert set(values["notes"]) == {"metrics.eer", "metrics.ci", "curves.det.t", "metrics.wi10_skilled_eer"} and "nan" in values["notes"]["metrics.eer"]
    # written again after reading, the reasons stay
    assert read_record(read_record(path).write(tmp_path / "again")).to_dict() == values


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2**53, 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8,
)


@settings(max_examples=20, deadline=None)
@given(metrics=st.dictionaries(st.text(max_size=8), json_values, max_size=4), error=st.none() | st.text(max_size=10))
def test_what_is_written_is_read(tmp_path_factory, metrics, error):
    folder = tmp_path_factory.mktemp("record")
    record = Record("x", metrics=metrics, error=error)
    assert read_record(record.write(folder)) == record


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = Record("x", metrics={"a": 1}).write(tmp_path)
    before = path.read_text()

    def full_disk(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError):
        Record("x", metrics={"a": 2}).write(tmp_path)
    assert path.read_text() == before and [one.name for one in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("change, pattern", [
    (lambda values: values.pop("probes"), "lacks probes"), (lambda values: values.update(schema=2), "schema 2"),
    (lambda values: values.update(metrics=[1]), "metrics must be an object"),
])
def test_a_bad_record_is_refused_by_name(tmp_path, change, pattern):
    path = Record("x").write(tmp_path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=pattern):
        read_record(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null"])
def test_a_file_that_is_no_record(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match="record.json"):
        read_record(tmp_path)


def test_private_paths_are_shortened(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))
    monkeypatch.chdir(tmp_path)
    for text, short in [("/home/ann/data", "~/data"), ("in /home/ann", "in ~"), ("'/home/ann/x'", "'~/x'"), ("/home/anna/data", "/home/anna/data"),
                        ("/mnt/home/ann/x", "/mnt/home/ann/x"), ("\x1b[32m/home/ann/x", "\x1b[32m~/x"), (f"{tmp_path}/runs/a", "./runs/a")]:
        assert shorten_paths(text) == short
    assert json.loads(Record("x", parameters={"data_dir": "/home/ann/data"}).write(tmp_path).read_text())["parameters"] == {"data_dir": "~/data"}


# ---- curves


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 900), points=st.integers(2, 200), scale=st.sampled_from(["linear", "logit"]), seed=st.integers(0, 99))
def test_thinned_curves_keep_ends_and_order(n, points, scale, seed):
    random = np.random.default_rng(seed)
    full = {"far": np.sort(random.random(n)), "frr": np.sort(random.random(n))[::-1], "threshold": np.r_[-np.inf, np.arange(n - 1)]}
    thin = thin_curve(full, points, scale)
    kept = len(thin["far"])
    assert min(n, 2) <= kept <= max(points, 2) and (kept == n if n <= points else True)
    assert all(thin[name][0] == full[name][0] and thin[name][-1] == full[name][-1] for name in full)
    rows = list(zip(full["far"], full["frr"], full["threshold"]))
    places = [rows.index(row) for row in zip(*thin.values())]
    assert places == sorted(set(places))


def test_thinned_curve_lies_on_the_full_one():
    far = np.linspace(0, 1, 100_001) ** 4
    full = {"far": far, "frr": (1 - far**0.25) ** 3}
    started = time.perf_counter()
    thin = thin_curve(full)
    assert time.perf_counter() - started < 1 and len(thin["far"]) <= 200
    assert np.abs(np.interp(far, thin["far"], thin["frr"]) - full["frr"]).max() < 0.005


def test_flat_and_bad_curves():
    assert thin_curve({"x": np.zeros(1000)}, points=10) == {"x": [0.0, 0.0]}
    for columns, options in [({"x": [1, 2], "y": [1]}, {}), ({"x": []}, {}), ({"x": [[1]]}, {}), ({}, {}), ({"x": [1]}, {"points": 1}), ({"x": [1]}, {"scale": "log"})]:
        with pytest.raises(ValueError, match="must be"):
            thin_curve(columns, **options)


# ---- tables


def test_table_shows_percent_intervals_probes_and_errors():
    record = Record("verification", seconds=3725.0, data={"name": "cedar", "signers": 55, "images": 2640}, environment={"device": "cpu", "cores": 2},
                    metrics={"wi1_skilled_eer": 0.25312, "wi1_skilled_eer_ci": [0.2, 0.3], "cllr": 0.5, "threshold": 0.1, "far_skilled": None,
                             "folds": [1, 2], "trials": 12345, "eer_threshold": 0.42},
                    probes={"background_auc": 0.5}, error="a leak")
    text = format_table(record)
    assert text.splitlines()[0] == "verification · cedar · 55 signers · 2,640 images · 1 h 2 min · cpu · 2 cores"
    assert re.search(r"wi1_skilled_eer +25\.31 %  20\.00 % – 30\.00 %", text) and re.search(r"cllr +0\.500", text)
    assert re.search(r"far_skilled +–", text) and "12,345" in text and "folds" not in text and re.search(r"eer_threshold +0\.420", text)
    assert re.search(r"probe.*\nbackground_auc +0\.500", text) and text.endswith("WARNING: do not quote these figures: a leak")
    assert "wi1_skilled_eer_ci" not in text
    assert format_table(Record("x", error="interrupted")).endswith("ERROR: interrupted")


def test_compare_has_a_row_a_record_and_empty_cells(tmp_path):
    first = Record("a", parameters={"input": "masked"}, metrics={"eer": 0.1, "eer_ci": [0, 1], "curve": [1]}, probes={"auc": 0.5})
    second = Record("a", metrics={"frr": 0.2}, error="interrupted")
    table = compare_records([first.write(tmp_path / "1"), second.write(tmp_path / "2").parent])
    assert len(table) == 2 and table.eer[0] == 0.1 and np.isnan(table.eer[1]) and table["probe.auc"][0] == 0.5
    assert table.error[1] == "interrupted" and not {"eer_ci", "curve"} & set(table)
    assert compare_records([first], intervals=True).eer_ci[0] == [0, 1]
    assert len(compare_records([])) == 0


# ---- the log above the progress bar


def test_live_log_shows_whole_lines_and_few_states(capsys):
    log = LiveLog(every=1000)
    for text in ["a", "b\nc", "\n", "1 %\r", "2 %\r", "3 %", "\n\n", "\x1b[31mred\x1b[0m \n"]:
        log.write(text)
    log.flush()
    captured = capsys.readouterr()
    assert captured.err.split() == ["ab", "c", "3", "%", "red"] and captured.out == ""


# ---- runs (each starts a kernel: few, and each checks much)


def test_a_good_run(toys, tmp_path, monkeypatch):
    # a user's own `python3` kernel that would start something else
    trap = tmp_path / "jupyter" / "kernels" / "python3"
    trap.mkdir(parents=True)
    (trap / "kernel.json").write_text(json.dumps({"argv": ["/bin/false", "{connection_file}"], "display_name": "trap", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sets").mkdir()
    result = run_benchmark("toy", "small", {"count": 9}, data="sets", progress=False, directory=toys)
    assert re.fullmatch(r"runs/toy-small-\d{8}-\d{6}", result.out.as_posix()) and result.exit_code == 0
    record = read_record(result.out)
    assert record.metrics == {"wi1_skilled_eer": 0.25, "count": 9, "resumed": False} and record.error is None and record.finished
    assert record.environment["executable"] == shorten_paths(sys.executable) and record.environment["cores"] == os.cpu_count()
    assert record.parameters == {
        "mode": "good", "count": 9, "rate": 0.25, "fast": False, "layers": [1, 2], "options": {}, "label": "ab", "cores": "max(1, 2)",
        "out_dir": result.out.as_posix(), "data_dir": "sets", "started": record.started,
    }
    assert record.data == {"data_dir": "sets"} and 0 < record.seconds < 100
    assert [path.name for path in result.figures] == ["roc.png"]
    text = result.notebook.read_text()
    assert "reading ~/private/scan.png in .\\n" in text and str(tmp_path) not in text and str(Path.home() / "private") not in text
    notebook = nbformat.read(result.notebook, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    shown = str(result)
    assert all(str(path) in shown for path in (result.notebook, result.record_path, result.out / "figures")) and "25.00 %" in shown
    before = result.record_path.read_text()
    with pytest.raises(FileExistsError, match="finished run.*--force"):
        run_benchmark("toy", "small", {"count": 9}, out=result.out, progress=False, directory=toys)
    assert result.record_path.read_text() == before


@pytest.mark.parametrize("mode, pattern", [
    ("raises", r"^failed at In \[3\]: FileNotFoundError: no set in ~/private$"), ("dies", "^failed: DeadKernelError.*out of memory"),
    ("silent", "^failed: the notebook ended without writing its record"), ("invalid", "^failed: the notebook left no valid record.*JSON"),
])
def test_a_run_that_fails_says_so(toys, tmp_path, mode, pattern):
    with pytest.raises(BenchmarkFailed) as caught:
        run_benchmark("toy", parameters={"mode": mode}, out=tmp_path / "run", progress=False, directory=toys)
    record = read_record(tmp_path / "run")
    assert re.search(pattern, record.error) and record.parameters["mode"] == mode and record.seconds > 0 and record.environment["python"]
    assert caught.value.result.exit_code == 1 and not record.finished and record.metrics == {}
    kept = nbformat.read(tmp_path / "run" / "toy.ipynb", as_version=4)
    assert any("mode" in str(cell.get("outputs")) for cell in kept.cells)
    if mode in ("raises", "silent"):  # what the notebook had said by then is kept
        assert record.environment["device"] == "toy" and record.data == {"name": "toys"}
    if mode == "raises":
        assert "FileNotFoundError" in str(kept) and str(Path.home() / "private") not in str(kept)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_stop_that_was_swallowed_is_asked_for_again():
    before, heard = signal.signal(signal.SIGINT, signal.default_int_handler), 0       # in the background of a shell it would be ignored
    with stopping_signals(seconds=0.05):
        for wait in (lambda: signal.raise_signal(signal.SIGINT), lambda: time.sleep(20)):
            try:
                wait()
            except KeyboardInterrupt:  # as a callback would swallow it
                heard += 1
    time.sleep(0.2)  # outside nothing comes after
    assert heard == 2 and signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_stopped_run_says_so_and_resumes(toys, tmp_path):
    out = tmp_path / "run"
    program = "import sys; from signver_kit.benchmark import run_benchmark as r; r('toy', parameters={'mode': 'waits'}, out=sys.argv[1], directory=sys.argv[2])"
    path = os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, "-c", program, out, toys], stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
    for line in process.stderr:
        if "mode waits" in line:
            # even a kill that nothing can catch would leave this
            assert read_record(out).error == "interrupted" and read_record(out).parameters["mode"] == "waits"
            while not (out / "work" / "step").exists():
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=60)
    record = read_record(out)
    assert process.returncode != 0 and record.error == "interrupted" and record.seconds > 0 and not record.finished
    assert nbformat.read(out / "toy.ipynb", as_version=4).cells
    with pytest.raises(ValueError, match=r"other parameters \(mode 'waits' -> 'good'\)"):
        run_benchmark("toy", out=out, progress=False, directory=toys)
    resumed = run_benchmark("toy", parameters={"mode": "waits"}, out=out, progress=False, directory=toys)
    assert resumed.exit_code == 0 and resumed.record.metrics["resumed"] is True
    fresh = run_benchmark("toy", out=out, force=True, progress=False, directory=toys)
    assert fresh.record.metrics["resumed"] is False


def test_folders_that_must_not_be_used(toys, tmp_path):
    def refused(error, pattern, **options):
        with pytest.raises(error, match=pattern):
            run_benchmark("toy", progress=False, directory=toys, **options)

    before = (toys / "toy.ipynb").read_bytes()
    refused(FileExistsError, "holds the benchmarks themselves", out=toys)
    (tmp_path / "file").write_text("x")
    refused(FileExistsError, "is a file", out=tmp_path / "file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "toy.ipynb").write_text("mine")
    refused(FileExistsError, "not the folder of a run", out=tmp_path / "mine", force=True)
    Record("other", metrics={"a": 1}).write(tmp_path / "other")
    (tmp_path / "other" / "work").mkdir()
    refused(FileExistsError, "a run of other", out=tmp_path / "other", force=True)
    refused(FileNotFoundError, "no data folder at", out=tmp_path / "new", data=tmp_path / "nowhere")
    refused(ValueError, "unknown parameter 'cuont'", out=tmp_path / "new", parameters={"cuont": 1})
    assert (toys / "toy.ipynb").read_bytes() == before and (tmp_path / "mine" / "toy.ipynb").read_text() == "mine"
    assert (tmp_path / "other" / "work").exists() and not (tmp_path / "new").exists()


def test_default_folders_do_not_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []
    for _ in range(3):
        made.append(run_folder("toy", "small"))
        made[-1].mkdir(parents=True)
    assert len(set(made)) == 3 and not made[0].is_absolute()
    assert run_folder("toy", out=tmp_path / "a") == Path("a") and run_folder("toy", out="/elsewhere/a") == Path("/elsewhere/a")
