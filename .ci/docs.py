"""The site from what the repository holds: `python .ci/docs.py [OUTPUT]`, which `make docs` calls. Notebooks are shown as they are kept, nothing is run.

Gathers the pages in build/docs (those of docs/, the notebooks, lists of them, and the records as tables), lets Sphinx (docs/conf.py) make HTML of them and then
looks the HTML over (.ci/docs_check.py): no link that leads nowhere, nothing that is fetched from elsewhere, no picture without a text.
"""
import ast
import base64
import html
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
STAGE = ROOT / "build" / "docs"


# ---- what there is ----

def opening(path):
    """Title and one-line summary of a page: its first heading, and the quotation under it."""
    text = nbformat.read(path, as_version=4).cells[0].source if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    title = re.search(r"^# (.+)$", text, re.M)
    summary = re.search(r"^# .+\n+((?:>.*\n?)+)", text, re.M)
    return title[1].strip() if title else path.stem, " ".join(line.lstrip("> ") for line in summary[1].splitlines()) if summary else ""


def listed():
    """The pages behind each list of the navigation, in order: whatever is in the folders."""
    known = {name: number for number, name in enumerate(("own_data", "find", "clean", "desk", "enrol", "measure", "export", "devices", "gaudi"))}    # as they are needed; others follow
    return {"path": sorted((ROOT / "tutorials").glob("*.ipynb")), "howto": sorted((ROOT / "docs" / "howto").glob("*.md"), key=lambda path: (known.get(path.stem, 99), path.stem)),
            "benchmarks": sorted((ROOT / "benchmarks").glob("*.ipynb")), "modules": sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))}


def page_name(path):
    return path.relative_to(ROOT).with_suffix("").as_posix()


def label(path):
    """A page's name in the navigation: its title, tutorials with their number."""
    number = re.match(r"\d+", path.stem)[0] + " " if path.parent.name == "tutorials" else ""
    return number + opening(path)[0].partition(":" if path.parent.name == "benchmarks" else "\0")[0]


LISTS = {
    "path": ("The learning path", "From a page and a decision to your own data, in order. Each tutorial runs from top to bottom in JupyterLab (`make lab`) on two cores, without a download; most end with "
             "exercises, which `signver learn check NN` grades."),
    "howto": ("How to", "One task a page. The commands and programs on these pages are run by the tests."),
    "benchmarks": ("Benchmarks", "Notebooks with parameters: `signver bench NAME` runs one and leaves it executed, with its pictures and a record. They are shown here as they are kept, which is without "
                   "results; [the results](results/index.md) are read from the records."),
    "modules": ("The modules", "Each module of the package is a notebook that explains it, shows it at work and tests it; the code is generated from it. They are numbered from the bottom up: a module imports only "
                "what stands above it in this list. [All names](names.md) are listed apart."),
}


def toctree(entries, *options):
    return "\n".join(["```{toctree}", *options, "", *entries, "```"])


def list_page(name):
    title, words = LISTS[name]
    lines = [f"- [{label(path)}]({path.relative_to(ROOT).as_posix()})" + (f" – {summary}" if (summary := opening(path)[1]) else "") for path in listed()[name]]
    more = ["names"] if name == "modules" else []
    return "\n\n".join([f"# {title}", words, "\n".join(lines), toctree([*more, *(f"{label(path)} <{page_name(path)}>" for path in listed()[name])], ":hidden:")]) + "\n"


# ---- all names of the package ----

def public_names(module):
    """(name, what it is, first line of its docstring, id of its cell) for the public functions and classes of a generated module."""
    text = module.read_text(encoding="utf-8")
    cells = [(text.count("\n", 0, found.start()) + 1, found[1]) for found in re.finditer(r"^# %% \S+ #(\S+)$", text, re.M)]
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            cell = [name for line, name in cells if line <= node.lineno][-1]
            yield node.name, "class" if isinstance(node, ast.ClassDef) else "function", (ast.get_docstring(node) or "").strip().partition("\n")[0], cell


def names_page():
    parts = ["# All names", "Functions and classes, by module, with the first line of what they say about themselves; each leads to the cell that defines it."]
    for path in listed()["modules"]:
        module = ROOT / "signver_kit" / f"{path.stem.partition('_')[2]}.py"
        if module.is_file():
            rows = [f"<tr><td><a href='{page_name(path)}.html#cell-{cell}'><code>{name}</code></a></td><td>{_html(words)}</td></tr>" for name, _, words, cell in public_names(module)]
            parts += [f"## {module.stem}", "<div class='scroll'><table class='names'>" + "\n".join(rows) + "</table></div>"]
    return "\n\n".join(parts) + "\n"


def _html(text):
    """Text with `code` as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


# ---- gathering ----

def with_plots(notebook):
    """Interactive plots become HTML that takes plotly's program from the site."""
    import plotly.io
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            figure = output.get("data", {}).pop("application/vnd.plotly.v1+json", None)
            if figure:
                output.data["text/html"] = plotly.io.to_html({"data": figure["data"], "layout": figure["layout"]}, include_plotlyjs="../_static/plotly.min.js", full_html=False,
                                                             config={"displaylogo": False}, div_id=f"plotly-{cell.id}")


def with_one_title(notebook):
    """A notebook in parts has several headings of the first level; a page has one."""
    texts = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    later = next((number for number, cell in enumerate(texts) if number and cell.source.startswith("# ")), len(texts))
    for cell in texts[later:]:
        cell.source = re.sub(r"^(?=#{1,5} )", "#", cell.source, flags=re.M)


def for_readers(notebook):
    """The notebook without what only nbdev and .ci/readme.py read: `default_exp` and hidden inputs go, `export` becomes a mark at the cell (docs/_static/site.css)."""
    notebook.cells = [cell for cell in notebook.cells if not re.fullmatch(r"#\|\s*default_exp \w+", cell.source.strip())]
    for cell in notebook.cells:
        if cell.cell_type == "code" and re.match(r"#\|\s*export\n", cell.source):
            cell.source = cell.source.partition("\n")[2]
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "export"]
        if "hide-input" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("remove-input")
    with_one_title(notebook)
    with_plots(notebook)
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}  # a clean notebook has none
    return notebook


def with_pictures(text, folder, target):
    """A page's text with ![words](NOTEBOOK.ipynb#cell-ID), the last picture that a cell shows, made a file in the folder `target`."""
    def taken(found):
        notebook, cell = (folder / found[2]).resolve(), found[3]
        outputs = next(one for one in nbformat.read(notebook, as_version=4).cells if one.id == cell).outputs
        kind, data = [(kind, data) for output in outputs for kind, data in output.get("data", {}).items() if kind.startswith("image/")][-1]
        file = target / f"{notebook.stem}-{cell}.{kind[6:]}"
        file.write_bytes(base64.b64decode(data))
        return f"{found[1]}({file.name})"
    return re.sub(r"(!\[[^\]]*\])\(([^()\s#]+\.ipynb)#cell-([^()\s]+)\)", taken, text)


def gather():
    import docs_results
    import plotly.offline

    shutil.rmtree(STAGE, ignore_errors=True)
    for folder in ("nbs", "tutorials", "benchmarks"):
        (STAGE / folder).mkdir(parents=True)
        for path in sorted((ROOT / folder).glob("*.ipynb")):
            nbformat.write(for_readers(nbformat.read(path, as_version=4)), STAGE / folder / path.name)
    shutil.copytree(ROOT / "docs", STAGE / "docs", ignore=shutil.ignore_patterns("conf.py", "_static", "index.md", "__pycache__"))
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, STAGE)
    front = with_pictures((ROOT / "docs" / "index.md").read_text(encoding="utf-8"), ROOT / "docs", STAGE)
    front = re.sub(r"\]\((?=howto|glossary)", "](docs/", front).replace("](../", "](")     # it moves up one folder
    (STAGE / "index.md").write_text(front, encoding="utf-8")
    for name in LISTS:
        (STAGE / f"{name}.md").write_text(list_page(name), encoding="utf-8")
    (STAGE / "names.md").write_text(names_page(), encoding="utf-8")
    docs_results.write_pages(STAGE / "results")
    static = STAGE / "_static"
    shutil.copytree(ROOT / "docs" / "_static", static)
    (static / "plotly.min.js").write_text(plotly.offline.get_plotlyjs(), encoding="utf-8")


def main(site):
    begun = time.monotonic()
    gather()
    made = ROOT / "build" / "html"                  # MyST-NB writes pictures beside the folder of the pages
    shutil.rmtree(made, ignore_errors=True)
    words = [sys.executable, "-m", "sphinx", "-b", "html", "-c", ROOT / "docs", "-d", ROOT / "build" / "doctrees", "-E", "-q", "-W", "--keep-going", "-j", "auto",
             "-D", f"html_static_path={STAGE / '_static'}", "-D", f"html_extra_path={STAGE / 'results' / 'extra'}", STAGE, made]
    if subprocess.run([str(word) for word in words]).returncode:
        sys.exit("the site is not made: see the warnings above")
    shutil.rmtree(site, ignore_errors=True)
    shutil.move(made, site)
    import docs_check
    complaints, counts = docs_check.look_over(site)
    if complaints:
        sys.exit("\n".join(complaints) + f"\n{len(complaints)} things are wrong with the site in {site}")
    print(f"{site.relative_to(Path.cwd()) if site.is_relative_to(Path.cwd()) else site}/index.html: " + ", ".join(f"{number} {what}" for what, number in counts.items())
          + f"; made in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "site")
