"""README.md from nbs/index.ipynb, as it stands: `python .ci/readme.py [OUTPUT]`. The notebook's outputs are taken, nothing is run."""
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

root = Path(__file__).resolve().parent.parent


def readme(notebook):
    """Markdown of the notebook at path `notebook`; cells tagged `hide-input` show their output only, links are relative to the root."""
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = {"hide-input"}
    node = nbformat.read(notebook, as_version=4)
    node.metadata["language_info"] = {"name": "python"}  # a clean notebook has none, and the code blocks want their language
    text, _ = MarkdownExporter(config=config).from_notebook_node(node)
    text = re.sub(r"\]\((?!\.\./|#|\w+:)", "](nbs/", text).replace("](../", "](")
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "README.md"
    output.write_text(readme(root / "nbs" / "index.ipynb"), encoding="utf-8")
