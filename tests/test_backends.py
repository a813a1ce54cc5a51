"""The shipped weights answer alike on every backend of Keras: to within rounding what TensorFlow answered, in tests/answers.json. Run as a program on TensorFlow, this file writes that."""
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from signver_kit.cleaner import Cleaner
from signver_kit.detector import Detector
from signver_kit.export import TOLERANCE, check_batch
from signver_kit.extractor import MetricExtractor

from backends import BACKEND, numpy

ANSWERS = Path(__file__).parent / "answers.json"
SHAPES = {"extractor": (2, 150, 220, 1), "cleaner": (2, 96, 160, 1), "detector": (1, 128, 192, 1)}


def scribble(height, width, seed):
    """A signature by NumPy alone, grey uint8 (H, W): what OpenCV's releases draw differs."""
    t, rng = np.linspace(0, 1, 700), np.random.default_rng(seed)
    waves = [sum(a * np.sin(2 * np.pi * (k + 1 + 2 * slow) * t + p) for k, (a, p) in enumerate(rng.uniform((0.3, 0), (1, 6), (4, 2)))) for slow in (0, 1)]
    x, y = width * (0.08 + 0.75 * t) + 0.04 * width * waves[0], height / 2 + 0.13 * height * waves[1]
    rows, columns = np.mgrid[:height, :width]
    apart = np.min([np.hypot(rows - b, columns - a) for a, b in zip(x, y)], axis=0)
    return (255 - 235 * np.clip(2.6 - apart, 0, 1)).astype(np.uint8)


def dirty(seed):
    """A scribble with two ruled lines and specks."""
    picture, rng = scribble(150, 300, seed), np.random.default_rng(seed)
    picture[100:103], picture[:, 40:42] = 60, 90
    specks = rng.integers(0, (150, 300), (200, 2))
    picture[specks[:, 0], specks[:, 1]] = 30
    return picture


def page():
    """A page, grey uint8 (880, 640): rows of bars for text, a signature, a redaction."""
    rng, sheet = np.random.default_rng(3), np.full((880, 640), 252, np.uint8)
    for top in range(70, 520, 22):
        ends = np.cumsum(rng.integers(12, 60, 40))
        for left, right in zip(ends[:-1:2] + 60, ends[1::2] + 60):
            if right < 580:
                sheet[top:top + 9:2, left:right - 6] = 70
    sheet[300:330, 200:420] = 0
    for k, (top, left) in enumerate([(600, 90), (700, 340)]):
        place = sheet[top:top + 90, left:left + 220]
        np.minimum(place, scribble(90, 220, k + 5), out=place)
    return sheet


def answers():
    """What the shipped weights make of pictures that are the same everywhere: of the networks alone, and by way of the classes that people use."""
    loaded = {"extractor": MetricExtractor().load(), "cleaner": Cleaner().load(), "detector": Detector().load()}
    raw = {kind: numpy(loaded[kind].model(check_batch(SHAPES[kind]), training=False)) for kind in loaded}
    found = loaded["detector"].detect_pages([page()], threshold=0.3)[0]
    return {"networks": {"extractor": raw["extractor"][:, ::4], "cleaner": raw["cleaner"][:, 3::12, 3::12, 0], "detector": raw["detector"][0, ::61]},
            "embeddings": loaded["extractor"].extract([scribble(150, 300, 1), scribble(90, 260, 2)]), "cleaned": np.stack(loaded["cleaner"].clean([dirty(1), dirty(2)]))[:, 5::12, 5::12],
            "boxes": found.boxes, "scores": found.scores, "classes": list(found.classes), "weights": {kind: model.card["sha256"] for kind, model in loaded.items()}}


@pytest.fixture(scope="module")
def both():
    return answers(), json.loads(ANSWERS.read_text())


def test_the_answers_are_those_of_the_shipped_weights(both):
    ours, kept = both
    assert ours["weights"] == kept["weights"], "other weights are shipped: python tests/test_backends.py makes the answers anew"


@pytest.mark.parametrize("kind", SHAPES)
def test_networks_answer_as_on_tensorflow(both, kind):
    ours, kept = (side["networks"][kind] for side in both)
    assert np.std(kept) > 0.03 and np.abs(ours - np.array(kept)).max() < TOLERANCE[kind]["float32"]


def test_embeddings_cleaned_pictures_and_boxes_are_tensorflows(both):
    ours, kept = both
    assert np.abs(ours["embeddings"] - kept["embeddings"]).max() < 1e-4 and np.dot(*ours["embeddings"]) < 0.9
    assert np.abs(ours["cleaned"] - kept["cleaned"]).max() < 1e-3
    assert ours["classes"] == kept["classes"] and {"signature", "redaction"} <= set(kept["classes"])
    assert np.abs(ours["boxes"] - kept["boxes"]).max() < 1e-3 and np.abs(ours["scores"] - kept["scores"]).max() < 1e-3


def plain(value):
    return value if isinstance(value, (list, str)) else {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else np.round(np.asarray(value, float), 6).tolist()


if __name__ == "__main__":
    assert BACKEND == "tensorflow", f"the answers are TensorFlow's, this is {BACKEND}: set KERAS_BACKEND=tensorflow"
    ANSWERS.write_text(json.dumps(plain(answers() | {"made_with": {"keras": keras.__version__, "numpy": np.__version__}}), indent=None, separators=(",", ":")) + "\n")
