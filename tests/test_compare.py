"Records side by side: what is read, what may be compared, what an empty column says, and one HTML file that fetches nothing."
import json
import math
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signver_kit import compare
from signver_kit.benchmark import Record, run_benchmark
from signver_kit.compare import (
    DEVICES, PANELS, Commands, compare_table, costs_of, describe_settings, interactive_comparison, label_of, left_out, measured_cells, plot_comparison, plot_time_curves,
    read_published, read_records, record_files, setting_of, show, write_comparison,
)

SPEED = {"job": "extractor", "input_size": [150, 220], "batch": 32}


def write(folder, name, benchmark="throughput", device="cpu", metrics=None, parameters=None, sha="aa", **more):
    "A record on disk, in a folder of its own."
    environment = {"device": device, "device_name": f"some {device}", "cores": 2, "backend": more.pop("backend", "tensorflow"), "precision": "float32"}
    data = {"name": "toys", "sha256": sha, **more.pop("data", {})}
    record = Record(benchmark, more.pop("started", "2026-01-31T10:15:00+00:00"), 1.0, environment, data, SPEED if parameters is None else parameters,
                    {"images_per_second": 60.0} if metrics is None else metrics, **more)
    return record.write(folder / name)


@pytest.fixture
def machines(tmp_path):
    "One job on two devices."
    write(tmp_path, "slow")
    write(tmp_path, "fast", device="gpu", metrics={"images_per_second": 2400.0, "step_ms_p50": 13.0})
    return tmp_path


# ---- reading ----

def test_a_record_is_a_row(machines):
    table = read_records(machines).set_index("name")
    assert list(table.index) == ["fast", "slow"]
    row = table.loc["fast"]
    assert (row["state"], row["device"], row["size"], row["batch"], row["images_per_second"]) == ("measured", "gpu", "150×220", 32, 2400.0)
    assert math.isnan(table.loc["slow", "step_ms_p50"])


def test_files_folders_and_runs_are_found_once(machines):
    flat = machines / "flat.json"
    flat.write_text((machines / "slow" / "record.json").read_text())
    assert len(record_files([machines, machines / "slow", flat, str(flat)])) == 3
    assert record_files(machines / "slow") == [machines / "slow" / "record.json"]


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_records(tmp_path / "nowhere")


@pytest.mark.parametrize("content, state, said", [
    ('{"schema": 1,', "unreadable", "not valid JSON"),
    ("[1, 2]", "unreadable", "no benchmark record"),
    ('{"a": 1}', "unreadable", "lacks schema"),
    ('{"schema": 2, "benchmark": "verification"}', "refused", "schema 2"),
    ('{"schema": "1.0"}', "refused", "schema '1.0'"),
    ("[" * 100_000, "unreadable", "odd.json"),
    (b"\xff\xfe\x00", "unreadable", "odd.json"),
])
def test_bad_input_is_a_row_that_says_so(machines, content, state, said):
    odd = machines / "odd.json"
    odd.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = read_records(machines)
    row = table[table["name"] == "odd"].iloc[0]
    assert len(table) == 3 and row["state"] == state and "odd.json" in row["error"] and said in row["error"]
    assert "odd.json" in left_out(table)["file"].iloc[0] and len(compare_table(table, "throughput")) > 1
    with pytest.raises(ValueError, match="odd.json"):
        read_records(machines, strict=True)


@pytest.mark.parametrize("error, state", [("failed: out of memory", "failed"), ("interrupted", "interrupted"), ("the background leaks", "not to be quoted")])
def test_figures_of_a_bad_end_are_not_compared(tmp_path, error, state):
    write(tmp_path, "bad", metrics={"images_per_second": 1e9}, error=error)
    table = read_records(tmp_path)
    assert table["state"].tolist() == [state] and left_out(table)["why"].tolist() == [error]
    assert compare_table(table, "throughput")["cpu"].isna().all()


def test_metrics_named_like_circumstances_are_kept(tmp_path):
    write(tmp_path, "run", metrics={"batch": 7, "cores": 3, "images_per_second": 1.0, "note": "text", "flag": True})
    row = read_records(tmp_path).iloc[0]
    assert (row["batch"], row["metric.batch"], row["metric.cores"], row["cores"]) == (32, 7, 3, 2)
    assert "note" not in row and "flag" not in row


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from(["device", "cores", "device_name", "backend", "cards", "precision"]), st.none() | st.integers() | st.text() | st.lists(st.integers())),
       st.dictionaries(st.text(max_size=20) | st.sampled_from(["images_per_second", "minutes_to_eer_25", "wi1_skilled_eer", "wi1_skilled_eer_ci"]),
                       st.none() | st.floats(allow_nan=False) | st.text() | st.lists(st.floats(allow_nan=False), max_size=3)))
def test_strange_records_are_read_and_compared(tmp_path_factory, environment, metrics):
    folder = tmp_path_factory.mktemp("strange")
    (folder / "strange.json").write_text(json.dumps({**Record("throughput", parameters={"job": "extractor"}).to_dict(), "environment": environment, "metrics": metrics}))
    table = read_records(folder)
    assert len(table) == 1
    for what in PANELS:
        found = compare_table(table, what, {"cpu": 1.0}, folder)
        assert set(DEVICES) <= set(found.columns) and len(found)


# ---- what may be compared ----

def test_devices_stand_side_by_side(machines):
    line = compare_table(read_records(machines), "throughput").iloc[0]
    assert (line["row"], line["cpu"], line["gpu"]) == ("fast, slow", 60.0, 2400.0) and math.isnan(line["hpu"])
    assert line["cpu_from"] == "some cpu · 2 cores · tensorflow · float32"
    assert line["hpu_fill"].startswith("on a machine with a Gaudi card: signver bench throughput") and "device=hpu" in line["hpu_fill"]
    assert line["cpu_fill"] == line["gpu_fill"] == ""


@pytest.mark.parametrize("other", [
    {"parameters": {**SPEED, "batch": 64}}, {"parameters": {**SPEED, "input_size": [224, 224]}}, {"parameters": {**SPEED, "job": "cleaner"}},
    {"parameters": {**SPEED, "never_heard_of": 1}}, {"sha": "bb"}, {"data": {"name": "dolls"}}, {"benchmark": "inference"}, {"parameters": {**SPEED, "cards": 8}},
])
def test_what_differs_stands_apart(machines, other):
    write(machines, "other", device="hpu", **other)
    table = compare_table(read_records(machines), "throughput")
    filled = table[table["metric"] == "images_per_second"].dropna(subset=["cpu", "gpu", "hpu"], how="all")
    assert filled["group"].nunique() == 2
    assert filled[["cpu", "hpu"]].notna().sum(axis=1).max() == 1
    assert filled["about"].is_unique


@pytest.mark.parametrize("harmless", [{"out_dir": "x"}, {"device": "hpu"}, {"precision": "bfloat16"}, {"steps": 99}, {"price_per_hour": 3}, {"seed": 1}, {"absent": None}])
def test_what_is_harmless_does_not_separate(machines, harmless):
    write(machines, "other", device="hpu", parameters={**SPEED, **harmless})
    line = compare_table(read_records(machines), "throughput").iloc[0]
    assert line[list(DEVICES)].notna().all()


def test_of_several_set_ups_the_fastest_of_one_set_up_the_newest(machines):
    write(machines, "again", metrics={"images_per_second": 50.0}, started="2026-02-01T00:00:00+00:00")
    write(machines, "torch", device="gpu", backend="torch", metrics={"images_per_second": 3000.0})
    line = compare_table(read_records(machines), "throughput").iloc[0]
    assert (line["cpu"], line["cpu_runs"]) == (50.0, 2)
    assert line["gpu"] == 3000.0 and "torch" in line["gpu_from"]


def test_a_repeated_accuracy_is_no_second_chance(tmp_path):
    for day, eer in ((1, 0.10), (2, 0.20)):
        write(tmp_path, f"day{day}", "verification", metrics={"wi1_skilled_eer": eer}, parameters={"input": "masked"}, started=f"2026-02-0{day}T00:00:00+00:00")
    line = compare_table(read_records(tmp_path), "accuracy").iloc[0]
    assert line["cpu"] == 0.20 and line["row"] == "day1"


def test_accuracy_is_grouped_by_protocol_and_lists_recipes(tmp_path):
    base = {"input": "masked", "input_size": [96, 144], "draws": 10, "references": [1, 10]}
    signers = {"split": [{"train": ["1"], "test": ["2", "3"]}, {"train": ["2"], "test": ["1"]}]}
    runs = {"one": base, "other_recipe": {**base, "loss": "triplet"}, "more_references": {**base, "references": [1, 3, 10]}, "raw": {**base, "input": "raw"},
            "small": {**base, "input_size": [64, 96]}, "fast": {**base, "fast": True}}
    for name, parameters in runs.items():
        write(tmp_path, name, "verification", metrics={"wi1_skilled_eer": 0.2, "wi1_skilled_eer_ci": [0.1, 0.3]}, parameters=parameters, data=signers)
    write(tmp_path, "fewer", "verification", metrics={"wi1_skilled_eer": 0.2}, parameters=base, data={"split": {"test": ["1", "2"]}})
    table = compare_table(read_records(tmp_path), "accuracy")
    groups = {frozenset(some["row"]) for _, some in table.groupby("group")}
    # other references leave WI-1 what it was: a repetition of the recipe, under the name of the first
    assert groups == {frozenset({"more_references", "other_recipe"}), frozenset({"raw"}), frozenset({"small"}), frozenset({"fast"}), frozenset({"fewer"})}
    one = table[table["row"] == "more_references"].iloc[0]
    assert one["cpu_runs"] == 2 and (one["cpu_low"], one["cpu_high"]) == (0.1, 0.3) and one["about"].startswith("verification · toys · 3 signers")


def test_one_recipe_on_two_devices_is_one_row(tmp_path):
    for device in ("cpu", "hpu"):
        write(tmp_path, f"run-{device}", "verification", device, {"wi1_skilled_eer": 0.2}, {"input": "masked", "loss": "supcon", "device": device})
    table = compare_table(read_records(tmp_path), "accuracy")
    assert table["row"].tolist() == ["run"] and table[["cpu", "hpu"]].notna().all(axis=None)


def test_throughput_in_passing_is_not_compared(tmp_path):
    write(tmp_path, "training", "verification", metrics={"images_per_second": 700.0}, parameters={})
    write(tmp_path, "asked", "cleaning", metrics={"pairs_per_second": 300.0}, parameters={"speed": True})
    table = compare_table(read_records(tmp_path), "throughput")
    assert table.dropna(subset=["cpu"])["metric"].tolist() == ["pairs_per_second"]


def test_a_failed_configuration_is_a_cell_with_its_error(machines):
    write(machines, "full", device="hpu", metrics={}, error="failed: out of memory")
    line = compare_table(read_records(machines), "throughput").iloc[0]
    assert compare_table(read_records(machines), "time")["group"].eq("M–").all()
    assert math.isnan(line["hpu"]) and line["hpu_note"] == "failed: out of memory" and line["hpu_fill"] == ""


def test_unknown_question(machines):
    with pytest.raises(ValueError, match="throughput, time, accuracy, cost"):
        compare_table(read_records(machines), "speed")


@given(st.lists(st.dictionaries(st.sampled_from(["benchmark", "job", "data", "batch", "odd", "window"]), st.integers(0, 2), min_size=1), min_size=1, max_size=6, unique_by=str))
def test_groups_that_differ_read_differently(made):
    made = [{"benchmark": "b", **one} for one in made]
    unique = [one for number, one in enumerate(made) if one not in made[:number]]
    assert len(set(describe_settings(unique))) == len(unique)


# ---- time, cost, holes ----

def test_time_to_accuracy(tmp_path):
    metrics = {"minutes_to_eer_25": 3.0, "minutes_to_eer_20": 6.0, "minutes_to_eer_15": None, "plain_minutes_to_eer_25": 7.0}
    curve = {"best": {"minutes": [0, 1, 2], "eer": [0.5, 0.3, 0.2]}, "det": {"far": [0], "frr": [1]}}
    write(tmp_path, "run", "time_to_accuracy", metrics=metrics, parameters={"input": "masked"}, curves=curve)
    records = read_records(tmp_path)
    table = compare_table(records, "time", directory=tmp_path)
    found = {(line["row"], line["metric"]): (line["cpu"], line["cpu_note"]) for _, line in table.iterrows()}
    assert found[("run", "minutes_to_eer_25")] == (3.0, "") and found[("run plain", "minutes_to_eer_25")] == (7.0, "")
    assert math.isnan(found[("run", "minutes_to_eer_15")][0]) and found[("run", "minutes_to_eer_15")][1] == "not reached"
    assert table["group"].nunique() == 1 and list(records["curves"][0]) == ["best"]
    assert len(plot_time_curves(records).axes[0].lines) == 4      # the curve and three targets
    costs = compare_table(records, "cost", {"cpu": 0.5})
    found = costs.set_index(["row", "metric"])["cpu"]
    assert found[("run", "cost_to_eer_20")] == pytest.approx(0.05)
    assert (found[("run", "cost_to_eer_25")], found[("run plain", "cost_to_eer_25")]) == (pytest.approx(0.025), pytest.approx(0.5 * 7 / 60))


def test_costs_until_an_error_rate_are_grouped_like_the_times(tmp_path):
    for loss in ("supcon", "triplet"):
        write(tmp_path, loss, "time_to_accuracy", metrics={"minutes_to_eer_25": 3.0}, parameters={"input": "masked", "loss": loss})
    records = read_records(tmp_path)
    for what in ("time", "cost"):
        found = compare_table(records, what, {"cpu": 1.0} if what == "cost" else None).dropna(subset=["cpu"])
        assert found["row"].tolist() == ["supcon", "triplet"] and found["group"].nunique() == 1


def test_cost_needs_a_price(machines):
    records = read_records(machines)
    assert compare_table(records, "cost")[list(DEVICES)].isna().all(axis=None)
    table = compare_table(records, "cost", {"cpu": 0.36, "gpu": 3.6})
    assert table.iloc[0]["cpu"] == pytest.approx(0.36 / 3600 * 1e6 / 60) and table.iloc[0]["gpu"] == pytest.approx(1e3 / 2400)
    priced = pd.Series({**records.iloc[0], "price_per_hour": 1.0})
    assert costs_of(priced)["cost_per_million_images"] == 2 * costs_of(priced, {priced["device"]: 0.5})["cost_per_million_images"]


@pytest.mark.parametrize("prices", [{"tpu": 1.0}, {"gpu": "2"}, {"gpu": -1.0}, {"gpu": math.nan}])
def test_bad_prices(machines, prices):
    with pytest.raises(ValueError, match="prices are given as"):
        compare_table(read_records(machines), "cost", prices)


@pytest.mark.parametrize("what", PANELS)
def test_nothing_measured_still_has_every_column_and_says_what_to_do(tmp_path, what):
    table = compare_table(read_records(tmp_path), what)
    assert len(table) and table[list(DEVICES)].isna().all(axis=None)
    for device in DEVICES:
        assert table[f"{device}_fill"].str.contains("signver bench ").all()
    cells = measured_cells(read_records(tmp_path), what)
    assert len(plot_comparison(cells, "nothing").axes) == 1 and len(interactive_comparison(cells, "nothing").data) == 0


def test_the_command_repeats_the_run(tmp_path):
    notebook = {"cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "dataset = 'synthetic'\nsize = 3\nloss = 'a'\ndata_dir = None\ndevice = None"}]}
    (tmp_path / "toy.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "presets" / "toy").mkdir(parents=True)
    (tmp_path / "presets" / "toy" / "large.json").write_text('{"size": 9, "dataset": "cedar"}')
    made = Commands(tmp_path)("toy", {"dataset": "cedar", "size": 9, "loss": "b c", "device": "cpu", "weights_sha256": "x"}, "gpu")
    assert made == "signver bench toy --preset large -p 'loss=b c' -p device=gpu --data DIR"
    assert Commands(tmp_path)("toy", {"dataset": "synthetic", "size": 3}, "hpu") == "signver bench toy -p device=hpu"


@pytest.mark.parametrize("metric, value, label, text", [
    ("images_per_second", 2400.0, "images per second (images/s)", "2,400"), ("minutes_to_eer_25", 3.21, "time until EER 25 % (min)", "3.21"),
    ("wi1_skilled_eer", 0.2134, "WI-1 skilled EER (%)", "21.3"), ("psnr", 25.49, "PSNR (dB)", "25.5"), ("peak_share", 0.5, "peak share (%)", "50.0"), ("map50", math.nan, "mAP@0.5 (%)", "–"),
])
def test_words_and_units(metric, value, label, text):
    assert (label_of(metric), show(metric, value)) == (label, text)


# ---- pictures and the page ----

def test_no_two_groups_share_axes(machines):
    write(machines, "big", device="gpu", parameters={**SPEED, "batch": 256}, metrics={"images_per_second": 3900.0})
    cells = measured_cells(read_records(machines), "throughput")
    figure = plot_comparison(cells, "Speed")
    assert [len(ax.patches) for ax in figure.axes] == [2, 1] and all("images/s" in ax.get_xlabel() for ax in figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cpu", "gpu", "hpu (no record)"]
    shown = interactive_comparison(cells, "Speed")
    assert sum(bool(trace.visible) for trace in shown.data) == len(DEVICES)
    assert len(shown.layout.updatemenus[0].buttons) == 3 and {trace.name for trace in shown.data} == {"cpu", "gpu", "hpu (no record)"}


class Page(HTMLParser):
    "Everything that a page would fetch, its tags, and its text outside of scripts."

    def __init__(self, text):
        super().__init__()
        self.fetched, self.tags, self.words, self.inside = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = tag
        self.fetched += [value for name, value in attributes if name in ("src", "href", "data", "srcset") and tag != "a" and not value.startswith("data:")]

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.words.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    "The page of one set of records, made once: (path, text, Page)."
    folder = tmp_path_factory.mktemp("page")
    write(folder, "slow")
    write(folder, "<script>alert(1)</script>".replace("/", "_"), device="gpu", metrics={"images_per_second": 2400.0}, parameters={**SPEED, "note": "</script><b>bold"})
    write(folder, "leak", "verification", metrics={"wi1_skilled_eer": 0.001}, parameters={"input": "raw"}, error="the <i>scanner</i> tells")
    (folder / "broken.json").write_text("{")
    (folder / "later.json").write_text('{"schema": 9}')
    (folder / "cards.csv").write_text("hardware,cards,metric,value,precision,task,source,url\nNew card,8,images_per_second,4321,mixed,ResNet-50,a page,https://example.org/x\n")
    out = write_comparison(folder, folder / "new" / "all.html", "Mine & <theirs>", hardware=folder / "cards.csv", prices={"cpu": 1})
    text = out.read_text()
    return out, text, Page(text)


def test_the_page_is_one_file_that_fetches_nothing(page):
    path, text, parsed = page
    assert path.name == "all.html" and [one.name for one in path.parent.iterdir()] == ["all.html"]
    assert parsed.fetched == [] and "link" not in parsed.tags and "iframe" not in parsed.tags
    assert not re.search(r"@import|url\(", re.search(r"<style>(.*?)</style>", text, re.S)[1])
    assert text.count("plotly.js v") == 1 and text.count("Plotly.newPlot(") >= 2 and len(text) < 8_000_000


def test_the_page_says_what_is_missing_and_what_is_wrong(page):
    words = " ".join(page[2].words)
    assert "5 records" in words and "not measured" in words and "signver bench throughput" in words
    for said in ("broken.json", "schema 9", "the <i>scanner</i> tells", "Mine & <theirs>", "New card ×8", "4,321 images/s", "Dey et al. 2017"):
        assert said in words
    assert page[2].tags.count("script") == 1 + page[1].count("Plotly.newPlot(") - page[1].count('"Plotly.newPlot("') and "i" not in page[2].tags


def test_published_figures_are_in_no_measured_panel(page):
    before, after = page[1].split("Published by others")
    assert "4,321" not in before.partition("</script>")[2] and "4,321" in after


def test_published_tables(tmp_path):
    assert read_published(tmp_path / "none.csv").empty
    (tmp_path / "a.csv").write_text("value,source\n1,a page\n2, \n")
    with pytest.raises(ValueError, match=r"a.csv, lines \[3\].*needs a source"):
        read_published(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="lacks the columns url"):
        read_published(tmp_path / "a.csv", ("source", "url"))


def test_every_published_figure_of_hardware_has_its_page():
    table = read_published(compare.benchmarks_directory() / "published_hardware.csv", ("hardware", "cards", "task", "metric", "value", "precision", "source", "url"))
    assert len(table) and table["url"].str.startswith("https://").all() and table["precision"].str.len().gt(0).all()
    assert table["value"].astype(float).gt(0).all() and not table.duplicated(["hardware", "cards", "metric"]).any()


def test_the_notebook(tmp_path, in_this_process):
    write(tmp_path, "slow")
    (tmp_path / "broken.json").write_text("{")
    result = run_benchmark("compare", None, {"records": [str(tmp_path)], "title": "T"}, out=tmp_path / "out", progress=False)
    metrics = result.record.metrics
    assert result.exit_code == 0 and (metrics["records"], metrics["measured"], metrics["unreadable"]) == (2, 1, 1)
    assert (metrics["cells_filled_cpu"], metrics["cells_filled_gpu"], metrics["cells_filled_hpu"]) == (1, 0, 0)
    assert metrics["html_bytes"] == (tmp_path / "out" / "comparison.html").stat().st_size
    assert {"throughput.png", "time.png", "accuracy.png", "cost.png"} <= {path.name for path in result.figures}
