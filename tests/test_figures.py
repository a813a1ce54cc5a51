"""Figures quoted in prose are those of the records, to the last digit that is quoted.

A quoted figure is a link to its record whose title is the dotted path of the value in it, such as [16.0 %](../benchmarks/results/verification-cedar-shipped.json "metrics.wi1_skilled_eer").
An interval is quoted whole, [12.7–19.4 %](… "metrics.wi1_skilled_eer_ci"). Before % stands the fraction of the record times 100. In tutorials and pages a percentage of a real data set,
or one with decimals, is such a link, or the reader can work it out from the text and the paragraph says so: <!-- arithmetic -->.
"""
import json
import re

import nbformat
import pytest

from conftest import ROOT

TEXTS = [path for pattern in ("tutorials/*.ipynb", "nbs/*.ipynb", "benchmarks/*.ipynb", "docs/**/*.md", "*.md") for path in sorted(ROOT.glob(pattern))]
PROSE = [path for path in TEXTS if path.relative_to(ROOT).parts[0] in ("tutorials", "docs")]

# what stands in a link's brackets may be in brackets itself, as intervals are
RECORD_LINK = re.compile(r'\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(\s*([^()\s]*results/[^()\s]+\.json)(?:\s+"([^"]*)")?\s*\)')
NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:[,\u202f]\d{3})*(?:\.\d+)?")
SETS = re.compile(r"CEDAR|ICDAR|SigComp|BHSig|UTSig|MCYT|GPDS|Tobacco|SSBI|SignVerOD|Cross-?media|Kaggle", re.I)
# no figures of a set: how sure an interval is; and rates that are asked for, which are round (0.1 %, 0.01 %, …)
PERCENT = re.compile(r"\d+(?:\.\d+)?\s*(?:%|per ?cent\b)(?! (?:confidence|interval))")
DECIMALS = re.compile(r"(?<![\d.])(?!0\.0*1\s*%)\d+\.\d+\s*(?:%|per ?cent\b)")


def paragraphs(path):
    """The prose of a page or of a notebook's Markdown cells, without code, paragraph by paragraph."""
    source = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"] if path.suffix == ".ipynb" else [path.read_text(encoding="utf-8")]
    for text in source:
        text = re.sub(r"^(```+|~~~+).*?^\1", "", text, flags=re.M | re.S)
        yield from re.split(r"\n\s*\n", re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text))


def value_at(record, dotted):
    """What stands in a record at a dotted path; numbers count in lists. LookupError for what is not there."""
    for key in dotted.split("."):
        record = record[int(key)] if isinstance(record, list) else record[key]
    return record


def misquoted(words, link, dotted, folder):
    """Why the link `[words](link "dotted")` on a page in `folder` is no true quotation of a record; None when it is."""
    path = folder / link
    if not path.is_file():
        return f"there is no {link}"
    numbers = NUMBER.findall(words)
    if not dotted:
        return f"'{words}' has a figure and no path in the record: [figure](record.json \"metrics.name\")" if numbers and not words.strip("`").endswith(path.stem) else None
    try:
        values = value_at(json.loads(path.read_text(encoding="utf-8")), dotted)
    except (LookupError, ValueError, TypeError):
        return f"{path.name} has no {dotted}"
    values = values if isinstance(values, list) else [values]
    if any(isinstance(value, (str, bool, dict, list, type(None))) for value in values):
        return f"{dotted} in {path.name} is not a number: {str(values)[:60]}"
    if len(numbers) != len(values):
        return f"'{words}' must hold {len(values)} number(s), as {dotted} does"
    for number, value in zip(numbers, values):
        text = re.sub("[,\u202f]", "", number).replace("−", "-")
        decimals, value = len(text.partition(".")[2]), value * (100 if PERCENT.search(words) else 1)
        if abs(float(text) - value) > 0.5 * 10 ** -decimals * (1 + 1e-9):
            return f"'{words}' says {text}, {path.name} says {value:.{decimals + 1}f} ({dotted})"
    return None


def unlinked(paragraph):
    """The percentages of a paragraph that need a record and name none."""
    if "<!-- arithmetic -->" in paragraph:
        return []
    rest = RECORD_LINK.sub("", paragraph)
    return (PERCENT if SETS.search(rest) else DECIMALS).findall(rest)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_quoted_figures_are_those_of_the_records(path):
    assert [wrong for text in paragraphs(path) for link in RECORD_LINK.findall(text) if (wrong := misquoted(*link, path.parent))] == []


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_figure_stands_without_its_record(path):
    assert [(found, text[:200]) for text in paragraphs(path) if (found := unlinked(text))] == [], "link them to their record, or mark the paragraph <!-- arithmetic -->"


@pytest.mark.parametrize("words, dotted, said", [
    ("16.0 %", "metrics.eer", None),
    ("16.02 %", "metrics.eer", None),
    ("0.160", "metrics.eer", None),
    ("an EER of 16 per cent", "metrics.eer", None),
    ("12.7–19.4 %", "metrics.eer_ci", None),
    ("19.4 %", "metrics.eer_ci.1", None),
    ("12,650 trials", "metrics.trials", None),
    ("−0.5", "metrics.gain", None),
    ("`toy`", "", None),
    ("16.1 %", "metrics.eer", "says 16.1"),
    ("15.9 %", "metrics.eer", "says 15.9"),
    ("16.0", "metrics.eer", "says 16.0"),
    ("1.6 %", "metrics.eer", "says 1.6"),
    ("0.5", "metrics.gain", "says 0.5"),
    ("12.7–19.9 %", "metrics.eer_ci", "says 19.9"),
    ("16.0 %", "metrics.eer_ci", "must hold 2"),
    ("about a sixth", "metrics.eer", "must hold 1"),
    ("16.0 %", "metrics.err", "has no metrics.err"),
    ("16.0 %", "metrics.eer.0", "has no metrics.eer.0"),
    ("16.0 %", "", "no path"),
    ("3", "metrics.name", "not a number"),
])
def test_a_stale_figure_is_caught(words, dotted, said, tmp_path):
    metrics = {"eer": 0.16023715, "eer_ci": [0.12726, 0.19380], "trials": 12650, "gain": -0.5, "name": "three"}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "toy.json").write_text(json.dumps({"metrics": metrics}))
    [link] = RECORD_LINK.findall(f'it is [{words}](results/toy.json "{dotted}"), so' if dotted else f"it is [{words}](results/toy.json), so")
    found = misquoted(*link, tmp_path)
    assert found is None if said is None else said in found, found
    assert "there is no" in misquoted(words, "results/gone.json", dotted, tmp_path)


@pytest.mark.parametrize("paragraph, found", [
    ("On CEDAR 16 % of them pass.", ["16 %"]),
    ("On CEDAR from 22 to 30 % of them pass.", ["30 %"]),
    ("It errs in 16.0 % of all trials.", ["16.0 %"]),
    ("It errs in 12.5 per cent of all trials.", ["12.5 per cent"]),
    ("At a FAR of 0.1 %, of 0.01 % and of 20 % the FRR is unknown.", []),
    ("At a FAR of 10.1 % it is.", ["10.1 %"]),
    ("On CEDAR, with 95 % intervals.", []),
    ('On CEDAR [16.0 %](../benchmarks/results/a.json "metrics.eer") of them pass.', []),
    ("One in eight, 12.5 %. <!-- arithmetic -->", []),
])
def test_a_figure_without_a_record_is_caught(paragraph, found):
    assert unlinked(paragraph) == found
