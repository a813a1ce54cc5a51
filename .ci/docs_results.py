"""Pages made from the records in benchmarks/results/: what the kit's own functions say about them. No figure is written by hand."""
import html
import json
import re
import shutil
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from signver_kit import benchmark, compare, metrics, plots

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "benchmarks" / "results"


def table(head, rows, caption=""):
    """An HTML table in a box that scrolls; rows: lists of HTML, or (id, list)."""
    def line(row):
        name, cells = row if isinstance(row, tuple) else ("", row)
        return f"<tr{f' id={chr(34)}{name}{chr(34)}' if name else ''}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    heads = "".join(f"<th scope='col'>{html.escape(one)}</th>" for one in head)
    return f"<div class='scroll' tabindex='0' role='region' aria-label='{html.escape(caption or 'table', quote=True)}'><table><thead><tr>{heads}</tr></thead><tbody>{''.join(map(line, rows))}</tbody></table></div>"


def flat(values, prefix=""):
    """Nested values as (dotted path, value)."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def short(value, most=300):
    text = compare.compact(value) if isinstance(value, (list, tuple)) else str(value)
    return html.escape(text if len(text) <= most else text[:most] + " …")


# ---- a record's page ----

def curves_picture(record, path):
    """Draws the curves of a record that the kit has a picture for; the picture's text, or None."""
    named = {name: curve for name, curve in record.curves.items() if isinstance(curve, dict)}
    det = {name: curve for name, curve in named.items() if name.startswith("det_")}
    if det:
        figure, axes = plt.subplots(1, 2, figsize=(9.6, 6))
        figure.subplots_adjust(left=0.07, right=0.98, top=0.95, bottom=0.3)      # the legends stand below
        for ax, kind in zip(axes, ("skilled", "random")):
            for name, curve in det.items():
                references = re.fullmatch(rf"det_(wi\d+)_{kind}", name)
                if references and curve.get("far"):
                    far, frr = (metrics.normal_deviate(curve[side], record.metrics[f"trials_{what}"]) for side, what in (("far", kind), ("frr", "genuine")))
                    plots.DetDisplay(far, frr, eer=record.metrics[f"{references[1]}_{kind}_eer"], name=references[1].replace("wi", "WI-")).plot(ax)
            ax.set_title(f"{kind} forgeries")
        words = "DET curves: false rejections against false acceptances, on the left for skilled forgeries, on the right for random ones; a line for each number of references"
    elif "froc" in named:
        figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
        ax.plot(named["froc"]["false_per_page"], [100 * one for one in named["froc"]["recall"]])
        ax.grid(alpha=0.3)
        ax.set(xlim=(0, None), xlabel="false boxes a page", ylabel="found (%)", ylim=(0, 102))
        words = "FROC curve: the share of the labelled things that is found, against the number of false boxes on a page"
    elif any(compare.is_time_curve(curve) or "minutes" in curve for curve in named.values()):
        figure, ax = plt.subplots(figsize=(9, 4.4), layout="constrained")
        for name, curve in named.items():
            for column, style in (("global", "--"), ("fused", "-")):
                if column in curve:
                    pairs = [(x, 100 * y) for x, y in zip(curve["minutes"], curve[column]) if y is not None]
                    ax.plot(*zip(*pairs), style, marker="o", markersize=3, color=f"C{list(named).index(name)}", label=f"{name.replace('_', ' ')}, {column}")
        ax.set(xlabel="minutes of training", ylabel="EER (%)", ylim=(0, None))
        ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        words = "Equal error rate over minutes of training, two lines for each recipe: the network alone (global) and with places (fused)"
    else:
        return None
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return words


def rows_of(values, prefix=""):
    """Table rows with an anchor each."""
    return [(prefix + name, [f"<code>{html.escape(name)}</code>", html.escape(value).replace(" %", "\u00a0%"), html.escape(interval).replace(" %", "\u00a0%")]) for name, value, interval in benchmark.format_rows(values)]


def record_page(path, folder):
    record = benchmark.read_record(path)
    about = [("benchmark", f"<a href='../benchmarks/{record.benchmark}.html'>{record.benchmark}</a>"), ("started", short(record.started)), ("took", benchmark.format_seconds(record.seconds or 0))]
    about += [(name.replace("_", " "), short(value)) for name, value in record.environment.items() if value is not None]
    about += [(f"data: {name.replace('_', ' ')}", short(value)) for name, value in flat(record.data) if name != "split"]
    parts = [f"# {path.stem}", f"A record of the benchmark [{record.benchmark}](../benchmarks/{record.benchmark}.ipynb), as the run left it: <a href='{path.name}'>{path.name}</a>."]
    if record.error:
        parts.append(f"<p class='warn'><strong>These figures are not to be quoted.</strong> {html.escape(str(record.error))}</p>")
    picture = curves_picture(record, folder / f"{path.stem}.png")
    if picture:
        parts += ["## Curves", f"![{picture}]({path.stem}.png)"]
    parts += ["## Figures", table(["metric", "value", "95 % interval"], rows_of(record.metrics, "metrics-"), "metrics")]
    plain = {name for name, *_ in benchmark.format_rows(record.metrics)}
    others = [(f"metrics-{name}".replace(".", "-"), [f"<code>{html.escape(name)}</code>", short(value), ""]) for name, value in flat(record.metrics)
              if name not in plain and not (name.endswith("_ci") and name[:-3] in plain)]
    if others:
        parts.append(f"<details><summary>Figures that are lists</summary>{table(['metric', 'value', ''], others, 'lists')}</details>")
    if record.probes:
        parts += ["## Probes", "What should find nothing if it is the hand that is measured.", table(["probe", "value", "95 % interval"], rows_of(record.probes, "probes-"), "probes")]
    parts += ["## Where it was measured, and on what", table(["", ""], [[html.escape(name), value] for name, value in about], "circumstances")]
    asked = [[f"<code>{html.escape(name)}</code>", short(value)] for name, value in record.parameters.items() if value is not None]
    parts += ["## Parameters", table(["parameter", "value"], asked, "parameters")]
    return "\n\n".join(parts) + "\n"


# ---- all of them ----

def headline(row, most=4):
    """The first figures of a record that the comparison shows, as text."""
    names = list(dict.fromkeys(name for what in ("accuracy", "time", "throughput") if compare.in_panel(row, what) for name in compare.panel_metrics(row, what) if compare.is_number(row["metrics"][name])))
    return "; ".join(f"{html.escape(compare.label_of(name))} <b>{compare.show(name, row['metrics'][name])}</b>" for name in names[:most])


def index_page(records):
    parts = ["# Results", "Each run of a benchmark leaves a record: what was measured, on which data, on which machine, with which parameters. These are the records that the repository keeps "
             "(in `benchmarks/results/`, and beside each page); every figure on these pages was read from them when the site was built, by the functions of the kit. "
             "Figures that are comparable stand [side by side](comparison.md)."]
    for name, some in records.groupby("benchmark", sort=False):
        rows = [[f"<a href='{row['name']}.html'>{html.escape(row['name'])}</a>", short(row["data"] or ""), html.escape(" + ".join(row["trained_on"]) if isinstance(row["trained_on"], list) else ""),
                 headline(row), "" if row["state"] == "measured" else f"<strong>{html.escape(row['state'])}</strong>"] for _, row in some.iterrows()]
        parts += [f"## {name.replace('_', ' ').capitalize()}", f"{benchmark.benchmark_summary(name)} ([the notebook](../benchmarks/{name}.ipynb))",
                  table(["record", "data", "trained on", "figures", ""], rows, f"records of {name}")]
    return "\n\n".join(parts) + "\n\n```{toctree}\n:hidden:\n\ncomparison\n" + "\n".join(records["name"]) + "\n```\n"


def comparison_page(records, folder):
    parts = ["# Side by side", "Figures stand in one group only if benchmark, data, input, size and protocol agree (for speed: every parameter that matters). Empty columns are hardware that nobody has "
             "measured; below each table stands the command that would. Intervals are 95 %. `signver bench compare` makes such a page of any records."]
    for what, (title, *_) in compare.PANELS.items():
        cells = compare.measured_cells(records, what)
        if not len(cells):
            continue
        pictures = {what: compare.plot_comparison(cells, title), f"{what}-curves": compare.plot_time_curves(records) if what == "time" else None}
        parts.append(f"## {title}")
        for name, figure in pictures.items():
            if figure is not None:
                figure.savefig(folder / f"comparison-{name}.png", dpi=110)
                parts.append(f"![{title}, a panel for each group of comparable records; the tables below hold the same figures](comparison-{name}.png)")
        parts.append(compare.html_groups(compare.compare_table(records, what)))
    parts += ["## Not compared", compare.html_frame(compare.left_out(records)), "## Published by others",
              "Nothing below was measured with this kit. Other networks, pictures, splits and ways of measuring: these figures are for orientation, and are never mixed with the ones above.",
              compare.html_frame(compare.read_published(ROOT / "benchmarks" / "published.csv")),
              compare.html_frame(compare.vendor_table(compare.read_published(ROOT / "benchmarks" / "published_hardware.csv")))]
    return "\n\n".join(parts) + "\n"


def write_pages(folder):
    """The pages of all records into `folder`; the records themselves into folder/extra/results, to be copied beside the pages."""
    extra = folder / "extra" / "results"
    extra.mkdir(parents=True)
    paths = sorted(RECORDS.glob("*.json"))
    for path in paths:
        (folder / f"{path.stem}.md").write_text(record_page(path, folder), encoding="utf-8")
        shutil.copy(path, extra)
    records = compare.read_records(paths, strict=True)
    first = {name: number for number, name in enumerate(("verification", "cleaning", "detection"))}
    records = records.iloc[sorted(range(len(records)), key=lambda row: (first.get(records["benchmark"].iloc[row], 9), records["name"].iloc[row].startswith("ablation")))].reset_index(drop=True)
    (folder / "index.md").write_text(index_page(records), encoding="utf-8")
    (folder / "comparison.md").write_text(comparison_page(records, folder), encoding="utf-8")
