"""The tutorials' exercises: each check accepts the folded answer and refuses three dots and the common mistakes; a notebook is graded as a learner left it."""
import json
import re

import nbformat
import numpy as np
import pytest

from conftest import ROOT
from signver_kit.boxes import iou, non_max_suppression
from signver_kit.images import NoInk, SignverError, ink_image, to_ink
from signver_kit.learn import EXERCISES, RESULTS_FILE, Result, check, exercise, find_tutorial, grade, grade_and_report, look_at
from signver_kit.metrics import eer, far_frr


def _caught(source, kind, instead=None):
    "An ink image, or something else where an error of this kind is raised."
    try:
        return ink_image(source)
    except kind:
        return instead


def _against_all(boxes, scores, threshold):
    "Suppression as it is often written: by every surer box, the struck-out ones too."
    order = np.argsort(-np.asarray(scores), kind="stable")
    return [int(k) for n, k in enumerate(order) if n == 0 or iou([boxes[k]], [boxes[j] for j in order[:n]]).max() <= threshold]


def _by_rule(name, signer=r"[a-z]+-\d+", kinds=("genuine", "skilled"), end=""):
    "Who and what a file's name says, as exercise 13.1 asks; with options, one mistake."
    match = re.fullmatch(rf".*?({signer}).*?-(orig|forg)-\d+\.png{end}", name)
    return match and (match[1], dict(zip(("orig", "forg"), kinds))[match[2]])


TUTORIALS = sorted((ROOT / "tutorials").glob("[0-9]*.ipynb"))
WRONG = {
    "01.1": [0.96, 0.08 ** 0.5, 0.52, 0, "0,04"],
    "01.2": [False, 0.36, "yes", None],
    "01.3": [(600, 100, 640, 350), (80, 750, 280, 800), (750, 80, 50, 200), (750, 80), 750],
    "02.1": [2 / 8, 3 / 13, 37.5, 0.2, 0.4, "3/8", None],
    "02.2": [0.5, lambda g, f, t: (np.mean(np.array(f) < t), np.mean(np.array(g) >= t)), lambda g, f, t: (np.mean(np.array(g) > t), np.mean(np.array(f) <= t)),
             lambda g, f, t: (sum(d <= t for d in f) / (len(f) + len(g)), sum(d > t for d in g) / (len(f) + len(g))), lambda g, f, t: (np.mean(np.array(f) <= t), np.mean(np.array(g) >= t))],
    "02.3": [0.94, 0.9, 0.908, 97.2, 0.98],
    "02.4": [10_000, 300, 300_000, 3],
    "03.1": [0.92, 1.0, 0.04, 24, 0.5],
    "03.2": [lambda s: s, lambda s: s / 255, lambda s: s - np.median(s), lambda s: (s - s.mean()) / s.std(), lambda s: to_ink(s, input="masked"), lambda s: np.zeros_like(s),
             lambda s: s.astype(float) / np.median(s), "binarised"],
    "03.3": ["label_shuffle_eer", "background_auc", "questioned_only_auc", 4],
    "04.1": [120, 130.8, 20, 25, 200, 15, "dark"],
    "04.2": [(0, 8), (1, 8), (2, 6), (0, 6), (1, 7), (7, 0), 7, (0, 7, 8)],
    "04.3": [(88, 184), (96, 192), (88, 220), (77, 192), (184, 74), (73, 180), 74],
    "04.4": [None, ink_image, lambda s: None, lambda s: _caught(s, Exception), lambda s: _caught(s, ValueError), lambda s: _caught(s, NoInk, np.zeros((150, 220), np.float32)),
             lambda s: to_ink(s)],
    "05.1": [0, 0.35, -0.1, 0.1, 0.25, 0.2, "none"],
    "05.2": [1, lambda p, n, m: int(np.argmin(n)), lambda p, n, m: int(np.argmax(n)), lambda p, n, m: min(d for d in n if d > p), lambda p, n, m: next(i for i, d in enumerate(n) if p < d < p + m),
             lambda p, n, m: min((i for i, d in enumerate(n) if p < d < p + m), key=lambda i: n[i]), lambda p, n, m: int(np.argmin(np.where((np.array(n) >= p) & (np.array(n) < p + m), n, 9)))],
    "05.3": [[0, 2, 0, 2], [0, 2, 0, -2], [0, 2, -1, -1], [0, 2, -1], [1, 3, -1, -3], [0, 2, 1, 3], "genuine"],
    "05.4": [6, 4, 1, 5, 2],
    "07.1": [300 / 1600, 300 / 800, 300, 1300 / 300, 0.5],
    "07.2": [3, lambda b, s, t: list(range(len(b))), lambda b, s, t: list(np.argsort(s)), lambda b, s, t: non_max_suppression(b, s, threshold=t, limit=1), _against_all,
             lambda b, s, t: non_max_suppression(b, s, threshold=t - 1e-6), lambda b, s, t: [int(np.argmax(s))], lambda b, s, t: np.argsort(-np.array(s))],
    "07.3": [0.5, 2 / 3, 5 / 6, 0.51, 0.6, 1],
    "07.4": [0.5, 0.1, 0.9, 75, 0.7],
    "08.1": [["Ben", "Ann", "Ben"], ["Ben", None, "Ann"], ["Ben", None, ["Ann", "Ben", "Dan"]], ["Ann", None, "Ben"], ["Ben", None], None],
    "08.2": [20, 22, 460, 21.02, 2100],
    "08.3": ["Ben", lambda d, t: min(d, key=d.get), lambda d, t: next((n for n in d if d[n] <= t), None), lambda d, t: min(d, key=d.get) if min(d.values()) <= t else None,
             lambda d, t: min(d, key=d.get) if d and min(d.values()) < t else None],
    "08.4": [{"a"}, {"b"}, {"b", "c", "d"}, {"b", "c", "d", "e", "f"}, {"b", "c", "d", "f", "g"}, 2],
    "09.1": [0, 3, 2 / 12, 12, "two"],
    "09.2": [None, lambda t, s, e: np.flatnonzero(t.kind == "genuine"), lambda t, s, e: np.flatnonzero((t.kind == "genuine") & (t.signer != s)), lambda t, s, e: np.flatnonzero(~t.signer.isin([s, *e])),
             lambda t, s, e: np.flatnonzero((t.kind == "genuine") & t.signer.isin([x for x in e if x != s])), lambda t, s, e: [], lambda t, s, e: np.flatnonzero((t.kind == "genuine") & ~t.signer.isin(e))[1:]],
    "09.3": [{"a", "b", "c", "d", "e"}, {"b", "e"}, {"b", "c", "d", "e"}, {"a"}, set(), 3],
    "09.4": [0.05, 21, 5 / 105, 100, "twenty"],
    "10.1": ["A", "B", "c", 3],
    "10.2": [40 / 41, 40 / 499, 40 / 500, 1 / (1 + 40 * 499), 7.42, 0.5],
    "10.3": [{"a", "b", "c", "f"}, {"b", "c", "e", "f"}, {"b", "c"}, {"b", "c", "d", "f"}, set(), 3],
    "10.4": [0.5, lambda a, r, s: a / r, lambda a, r, s: a * s / r, lambda a, r, s: r * (1 - s) / (a * s), lambda a, r, s: np.log(a * s / (r * (1 - s))), lambda a, r, s: 500 / 990],
    "11.1": [(20, 1), (3, 16), (5, 20), (1, 16), (3, 20), 1],
    "11.2": ["23.6 %", lambda r, n: f"{r.metrics[n]:.3f}", lambda r, n: f"{r.metrics[n]:.1%}", lambda r, n: f"{r.metrics[n]:.2%}", lambda r, n: "{:.1%} ({:.1%} – {:.1%})".format(r.metrics[n], *r.metrics[f"{n}_ci"]),
             lambda r, n: f"{r.metrics[n]:.1%}" + (" ({:.1%} – {:.1%})".format(*r.metrics[f"{n}_ci"]) if f"{n}_ci" in r.metrics else "")],
    "11.3": [{"a", "b", "d", "e"}, {"b", "d"}, {"b", "c", "d", "e"}, {"b", "d", "e", "f"}, set(), 3],
    "12.1": [10, 42 / 15, 2, 3.5, 12, "2,5"],
    "12.2": [230 * 0.09 / 2.5, 230, 3000, 27.8],
    "12.3": [250, 212.5, 4.9, 2000, 1700],
    "13.1": ["miller", lambda n: None, lambda n: _by_rule(n, kinds=("orig", "forg")), lambda n: _by_rule(n, signer="[a-z]+"), lambda n: _by_rule(n, signer="[1-9]\\d*"), lambda n: _by_rule(n, end=".*"),
             lambda n: _by_rule(n) or ("?", "genuine")],
    "13.2": [50 / 64, 1 / 32, 48.4375, 25, 0, "few"],
    "13.3": [{2}, {2, 3, 4}, {1, 3, 4, 5, 6, 7}, {2, 4, 5, 6}, {2, 3, 4, 7}, range(1, 8), {2, 3, 4, 5, 6, 7, 8}],
    "13.4": ["a", {"b"}, {"b", "c", "d"}, {"b", "d", "e"}, set(), {"d"}],
    "14.1": [{1, 2, 3, 4, 5}, {2, 3, 5}, set(), {2, 3, 4, 5, 8}, {2, 3, 4, 5, 6}, 2, {2, 3, 4, 5, 9}],
    "14.2": [0.8, 0.64, 0.68, 0.2, 0.4],
    "14.3": [0.3, lambda yv, dv, yt, dt: eer(yt, dt).value, lambda yv, dv, yt, dt: eer(yv, dv).value, lambda yv, dv, yt, dt: np.mean(far_frr(yt, dt, eer(yt, dt).threshold)),
             lambda yv, dv, yt, dt: min(np.mean(far_frr(yt, dt, t)) for t in dt), lambda yv, dv, yt, dt: sum(far_frr(yt, dt, eer(yv, dv).threshold))],
}


def folded_answers(path):
    "number -> the answer that stands in the <details> block below the exercise."
    cells, answers = nbformat.read(path, as_version=4).cells, {}
    for question, block in zip(cells, cells[1:]):
        asked = re.search(r'^check\("([\d.]+)", (\w+)\)', question.source, re.M)
        if asked:
            given = re.search(r"<details>.*?```python\n(.*?)```", block.source, re.S)
            assert given, f"{asked[1]} has no folded answer below it"
            names = {"np": np, "re": re, "to_ink": to_ink, "eer": eer, "far_frr": far_frr, "iou": iou}
            exec(given[1], names)
            answers[asked[1]] = names[asked[2]]
    return answers


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_folded_answers_are_right_and_every_check_is_asked(path):
    answers = folded_answers(path)
    assert set(answers) == {number for number in EXERCISES if number.startswith(path.name[:2] + ".")}
    for number, answer in answers.items():
        assert look_at(number, answer) == Result(number, "right")


def test_every_exercise_has_its_mistakes_tried():
    assert set(WRONG) == set(EXERCISES)


@pytest.mark.parametrize("number", sorted(EXERCISES))
def test_mistakes_get_a_hint_and_dots_are_no_answer(number):
    assert look_at(number, ...).state == "not answered"
    for wrong in WRONG[number]:
        result = look_at(number, wrong)
        assert result.state == "not yet" and result.hint, (wrong, result)


def test_numbers_are_unique_and_known():
    with pytest.raises(ValueError, match="a number of its own"):
        exercise("02.1", "again")(lambda answer: None)
    with pytest.raises(ValueError, match="there is no exercise '99.9'"):
        look_at("99.9", 1)


def test_check_tells_the_notebook_and_the_grader(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(RESULTS_FILE, str(tmp_path / "results.jsonl"))
    check("02.1", 3 / 8)
    check("02.1", 0.25)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "✓ 02.1 right" and said[1].startswith("✗ 02.1 not yet: accepted is whatever")
    assert [json.loads(line)[1] for line in (tmp_path / "results.jsonl").read_text().splitlines()] == ["right", "not yet"]


def test_a_notebook_is_graded_as_it_was_left(tmp_path, capsys):
    sources = ["from signver_kit.learn import check", "check('02.1', 3 / 8)", "1 / 0", "accuracy = 0.94\ncheck('02.3', accuracy)", "check('02.4', ...)"]
    mine = tmp_path / "mine.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), mine)
    before = mine.read_bytes()
    results, errors = grade("2", mine)
    assert {result.number: result.state for result in results} == {"02.1": "right", "02.2": "not answered", "02.3": "not yet", "02.4": "not answered"}
    assert errors == ["ZeroDivisionError: division by zero"] and mine.read_bytes() == before


def test_what_cannot_be_graded_is_said(tmp_path, monkeypatch):
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(SignverError, match="is no notebook"):
        grade("02", tmp_path / "broken.ipynb")
    with pytest.raises(FileNotFoundError):
        grade("02", tmp_path / "none.ipynb")
    with pytest.raises(SignverError, match="tutorial 77 has no exercises"):
        grade("77", tmp_path / "broken.ipynb")
    monkeypatch.setenv("SIGNVER_TUTORIALS", str(tmp_path))
    with pytest.raises(SignverError, match="there is no tutorial 02"):
        find_tutorial("02")
    monkeypatch.setenv("SIGNVER_TUTORIALS", str(tmp_path / "nowhere"))
    with pytest.raises(SignverError, match="is no folder"):
        find_tutorial(2)


def test_the_exit_code_says_whether_all_are_right(monkeypatch, capsys):
    from signver_kit import learn
    for results, code in (([Result("02.1", "right")], 0), ([Result("02.1", "right"), Result("02.2", "not yet", "look")], 1)):
        monkeypatch.setattr(learn, "grade", lambda number, notebook: (results, []))
        assert grade_and_report("02") == code
    assert "1 of 2 right" in capsys.readouterr().out
