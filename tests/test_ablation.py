"""The ablation notebook, run as a user runs it, on made-up records: what differs decides where a record stands."""
import re

import nbformat
import pytest

from signver_kit.benchmark import (BenchmarkFailed, Record, benchmark_path, list_presets, load_preset, merge_parameters, notebook_parameters, read_record,
                                   run_benchmark)

from conftest import ROOT

BASE = load_preset("verification", "ablation_base")
DEFAULTS = notebook_parameters(benchmark_path("verification"))


def figures(prefix, skilled, width=0.03, ks=(1, 3, 5, 10)):
    found = {}
    for k in ks:
        for kind, value in (("skilled", skilled - 0.01 * ks.index(k)), ("random", skilled / 5)):
            found |= {f"{prefix}wi{k}_{kind}_eer": value, f"{prefix}wi{k}_{kind}_eer_ci": [value - width, value + width]}
    return found


def made_up(folder, name, skilled=0.25, error=None, metrics=None, probes=None, data=None, environment=None, **changes):
    """A verification record in `folder`: the base recipe with `changes`."""
    record = Record("verification", started=changes.pop("started", "2026-01-01T00:00:00+00:00"), seconds=60.0, environment=environment or {"git": "abc1234"},
                    data={"name": "cedar", "signers": 55, "images": 2640, "sha256": "5" * 64} | (data or {}), parameters=DEFAULTS | BASE | changes,
                    metrics=figures("global_", skilled) | figures("", skilled - 0.05) if metrics is None else metrics, probes=probes or {"background_auc": 0.5}, error=error)
    record.write(folder / "writing")
    (folder / "writing" / "record.json").rename(folder / f"{name}.json")
    (folder / "writing").rmdir()


def run(records, out, **parameters):
    return run_benchmark("ablation", parameters={"records_dir": str(records), **parameters}, out=out, progress=False)


def shown(result):
    """All markdown outputs of an executed notebook."""
    cells = nbformat.read(result.notebook, as_version=4).cells
    return "\n".join(output.data["text/markdown"] for cell in cells for output in cell.get("outputs", []) if "text/markdown" in output.get("data", {}))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Records of all sorts, under names that say nothing, and the run that reads them."""
    folder = tmp_path_factory.mktemp("records")
    made_up(folder, "a", metrics=figures("global_", 0.25) | figures("local_", 0.24) | figures("fused_", 0.20) | figures("hog_", 0.26) | figures("", 0.20))
    made_up(folder, "b", 0.27, input="masked")
    made_up(folder, "c", 0.12, loss="circle", loss_options={"margin": 0.4, "scale": 80.0})
    made_up(folder, "d", 0.45, loss="contrastive", loss_options={"margin": 1.0})
    made_up(folder, "e", 0.26, forgeries_per_signer=0, signers_per_batch=19)
    made_up(folder, "f", 0.26, backbone="resnet34", width=12)
    made_up(folder, "g", 0.28, backbone="signet", error="failed at In [9]: ValueError: too small", metrics={})
    made_up(folder, "h", 0.29, extra_signers=50)
    made_up(folder, "i", 0.255, seed=43)
    made_up(folder, "j", 0.23, dropout=0.5)
    made_up(folder, "k", 0.22, dropout=0.5, head="average")
    made_up(folder, "l", 0.26, input_size=[64, 96])
    made_up(folder, "m", 0.03, input="raw", train_on="folds", extra_signers=0, error="background_auc is 1.000, not 0.5", probes={"background_auc": 1.0, "questioned_only_auc": 1.0})
    made_up(folder, "n", 0.05, head="average", data={"sha256": "6" * 64})
    made_up(folder, "o", 0.25, train_on="folds", extra_signers=0, validation_signers=7)
    made_up(folder, "q", 0.25, loss="arcface", error="label_shuffle_eer is 0.300, not 0.5")
    Record("realism", metrics={"ks_mean": 0.1}).write(folder / "elsewhere")
    (folder / "broken.json").write_text("{")
    return run(folder, tmp_path_factory.mktemp("run") / "full")


def by_file(result):
    return {entry["file"]: entry for entry in result.record.data["records"]}


def test_what_differs_decides_not_the_name(full):
    places = {file: entry["question"] for file, entry in by_file(full).items()}
    assert places == {"a.json": "base", "b.json": "input", "c.json": "loss", "d.json": "loss", "e.json": "forgeries", "f.json": "network", "g.json": "network", "h.json": "signers",
                      "i.json": "seed", "j.json": "dropout", "k.json": None, "l.json": "input_size", "m.json": None, "n.json": None, "o.json": "trained_on", "q.json": "loss"}
    assert by_file(full)["k.json"]["differs"] == ["dropout", "head"] and by_file(full)["n.json"]["differs"] == ["head", "images"]
    assert full.record.data["base"] == "a.json" and full.exit_code == 0


def test_differences_are_judged_by_their_intervals(full):
    verdicts = {(one["file"], one["kind"]): one for one in full.record.data["comparisons"]}
    circle, contrastive, masked = (verdicts[file, "skilled"] for file in ("c.json", "d.json", "b.json"))
    assert circle["verdict"] == "better" and circle["difference"] == pytest.approx(-0.13)
    assert contrastive["verdict"] == "worse" and masked["verdict"] == "undecided"
    assert circle["difference_ci"] == pytest.approx([-0.13 - 0.03 * 2 ** 0.5, -0.13 + 0.03 * 2 ** 0.5]), "square and add"
    assert full.record.metrics["comparisons"] == len(verdicts) and full.record.metrics["comparisons_supported"] == sum(one["verdict"] != "undecided" for one in verdicts.values())


def test_the_base_is_compared_by_the_score_asked_for(full):
    metrics = full.record.metrics
    assert metrics["best_wi1_skilled_eer"] == pytest.approx(0.12) and full.record.data["best"] == "c.json", "global, not the headline, and not the raw record"
    assert metrics["best_wi1_skilled_eer_ci"] == pytest.approx([0.09, 0.15])


def test_what_failed_is_named_and_never_a_figure(full):
    text = shown(full)
    compared = {one["file"] for one in full.record.data["comparisons"]}
    assert not compared & {"g.json", "m.json", "q.json"}
    assert "too small" in text and "label_shuffle_eer is 0.300" in text and "background_auc is 1.000" in text
    assert full.record.metrics["records_failed"] == 3 and full.record.metrics["records_unreadable"] == 1 and "broken.json" in full.record.data["unreadable"]


def test_pictures_and_open_questions(full):
    answered = full.record.data["answered"]
    assert not answered["cleaner"] and not answered["head"] and all(done for name, done in answered.items() if name not in ("cleaner", "head")), answered
    assert {path.stem for path in full.figures} == {"input", "forgeries", "network", "input_size", "loss", "signers", "trained_on", "seed", "dropout", "synthetic_signers", "references",
                                                    "compared", "trap", "differences"}
    text = shown(full)
    assert "cleaner=true" in text and "--preset ablation_average_head" in text and "--preset ablation_triplet" in text
    assert "--preset ablation_circle" not in text and "--preset ablation_masked " not in text, "their records are there"
    assert full.record.metrics["questions_answered"] == sum(answered.values()) == len(answered) - 2


def test_each_record_is_told_by_hash_and_commit(full):
    for entry in full.record.data["records"]:
        assert re.fullmatch("[0-9a-f]{64}", entry["sha256"]) and entry["git"] == "abc1234"


def test_smoke_reads_the_kept_records(tmp_path):
    result = run_benchmark("ablation", "smoke", out=tmp_path / "run", progress=False)
    record = read_record(result.record_path)
    kept = [path for path in (ROOT / "benchmarks" / "results").rglob("*.json") if read_record(path).benchmark == "verification"]
    assert record.error is None and record.metrics["records"] == len(kept) and record.parameters["base"] == "ablation_base"
    assert record.environment["python"] and not [cell for cell in nbformat.read(result.notebook, as_version=4).cells
                                                 for output in cell.get("outputs", []) if output.get("name") == "stderr"]


def test_no_records_is_not_an_error_and_says_what_to_run(tmp_path):
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / "empty", tmp_path / "run")
    assert result.record.metrics["records"] == result.record.metrics["questions_answered"] == 0 and not result.figures
    text = shown(result)
    for name in list_presets("verification"):
        if name.startswith("ablation_"):
            assert f"--preset {name} " in text, name
    assert "--preset cedar_raw" in text and "best_wi1_skilled_eer" not in result.record.metrics


def test_without_the_base_nothing_is_compared(tmp_path):
    """An older record: no parameter `score`, so its plain figures are the embedding's. The base broke off."""
    (tmp_path / "records").mkdir()
    made_up(tmp_path / "records", "old", input="masked", metrics=figures("", 0.3))
    old = (tmp_path / "records" / "old.json")
    old.write_text(re.sub(r'^ +"score": .*\n', "", old.read_text(), flags=re.M))
    made_up(tmp_path / "records", "ablation-base", error="interrupted", metrics={})
    result = run(tmp_path / "records", tmp_path / "run")
    assert result.record.data["base"] is None and result.record.data["comparisons"] == [] and result.record.data["answered"]["input"]
    assert result.record.metrics["best_wi1_skilled_eer"] == pytest.approx(0.3)
    assert "--preset ablation_base" in shown(result)


@pytest.mark.parametrize("parameters, said", [({"records_dir": "nowhere"}, "records_dir must be a folder"), ({"base": "ablation_bass"}, "did you mean 'ablation_base'")])
def test_what_is_asked_wrongly_is_refused(tmp_path, in_this_process, parameters, said):
    with pytest.raises(BenchmarkFailed, match=said):
        run_benchmark("ablation", parameters=parameters, out=tmp_path / "run", progress=False)


@pytest.mark.parametrize("name", [name for name in list_presets("verification") if name.startswith("ablation_")])
def test_each_preset_is_the_base_with_a_change(name):
    values = load_preset("verification", name)
    merge_parameters(DEFAULTS, values)
    changed = {key for key in BASE.keys() | values.keys() if BASE.get(key, DEFAULTS[key]) != values.get(key, DEFAULTS[key])}
    assert bool(changed) == (name != "ablation_base") and values["dataset"] == "cedar" and values["references"] == [1, 3, 5, 10]


@pytest.mark.parametrize("name", [name for name in list_presets("verification") if name.startswith("ablation_")])
def test_the_losses_of_the_presets_can_be_made(name):
    from signver_kit.losses import make_loss
    values = load_preset("verification", name)
    assert make_loss(values["loss"], **values["loss_options"])
