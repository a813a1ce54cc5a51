"""The pages: what the navigation names, where links lead, whether the how-to guides and the commands in the prose do what they say. The site itself is made and looked over by `make docs`."""
import importlib.util
import re
import shlex
from functools import cache

import nbformat
import pytest
import typer
from typer.testing import CliRunner

from conftest import ROOT

HOWTO = sorted((ROOT / "docs" / "howto").glob("*.md"))
NOTEBOOKS = [path for folder in ("tutorials", "nbs", "benchmarks") for path in sorted((ROOT / folder).glob("*.ipynb"))]
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/index.md", "docs/glossary.md")] + HOWTO + NOTEBOOKS


def ids(path):
    return str(path.relative_to(ROOT))


@cache
def markdown(path):
    """The text of a page, or of a notebook's Markdown cells."""
    return "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown") if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")


def without_code(text):
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", re.sub(r"^(```+|~~~+).*?^\1", "", text, flags=re.M | re.S))


# ---- navigation ----

def program(name):
    """A module of .ci."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def docs():
    return program("docs")


def entries(text):
    """The pages that the navigation of a page names, as `label <page>` or `page`."""
    lines = [line.strip() for block in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.M | re.S) for line in block.splitlines() if line.strip() and not line.startswith(":")]
    return [re.sub(r".*<(.+)>$", r"\1", line) for line in lines]


def test_the_navigation_names_every_page_once(docs):
    named = entries(markdown(ROOT / "docs" / "index.md"))
    for page in docs.LISTS:
        assert page in named
        named += entries(docs.list_page(page))
    wanted = [ids(path.with_suffix("")) for path in (*NOTEBOOKS, *HOWTO)] + ["docs/glossary", "CHANGELOG", "CONTRIBUTING", "results/index", "names", *docs.LISTS]
    assert sorted(named) == sorted(wanted)


@pytest.mark.parametrize("path", HOWTO + NOTEBOOKS, ids=ids)
def test_a_page_opens_with_a_title_and_a_line_on_what_it_is(path, docs):
    title, summary = docs.opening(path)
    assert title and summary, "`# title`, and under it `> one line`"


def test_all_names_lead_to_cells_that_are_there(docs):
    for path in (ROOT / "nbs").glob("*.ipynb"):
        module = ROOT / "signver_kit" / f"{path.stem.partition('_')[2]}.py"
        cells = {cell.id for cell in nbformat.read(path, as_version=4).cells}
        assert not module.is_file() or {cell for *_, cell in docs.public_names(module)} <= cells, path.name


# ---- links ----

@cache
def anchors(path):
    """The anchors of a page: its headings, as GitHub, Jupyter's viewers and the site make them, and its code cells (#cell-ID), as the site does."""
    headings = re.findall(r"^#{1,6} (.+?)\s*#*$", re.sub(r"^(```+|~~~+).*?^\1", "", markdown(path), flags=re.M | re.S), re.M)
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"] if path.suffix == ".ipynb" else []
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-") for heading in headings} | {f"cell-{cell.id}" for cell in cells}


def dead_links(path):
    text, dead = without_code(markdown(path)), []
    for picture, words, link in re.findall(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(\s*<?([^()\s>]+(?:\([^()]*\))?)>?(?:\s+\"[^\"]*\")?\s*\)", text):
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        if picture and not words.strip():
            dead.append(f"the picture {link} has no text")
        if re.match(r"\w+:", link):
            continue
        if not file.exists():
            dead.append(link)
        elif anchor and file.suffix in (".md", ".ipynb") and anchor not in anchors(file.resolve()):
            dead.append(f"{link}: no such place")
    return dead


@pytest.mark.parametrize("path", TEXTS, ids=ids)
def test_links_lead_somewhere(path):
    assert dead_links(path) == []


def test_a_dead_link_is_caught(tmp_path):
    (tmp_path / "there.md").write_text("# A title, with `code`\n")
    (tmp_path / "page.md").write_text("# P\n[a](there.md) [b](there.md#a-title-with-code) [c](#p) [d](https://x.y/z) `[e](gone.md)`\n[f](gone.md) [g](there.md#no) [h](#q) ![](there.md) [[i]](gone.md \"t\")")
    assert dead_links(tmp_path / "page.md") == ["gone.md", "there.md#no: no such place", "#q: no such place", "the picture there.md has no text", "gone.md"]


def test_what_is_wrong_with_a_site_is_caught(tmp_path):
    good = "<html lang='en'><head><title>T</title><link rel='stylesheet' href='a.css'></head><body><h1 id='top'>T</h1><a href='#top'>t</a><img src='p.png' alt='P'><code>| --- |</code></body></html>"
    bad = {"<a href='gone.html'>x</a>": "gone.html leads nowhere", "<a href='#gone'>x</a>": "no such anchor", "<script src='https://cdn.x/y.js'></script>": "fetches https://cdn.x/y.js",
           "<link rel='stylesheet' href='//x/y.css'>": "fetches //x/y.css", "<img src='p.png'>": "picture without a text", "<style>@import 'https://x/y.css';</style>": "style fetches",
           "<script>import('https://x/y.mjs')</script>": "program fetches", "<p>| a | b | | --- | --- |</p>": "not shown as one", "<p id='top'></p>": "stands twice"}
    (tmp_path / "a.css").write_text("p { color: red }")
    (tmp_path / "p.png").write_bytes(b"")
    look_over = program("docs_check").look_over
    (tmp_path / "page.html").write_text(good)
    assert look_over(tmp_path)[0] == []
    for wrong, said in bad.items():
        (tmp_path / "page.html").write_text(good.replace("</body>", wrong + "</body>"))
        [complaint] = look_over(tmp_path)[0]
        assert said in complaint, complaint
    (tmp_path / "page.html").write_text(good)
    (tmp_path / "a.css").write_text("p { background: url(https://x/y.png) }")
    assert "a style fetches" in look_over(tmp_path)[0][0]


# ---- commands ----

def kit_command():
    return typer.main.get_command(__import__("signver_kit.cli", fromlist=["app"]).app)


def below(command):
    """A command and those in it."""
    return [command, *(one for inner in getattr(command, "commands", {}).values() for one in below(inner))]


def mistyped(line):
    """What a line that begins with `signver` names and the command does not have; … and CAPITALS stand for anything."""
    words, command = shlex.split(line, comments=True)[1:], kit_command()
    words = words[:next((number for number, word in enumerate(words) if word in {"|", "||", "&&", ";", ">", ">>"}), len(words))]
    while words and getattr(command, "commands", None):
        if words[0] in command.commands:
            command = command.commands[words.pop(0)]
        elif words[0].startswith("-") or re.fullmatch(r"…|[A-Z_]+|\.\.\.", words[0]):
            break
        else:
            return [words[0]]
    known = {name for one in below(command) for option in one.params for name in (*option.opts, *option.secondary_opts)} | {"-h", "--help"}
    return [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]


def commands(text):
    """The lines of a page that call the kit: in blocks of a shell, and in `code`."""
    blocks = re.findall(r"^```(?:sh|console|bash|)\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"(?<!`)`(signver [^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [line[found.start(1):] for line in lines if (found := re.match(r"(?:\S*=\S+ |mpirun .*?|\S*/(?=signver )|\$ )*(signver )", line))]


@pytest.mark.parametrize("path", TEXTS, ids=ids)
def test_commands_in_the_prose_exist(path):
    assert [(line, wrong) for line in commands(markdown(path)) if (wrong := mistyped(line))] == []


def test_a_command_that_does_not_exist_is_caught():
    text = "Do `signver clean X --out DIR`, `signver bnch` or\n```sh\n.venv/bin/signver train extractor --ot DIR  # --never\nK=1 mpirun -np 2 signver data check A\nsignver data chekc A\n```\n`signver train … --distribute`"
    assert [mistyped(line) for line in commands(text)] == [["--ot"], [], ["chekc"], [], ["bnch"], []]


# ---- how-to guides ----

@pytest.mark.parametrize("path", HOWTO, ids=lambda path: path.stem)
def test_a_guide_does_what_it_says(path, tmp_path, monkeypatch):
    """Runs the blocks marked sh (the kit's command) and python from top to bottom, in an empty folder. Blocks marked console need what a test has not."""
    from signver_kit.cli import app
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIGNVER_DATA", raising=False)
    names = {"__name__": path.stem}
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
        assert language in {"sh", "python", "console", "text"}
        if language == "python":
            exec(compile(block, f"{path.name}: {block.splitlines()[0]}", "exec"), names)
        for line in block.splitlines() if language == "sh" else []:
            called, _, otherwise = line.partition("||")     # `|| echo no`: the answer may be no, which is exit code 1
            words = shlex.split(called, comments=True)
            assert words[0] == "signver", f"{line}: only the kit's command is run, mark other things as console"
            done = CliRunner().invoke(app, words[1:], prog_name="signver")
            assert done.exit_code in ({0, 1} if otherwise else {0}), f"{line}\n{done.output}"


# ---- the glossary ----

def glossary():
    """Term -> what stands under it; and the names of the sources."""
    terms, _, sources = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").partition("\n## Sources\n")
    found = re.split(r"^### (.+)$", terms, flags=re.M)[1:]
    return dict(zip(found[::2], found[1::2])), re.findall(r"^- \*\*(.+?)\*\*", sources, re.M)


def test_every_term_of_the_glossary_has_a_source():
    terms, sources = glossary()
    cited = {term: re.findall(r"\[([^\]]+)\]\(#sources\)", text) for term, text in terms.items()}
    assert [term for term in terms if not cited[term]] == []
    assert {name for names in cited.values() for name in names} == set(sources), "each source is cited, and each that is cited is listed"
