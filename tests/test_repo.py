"""The repository's own rules: clean notebooks, a package in step with them, imports that only point down, what the wheel holds."""
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from functools import cache

import nbformat
import pytest

from conftest import ROOT

NBS = sorted((ROOT / "nbs").glob("*.ipynb"))
NOTEBOOKS = NBS + sorted((ROOT / "tutorials").glob("*.ipynb")) + sorted((ROOT / "benchmarks").glob("*.ipynb"))
MODULES = sorted(path for path in (ROOT / "signver_kit").glob("*.py") if not path.name.startswith("_"))

# Module -> the modules it may import, and with them what those may import. Bottom-up.
FLOORS = {
    "images": [],
    "metrics": [],
    "boxes": [],
    "quality": ["images"],
    "classical": ["images"],
    "plots": ["metrics"],
    "descriptors": ["images"],
    "datasets": ["images"],
    "pages": ["boxes", "datasets"],
    "synthetic": ["images", "datasets"],
    "documents": ["synthetic", "boxes"],
    "augmentation": ["documents"],
    "devices": [],
    "distribution": ["devices", "images"],
    "backbones": [],
    "losses": [],
    "anchors": ["boxes"],
    "training": ["datasets", "distribution", "losses", "metrics"],  # metrics: training stops early on the validation EER
    "detector": ["metrics", "descriptors", "augmentation", "backbones", "anchors", "pages", "training"],
    "cleaner": ["quality", "descriptors", "documents", "backbones", "training"],
    "extractor": ["metrics", "descriptors", "documents", "backbones", "training"],
    "export": ["detector", "cleaner", "extractor"],
    "throughput": ["detector", "cleaner", "extractor"],
    "calibration": ["metrics"],
    "local": ["metrics", "descriptors"],
    "matcher": ["calibration", "local"],
    "gallery": ["matcher"],
    "archive": ["gallery"],
    "pipeline": ["detector", "cleaner", "extractor", "archive"],
    "protocols": ["datasets", "matcher", "metrics"],
    "comparisons": ["protocols"],  # what papers measure, for comparing with them
    "fusion": ["comparisons", "synthetic"],  # fits matchers on trials
    "chain": ["boxes", "protocols"],  # the error of the whole chain; it is given its pipeline
    "explain": ["plots", "local"],
    "benchmark": ["plots", "documents", "pipeline", "comparisons", "fusion", "explain"],
    "compare": ["benchmark"],
    "console": ["devices", "images"],
    "learn": ["images", "metrics"],
    "batch": ["console", "pipeline"],
    "desk": ["batch"],
    "commands": ["desk"],
    "app": ["pipeline", "explain", "documents"],
    "cli": ["compare", "commands", "export", "learn", "app"],
}
KERAS_MODULES = {"devices", "distribution", "backbones", "losses", "anchors", "training", "detector", "cleaner", "extractor", "export", "throughput"}
WITHOUT_KERAS = ["images", "metrics", "boxes", "pages", "augmentation", "quality", "plots", "descriptors", "datasets", "synthetic", "documents", "classical", "calibration", "local", "matcher", "gallery", "archive", "pipeline", "learn",
                 "protocols", "comparisons", "fusion", "chain", "explain", "compare", "console", "batch", "desk", "commands", "app", "cli"]


def run(*command, cwd=ROOT, **environment):
    """The finished process; a failure shows its output."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done


@cache
def read(path):
    """A notebook, to look at: it is read once."""
    return nbformat.read(path, as_version=4)


def ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


# ---- imports ----

def imports(source):
    """The dotted names that `source` imports, at any depth of nesting; the kit's own modules as `signver_kit.NAME`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["signver_kit" if node.level else "", node.module or ""]))
            found |= {f"signver_kit.{alias.name}" for alias in node.names} if base == "signver_kit" else {base}
    return found


def may_import(module):
    """Every module at or below the floors that `module` may reach."""
    reach = set(FLOORS[module])
    for lower in FLOORS[module]:
        reach |= may_import(lower)
    return reach


def misplaced_imports(module, source):
    """What `source` imports as module `module` and must not: floors above it, and Keras where it has no business."""
    complaints = []
    for name in sorted(imports(source)):
        top, _, rest = name.partition(".")
        inner = rest.split(".")[0]
        if top == "signver_kit" and not inner.startswith("_") and inner not in may_import(module):
            complaints.append(f"{module} imports {inner}: not on a floor below it")
        if top in {"keras", "tensorflow"} and module not in KERAS_MODULES:
            complaints.append(f"{module} imports {top}")
        if top in {"nbdev", "fastcore", "execnb"}:
            complaints.append(f"{module} imports {top}: a development tool")
    return complaints


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_point_down(path):
    assert path.stem in FLOORS, f"{path.stem} has no floor: add it to FLOORS"
    assert misplaced_imports(path.stem, path.read_text()) == []


@pytest.mark.parametrize("module, source", [
    ("metrics", "from .plots import RocDisplay"),
    ("images", "import signver_kit.cli as cli"),
    ("datasets", "from signver_kit import benchmark"),
    ("matcher", "def f():\n    from . import extractor"),
    ("cleaner", "from .detector import Detector"),
    ("protocols", "import keras"),
    ("metrics", "from tensorflow import math"),
    ("losses", "from fastcore.all import patch"),
])
def test_a_misplaced_import_is_caught(module, source):
    assert len(misplaced_imports(module, source)) == 1


LOAD_EACH = """
import importlib, sys
for module in sys.argv[1:]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "signver_kit"]:
        del sys.modules[name]       # each by itself, as if it were the first
    importlib.import_module(f"signver_kit.{module}")
    heavy = {"keras", "tensorflow", "torch", "jax"} & set(sys.modules)
    assert not heavy, f"{module} loads {heavy}"
    print(module)
"""


def test_modules_load_without_keras():
    assert run(sys.executable, "-c", LOAD_EACH, *WITHOUT_KERAS).stdout.split() == WITHOUT_KERAS


def requirements(*extras):
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(ROOT / "settings.ini")
    lines = "\n".join(settings["DEFAULT"][key] for key in ("requirements", *(f"{extra}_requirements" for extra in extras)))
    return {re.split(r"[\[<>=!~; ]", line.strip())[0].lower() for line in lines.splitlines() if line.strip()}


def undeclared(source, declared):
    """Third-party imports of `source` that no requirement covers. A machine's own additions (Gaudi, OpenVINO, other Keras backends) and what shows the app are optional."""
    names = {"cv2": "opencv-python-headless", "PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image", "IPython": "ipykernel"}
    top = {name.split(".")[0] for name in imports(source)} - {"signver_kit", "habana_frameworks", "torch", "jax", "openvino", "faiss", "ipywidgets"} - set(sys.stdlib_module_names)
    return sorted(name for name in top if names.get(name, name).lower().replace("_", "-") not in declared)


@pytest.mark.parametrize("path", MODULES + NOTEBOOKS, ids=ids(MODULES + NOTEBOOKS))
def test_every_import_is_a_requirement(path):
    source = path.read_text() if path.suffix == ".py" else "\n".join(code_cells(read(path)))
    assert undeclared(source, requirements()) == []


def test_an_undeclared_import_is_caught():
    assert undeclared("import os, numpy, surprise", requirements()) == ["surprise"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_public_names_are_documented(path):
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assert [node.name for node in nodes if not node.name.startswith("_") and not ast.get_docstring(node)] == []


# ---- notebooks ----

def code_cells(notebook):
    """The sources of the code cells, without IPython's own lines (% and !)."""
    return ["\n".join(line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!")))
            for cell in notebook.cells if cell.cell_type == "code"]


def shown(output):
    """What an output shows as text, pictures left out."""
    data = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
    return json.dumps([output.get("text", ""), data])


def untidy(notebook):
    """What is wrong with a notebook, a line each; [] when all is well."""
    wrong = []
    if set(notebook.metadata) != {"kernelspec"} or notebook.metadata.kernelspec.name != "python3":
        wrong.append("the metadata must be the kernelspec python3 and nothing else")
    if len(notebook.cells) > 80:
        wrong.append(f"{len(notebook.cells)} cells, more than 80")
    if not notebook.cells or notebook.cells[0].cell_type != "markdown" or not notebook.cells[0].source.startswith("# "):
        wrong.append("the first cell must be markdown with a title")
    for number, cell in enumerate(notebook.cells):
        exported = cell.cell_type == "code" and re.match(r"#\|\s*export", cell.source)
        if set(cell.metadata) - {"tags"}:
            wrong.append(f"cell {number}: metadata {sorted(cell.metadata)}")
        if cell.get("execution_count"):
            wrong.append(f"cell {number}: an execution count")
        if exported and len(cell.source.splitlines()) > 40:
            wrong.append(f"cell {number}: exports {len(cell.source.splitlines())} lines, more than 40")
        if cell.cell_type == "code" and re.search(r"^\s*from .* import \*", cell.source, re.M):
            wrong.append(f"cell {number}: import *")
        if exported and re.search(r"^\s*@patch", cell.source, re.M):
            wrong.append(f"cell {number}: @patch")
        for output in cell.get("outputs", []):
            if output.output_type == "error" or output.get("name") == "stderr":
                wrong.append(f"cell {number}: an error or stderr is among the outputs")
            if path := re.search(r"(?<![\w.])/(?:home|root|work|tmp|Users|mnt|private|var|usr|opt)/", shown(output)):
                wrong.append(f"cell {number}: an absolute path in the output: {path[0]}")
    return wrong


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_notebook_is_tidy(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert untidy(notebook) == []
    assert path.stat().st_size < 500_000


def spoil(notebook, how):
    cell = notebook.cells[1]
    if how == "count":
        cell.execution_count = 3
    elif how == "metadata":
        cell.metadata["collapsed"] = True
    elif how == "stderr":
        cell.outputs = [nbformat.v4.new_output("stream", name="stderr", text="careful")]
    elif how == "path":
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="saved to /home/ann/x.png")]
    elif how == "long":
        cell.source = "#| export\n" + "x = 1\n" * 40
    elif how == "star":
        cell.source = "from math import *"
    elif how == "patch":
        cell.source = "#| export\n@patch\ndef f(x: int): pass"
    elif how == "cells":
        notebook.cells += [nbformat.v4.new_markdown_cell("more")] * 80
    elif how == "title":
        notebook.cells = notebook.cells[1:]
    elif how == "kernel":
        notebook.metadata.kernelspec.name = "my-venv"
    return notebook


@pytest.mark.parametrize("how", ["count", "metadata", "stderr", "path", "long", "star", "patch", "cells", "title", "kernel"])
def test_an_untidy_notebook_is_caught(how):
    new = nbformat.v4
    notebook = new.new_notebook(cells=[new.new_markdown_cell("# Title"), new.new_code_cell("x = 1")],
                                metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}})
    assert untidy(notebook) == []
    assert len(untidy(spoil(notebook, how))) == 1


@pytest.mark.parametrize("path", [path for path in NBS if path.stem != "index"], ids=lambda path: path.stem)
def test_notebook_and_module_share_a_name(path):
    number, _, name = path.stem.partition("_")
    assert number.isdigit()
    assert f"#| default_exp {name}" in [cell.source.strip() for cell in read(path).cells]


def test_tutorials_and_benchmarks_copy_no_function():
    public = {node.name for path in MODULES for node in ast.parse(path.read_text()).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for path in set(NOTEBOOKS) - set(NBS):
        tree = ast.parse("\n".join(code_cells(read(path))))
        own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert not own & public, f"{path.name} defines {own & public}, which signver_kit has"


def benchmarks_run(source):
    """The benchmarks that a test file runs: `run_benchmark("NAME", …)`, not those from which it expects nothing but an error."""
    refused = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.With) and any("raises" in ast.unparse(item.context_expr) for item in node.items):
            refused |= set(map(ast.dump, ast.walk(node)))
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("run_benchmark") and ast.dump(node) not in refused]
    return {node.args[0].value for node in calls if node.args and isinstance(node.args[0], ast.Constant)}


def test_every_benchmark_is_run_by_a_test():
    run_by_tests = set().union(*(benchmarks_run(path.read_text()) for path in sorted((ROOT / "tests").glob("test_*.py"))))
    assert [path.stem for path in sorted((ROOT / "benchmarks").glob("*.ipynb")) if path.stem not in run_by_tests] == [], "run it with small parameters in a test"


def test_a_benchmark_that_no_test_runs_is_caught():
    source = 'run_benchmark("good", out=1)\nwith pytest.raises(ValueError):\n    run_benchmark("bad", {"x": 0})\nlist_presets("named")'
    assert benchmarks_run(source) == {"good"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository to export, clean and build in."""
    folder = tmp_path_factory.mktemp("repository") / "signver_kit"
    leave_out = shutil.ignore_patterns(".git", ".venv*", "runs", "data", "__pycache__", "build", "dist", "site", "*.egg-info", ".pytest_cache", ".hypothesis",
                                       ".ipynb_checkpoints")
    shutil.copytree(ROOT, folder, ignore=leave_out)
    return folder


def test_clean_changes_nothing(copy):
    for folder in ("nbs", "tutorials", "benchmarks"):
        run(sys.executable, "-c", f"from nbdev.clean import nbdev_clean; nbdev_clean(fname='{folder}')", cwd=copy)
    changed = [name for name in ids(NOTEBOOKS) if (copy / name).read_bytes() != (ROOT / name).read_bytes()]
    assert changed == [], "run `make clean-notebooks`"


def test_package_is_in_step_with_the_notebooks(copy):
    for path in (copy / "signver_kit").glob("*.py"):
        path.unlink()
    (copy / "signver_kit" / "__init__.py").write_bytes((ROOT / "signver_kit" / "__init__.py").read_bytes())
    run(sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()", cwd=copy)
    made, kept = ({path.name: path.read_text() for path in (root / "signver_kit").glob("*.py")} for root in (copy, ROOT))
    assert sorted(made) == sorted(kept), "run `make export`, and delete modules that have no notebook"
    assert [name for name in made if made[name] != kept[name]] == [], "run `make export`; the package is never edited by hand"


def test_readme_is_in_step_with_index(tmp_path):
    run(sys.executable, ROOT / ".ci" / "readme.py", tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text(), "run `make readme`"
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "docs" / "_readme").iterdir()}
    assert pictures == {path.name: path.read_bytes() for path in (ROOT / "docs" / "_readme").iterdir()} and pictures, "run `make readme`"


# ---- the wheel ----

@pytest.fixture(scope="module")
def wheel(copy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ".", cwd=copy)
    [path] = folder.glob("*.whl")
    return path


def test_wheel_holds_the_package_and_the_benchmarks_only(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {f"signver_kit/{path.name}" for path in (ROOT / "signver_kit").glob("*.py")}
    package |= {str(path.relative_to(ROOT)) for path in (ROOT / "signver_kit" / "models").rglob("*") if path.suffix in {".json", ".h5"}}
    benchmarks = [*(ROOT / "benchmarks").glob("*.ipynb"), *(ROOT / "benchmarks").glob("published*.csv"), *(ROOT / "benchmarks" / "presets").glob("*/*.json")]
    assert names == package | {f"signver_kit/_benchmarks/{path.relative_to(ROOT / 'benchmarks')}" for path in benchmarks}


def test_the_command_works_from_the_wheel(wheel, tmp_path):
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path / "site", wheel)
    done = run(sys.executable, "-m", "signver_kit.cli", "bench", "--list", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"), SIGNVER_BENCHMARKS="")
    assert "verification" in done.stdout and "synthetic" in done.stdout
    program = "from signver_kit import benchmark; print(benchmark.benchmark_path('verification'))"
    found = run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"), SIGNVER_BENCHMARKS="").stdout
    assert found.startswith(str(tmp_path / "site")), found


def test_wheel_says_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [info] = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        about = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        assert "signver = signver_kit.cli:app" in archive.read(f"{info}/entry_points.txt").decode()
        assert any(name.startswith(info) and name.endswith("LICENSE") for name in archive.namelist())
    assert about["Requires-Python"] in {">=3.10,<3.14", "<3.14,>=3.10"}
    assert set(about.get_all("Provides-Extra")) == {"dev", "docs", "app", "openvino", "export", "torch", "jax", "gpu", "gaudi"}
    assert about["Description-Content-Type"] == "text/markdown"
    needs = [need for need in about.get_all("Requires-Dist") if "extra ==" not in need]
    assert {re.split(r"[\[<>=!~; ]", need)[0].lower() for need in needs} == requirements()
    assert any("keras" in need and "<3.13" in need and 'python_version < "3.11"' in need for need in needs)
