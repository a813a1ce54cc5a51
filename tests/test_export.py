"""Exports: what each format answers, what is written beside it, and what is refused."""
import importlib.util
import json
import sys
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signver_kit import export as module
from signver_kit.cleaner import Cleaner, CleanerConfig, build_cleaner
from signver_kit.detector import DetectorConfig, build_detector
from signver_kit.export import (FORMATS, KINDS, TOLERANCE, ExportMismatch, check_batch, compare_answers, export_and_report, export_model, load_model, open_export,
                                read_description)
from signver_kit.extractor import ExtractorConfig, build_extractor
from signver_kit.training import WeightsMismatch, save_model

NEEDS = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "saved_model": (), "openvino": ("openvino",), "litert": ("ai_edge_litert",)}


def needs(format):
    """Skips a test where what a format is written with or run by is missing."""
    missing = [name for name in NEEDS[format] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{format} needs {', '.join(missing)}: pip install 'signver_kit[export]'")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Model folders of tiny networks with random weights."""
    work = tmp_path_factory.mktemp("models")
    configs = {"extractor": ExtractorConfig(width=4, input_size=(32, 48), embedding_dim=8, grid_channels=4, views=3),
               "cleaner": CleanerConfig(channels=(4, 8)), "autoencoder": CleanerConfig(network="autoencoder", levels=1, filters=2),
               "detector": DetectorConfig(width=4, pyramid=8, depth=1, calibration=(2.0, 0.5))}
    for name, config in configs.items():
        model = (build_extractor if name == "extractor" else build_detector if name == "detector" else build_cleaner)(config)
        if name == "cleaner":                                                  # untrained it would change nothing
            model.get_layer("change").kernel.assign(np.random.default_rng(0).normal(0, 0.5, (4, 4, 1, 4)))
        save_model(model, work / name, asdict(config), {"trained_on": ["nothing"], "terms": "none", "recipe": {"a": 1}})
    return work


@pytest.fixture(scope="module")
def exports(folders, tmp_path_factory):
    """`exports(kind, format)`: a path; each is made once."""
    made, out = {}, tmp_path_factory.mktemp("exports")

    def export(kind, format, size=None):
        needs(format)
        if (kind, format) not in made:
            made[kind, format] = export_model(kind, folders / kind, out, format, size=size)
        return made[kind, format]
    return export


@cache
def keras_model(folder, kind):
    return load_model(kind, folder)[0]


def keras_answer(folders, kind, batch):
    return keras_model(folders / kind, kind).predict_on_batch(batch)


SIZES = {"extractor": [(32, 48)], "cleaner": [(32, 48), (64, 20)], "detector": [(64, 96), (32, 128)]}


@pytest.mark.parametrize("kind, format", [("cleaner", "saved_model"), ("cleaner", "onnx"), ("cleaner", "openvino"), ("extractor", "litert"), ("detector", "openvino")])
def test_answers_are_keras_answers_for_any_batch_and_size(kind, format, folders, exports):
    run = open_export(exports(kind, format), precision="float32")
    assert run.precision == "float32" and run.about["input"]["shape"][0] is None
    for count, size in zip((1, 5), SIZES[kind] * 2):
        batch = np.random.default_rng(count).random((count, *size, 1), np.float32)
        answer = keras_answer(folders, kind, batch)
        assert answer.std() > 1e-3                                             # there is something to be equal to
        assert np.abs(run(batch) - answer).max() <= TOLERANCE[kind]["float32"]
        assert run(batch).dtype == np.float32 and [a for a, b in zip(answer.shape, run.about["output"]["shape"]) if b not in (None, a)] == []


def test_one_size_where_litert_needs_one(folders, exports, tmp_path):
    needs("litert")
    with pytest.raises(ValueError, match=r"one size.*multiples of 4"):
        export_model("cleaner", folders / "cleaner", tmp_path, "litert")
    run = open_export(exports("cleaner", "litert", size=(24, 32)), threads=1)
    assert run.about["input"]["shape"] == [None, 24, 32, 1]
    for count in (1, 3, 1):
        assert np.abs(run(check_batch((count, 24, 32, 1))) - keras_answer(folders, "cleaner", check_batch((count, 24, 32, 1)))).max() < 1e-4
    with pytest.raises(ValueError, match=r"\(any, 24, 32, 1\)"):
        run(check_batch((1, 32, 32, 1)))


def test_the_autoencoder_goes_to_litert_in_any_size(folders, tmp_path):
    needs("litert")
    run = open_export(export_model("cleaner", folders / "autoencoder", tmp_path, "litert"))
    batch = check_batch((2, 10, 36, 1))
    assert np.abs(run(batch) - np.asarray(load_model("cleaner", folders / "autoencoder")[0](batch, training=False))).max() < 1e-4


def test_the_description_suffices(folders, exports):
    path = exports("cleaner", "openvino")
    about = read_description(path)
    assert about["weights"] == {key: value for key, value in json.loads((folders / "cleaner" / "card.json").read_text()).items() if key in ("sha256", "trained_on", "terms")}
    assert about["made_with"]["keras"] == __import__("keras").__version__ and about["made_with"]["openvino"]
    assert about["input"]["multiple_of"] == 4 and about["input"]["pre_processing"] and about["output"]["post_processing"] and about["bytes"] > 5000
    assert set(about["files"]) == {"cleaner.xml", "cleaner.bin"}
    for found in about["check"]["differences"].values():
        assert found["mean"] <= found["largest"] <= found["tolerance"]
    assert "float32" in about["check"]["differences"]
    import openvino                                                            # as somebody without this package would
    batch = check_batch(about["check"]["shapes"][0])
    answer = eval(about["run"].replace("'cleaner.xml'", repr(str(path))), {"openvino": openvino, "batch": batch})
    few = answer.reshape(-1)[::about["check"]["answers"]["first_shape_every"]][:8]
    assert np.allclose(few, about["check"]["answers"]["values"], atol=TOLERANCE["cleaner"]["bfloat16"])


def test_the_snippet_for_litert_runs(folders, exports):
    needs("litert")
    import ai_edge_litert.interpreter
    path = exports("extractor", "litert")
    about, batch = read_description(path), check_batch((2, 32, 48, 1))
    *steps, last = about["run"].replace("'extractor.tflite'", repr(str(path))).split("; ")
    names = {"ai_edge_litert": ai_edge_litert, "batch": batch}
    exec("; ".join(steps), names)
    assert np.allclose(eval(last, names), keras_answer(folders, "extractor", batch), atol=1e-5)
    assert any("3 slightly moved copies" in line for line in about["output"]["post_processing"])


def test_a_detector_says_how_its_scores_are_made(exports):
    about = read_description(exports("detector", "openvino"))
    after = " ".join(about["output"]["post_processing"])
    assert "sigmoid(2 * largest logit + 0.5)" in after and "8, 16, 32, 64" in after and about["output"]["shape"] == [None, None, 8]
    assert about["config"]["classes"] == ["signature", "initials", "redaction", "date"] and len(about["config"]["shapes"]) == 6


def test_an_export_is_not_overwritten_without_force(folders, tmp_path):
    path = export_model("cleaner", folders / "cleaner", tmp_path, "saved_model")
    before = read_description(path)
    with pytest.raises(FileExistsError, match="force"):
        export_model("cleaner", folders / "cleaner", tmp_path, "saved_model")
    assert read_description(path) == before
    export_model("cleaner", folders / "cleaner", tmp_path, "saved_model", size=(8, 16), force=True)
    assert read_description(path)["input"]["shape"] == [None, 8, 16, 1]
    assert open_export(path)(check_batch((1, 8, 16, 1))).shape == (1, 8, 16, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cleaner_saved_model", "cleaner_saved_model.json"]       # nothing half-made


def test_what_answers_otherwise_is_not_written(folders, tmp_path, monkeypatch):
    def scrambled(model, signature, path):
        model.set_weights([0 * w for w in model.get_weights()])
        module._write_keras("tf_saved_model")(model, signature, path)
    monkeypatch.setitem(module.WRITERS, "saved_model", scrambled)
    with pytest.raises(ExportMismatch, match="like Keras"):
        export_model("cleaner", folders / "cleaner", tmp_path, "saved_model")
    assert list(tmp_path.iterdir()) == []


@given(st.floats(0, 1e-3), st.sampled_from(sorted(KINDS)), st.sampled_from(["float32", "bfloat16"]))
def test_compare_measures_and_judges(apart, kind, precision):
    answer = np.zeros((2, 3))
    allowed = TOLERANCE[kind][precision]

    def off(batch):
        return answer + np.array([[apart, 0, 0], [0, 0, -apart / 2]])
    if apart <= allowed:
        found = compare_answers(off, [(None, answer)], kind, precision)
        assert found["largest"] == apart and found["mean"] <= apart and found["tolerance"] == allowed
    else:
        with pytest.raises(ExportMismatch):
            compare_answers(off, [(None, answer)], kind, precision)


def test_nan_is_never_close():
    with pytest.raises(ExportMismatch, match="nan"):
        compare_answers(lambda batch: np.full(3, np.nan), [(None, np.zeros(3))], "detector", "bfloat16")


@given(st.integers(1, 4), st.integers(1, 70), st.integers(1, 70))
def test_check_pictures_are_pictures(count, height, width):
    batch = check_batch((count, height, width, 1))
    assert batch.shape == (count, height, width, 1) and batch.dtype == np.float32 and 0 <= batch.min() and batch.max() <= 1
    assert np.array_equal(batch[:1], check_batch((1, height, width, 1)))


def test_check_pictures_follow_their_formula():
    h, w = 32, 48
    n, y, x = 1, 20, 7
    stroke = min(1, max(0, h / 40 + 1.5 - abs(y - h / 2 - h / 4 * np.sin(2 * np.pi * (n + 1) * x / w))))
    assert check_batch((2, h, w, 1))[n, y, x, 0] == pytest.approx(max(stroke, 0.3 * ((37 * y * y + 101 * x * y + 53 * x + 29 * n) % 251) / 250), abs=1e-6)


@pytest.mark.parametrize("kind, format, options, message", [
    ("matcher", "onnx", {}, "one of extractor, cleaner, detector"), ("cleaner", "coreml", {}, "one of onnx, saved_model, openvino, litert"),
    ("cleaner", "openvino", {"size": (30, 32)}, "multiples of 4"), ("cleaner", "openvino", {"size": (0, 32)}, "multiples of 4"),
    ("cleaner", "openvino", {"size": (32,)}, "height, width"), ("detector", "openvino", {"size": (64, 80)}, "multiples of 32"),
    ("extractor", "openvino", {"size": (64, 96)}, "32 x 48"),
])
def test_what_cannot_be_exported(kind, format, options, message, folders, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_model(kind, folders / kind, tmp_path / "out", format, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format, missing, package", [("onnx", "tf2onnx", "tf2onnx"), ("onnx", "onnxruntime", "onnxruntime"), ("openvino", "openvino", "openvino"),
                                                      ("litert", "ai_edge_litert.interpreter", "ai-edge-litert")])
def test_a_missing_runtime_is_named_with_its_extra(format, missing, package, folders, tmp_path, monkeypatch):
    for name in {"onnx", "tf2onnx", "onnxruntime"} - {missing}:
        monkeypatch.setitem(sys.modules, name, object())                       # there, whether or not it is
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=rf"package {package}: pip install 'signver_kit\[export\]'"):
        export_model("extractor", folders / "extractor", tmp_path, format)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        module._need(missing, format)


def test_another_backend_is_told_so(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(module.keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow"):
        export_model("cleaner", folders / "cleaner", tmp_path, "onnx")


def test_what_is_opened_is_what_was_checked(folders, tmp_path):
    path = export_model("cleaner", folders / "cleaner", tmp_path, "saved_model")
    with pytest.raises(ValueError, match="threads"):
        open_export(path, threads=1)
    with pytest.raises(ValueError, match="precision"):
        open_export(path, precision="int8")
    run = open_export(path)
    for wrong in (np.zeros((32, 48, 1)), np.zeros((1, 30, 48, 1)), np.zeros((1, 32, 48, 3)), np.zeros((0, 32, 48, 1))):
        with pytest.raises(ValueError, match="multiples of 4"):
            run(wrong)
    next(path.rglob("variables.data*")).write_bytes(b"other weights")
    with pytest.raises(WeightsMismatch, match="export it again"):
        open_export(path)
    (tmp_path / "cleaner_saved_model.json").unlink()
    with pytest.raises(FileNotFoundError, match="description"):
        open_export(path)


def test_the_report(folders, tmp_path, capsys):
    assert export_and_report("cleaner", "openvino", tmp_path, folders / "cleaner", size=(16, 32)) == 0
    told = capsys.readouterr()
    assert "(any, 16, 32, 1) -> (any, 16, 32, 1)" in told.out and "float32" in told.out and "cleaner.xml.json" in told.out and told.err == ""


def test_the_shipped_weights_are_the_default():
    assert load_model("cleaner")[2]["sha256"] == Cleaner().load().card["sha256"]
    assert set(FORMATS) == set(module.WRITERS) == set(module.RUNNERS) and set(TOLERANCE) == set(KINDS)
