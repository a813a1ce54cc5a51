"""README.md from nbs/index.ipynb, as it stands: `python .ci/readme.py [OUTPUT]`. The notebook's outputs are taken, nothing is run; its pictures become files in docs/_readme beside OUTPUT."""
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

root = Path(__file__).resolve().parent.parent


PICTURES = "docs/_readme"
# what the pictures show, by cell, for those who do not see them
ALT = {
    "found": "A made-up contract with frames around what is found on it; beside it the signatures cut out, with rules and print across them, and cleaned",
    "records": "Equal error rates on CEDAR of one network fed raw pixels and fed ink alone: on raw pixels skilled forgeries seem solved and random ones are the harder ones, on ink it is the other way round",
}


def readme(notebook):
    """(Markdown, {name: bytes of a picture}) of the notebook at path `notebook`; cells tagged `hide-input` show their output only, links are relative to the root."""
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = {"hide-input"}
    node = nbformat.read(notebook, as_version=4)
    node.metadata["language_info"] = {"name": "python"}  # a clean notebook has none, and the code blocks want their language
    pictures = {f"output_{number}_{place}.png": cell for number, cell in enumerate(node.cells) if cell.cell_type == "code" for place in range(len(cell.outputs))}
    text, resources = MarkdownExporter(config=config).from_notebook_node(node)
    files = {}
    for name, content in resources.get("outputs", {}).items():
        file = f"{pictures[name].id}.png"
        files[file] = content
        text = re.sub(rf"!\[[^\]]*\]\({re.escape(name)}\)", f"![{ALT[pictures[name].id]}](../{PICTURES}/{file})", text)
    text = re.sub(r"\]\((?!\.\./|#|\w+:)", "](nbs/", text).replace("](../", "](")
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", files


if __name__ == "__main__":
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "README.md"
    text, files = readme(root / "nbs" / "index.ipynb")
    output.write_text(text, encoding="utf-8")
    folder = output.parent / PICTURES
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
