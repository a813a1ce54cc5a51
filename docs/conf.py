"""Sphinx's settings for the site; `make docs` (.ci/docs.py) gathers the pages and calls it.

Why Sphinx with MyST-NB and Furo: three tools were tried on these notebooks, none of which needs a download.
- mkdocs-material with mkdocs-jupyter took three times as long, puts the pictures and a megabyte of Jupyter's styles into each page (63 MB against 31), does not
  look at the links in notebooks, names a script on a CDN in every page, and stands on MkDocs 1.x, which nobody maintains any more.
- jupyter-book 1.x is Sphinx 7 and MyST-NB with older versions pinned, and names scripts on two CDNs.
- Sphinx with MyST-NB itself, which is what jupyter-book is made of: every link that leads nowhere is an error, pictures become files, search works without a server, and
  with Furo nothing is fetched from elsewhere. Formulas become MathML here, when the site is built, so that they need no script either.
"""
import posixpath
import re
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.util.nodes import clean_astext

ROOT = Path(__file__).resolve().parent.parent
about = dict(re.findall(r"^(\w+) = (.+)$", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.M))

project, author, copyright, release = about["title"], about["author"], about["copyright"], about["version"]
extensions = ["myst_nb", "sphinx.ext.githubpages"]
root_doc = "index"
language = "en_GB"

nb_execution_mode = "off"       # notebooks are shown as they are kept
nb_merge_streams = True
nb_render_markdown_format = "myst"      # tables in outputs
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["mystnb.lexer"]

html_theme = "furo"
html_title = project
html_baseurl = f"{about['doc_host']}{about['doc_baseurl']}/"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = True         # "view this page" shows the notebook itself
html_sourcelink_suffix = ""
html_show_sphinx = False
pygments_style, pygments_dark_style = "a11y-light", "a11y-dark"
html_theme_options = {
    "top_of_page_buttons": ["view"],
    "light_css_variables": {"color-brand-primary": "#1f5a96", "color-brand-content": "#1f5a96"},
    "dark_css_variables": {"color-brand-primary": "#8ab8ec", "color-brand-content": "#8ab8ec"},
}

# Folders and files of the repository that have a page of another name.
PAGES = {"": "index", "README.md": "nbs/index", "tutorials": "path", "nbs": "modules", "benchmarks": "benchmarks", "benchmarks/results": "results/index", "docs": "index", "docs/howto": "howto",
         "docs/index.md": "index"}


def page_of(path, anchor, title):
    """(page, anchor) of the site for a path of the repository, or None. A figure quoted from a record leads to its row in the record's page."""
    if record := re.fullmatch(r"benchmarks/(results/[^/]+)\.json", path):
        return record[1], re.sub(r"_ci(\.\d+)?$", "", title).replace(".", "-")
    return (PAGES[path], anchor) if path in PAGES else None


def lead_on(app, doctree):
    """Links that lead out of the pages: to another page of the site, or to the file in the repository; what is nowhere stays, and Sphinx complains."""
    folder = posixpath.dirname(app.env.docname)
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node.get("reftype") != "myst" or node.get("refdomain"):
            continue
        target, _, anchor = node["reftarget"].partition("#")
        path = posixpath.normpath(posixpath.join(folder, target)) if target else None
        path = "" if path == "." else path
        if path is None or path.startswith("..") or not (ROOT / path).exists():
            continue
        page = page_of(path, anchor, node.get("reftitle", ""))
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        uri = app.builder.get_relative_uri(app.env.docname, page[0]) if page else f"{about['git_url']}/{kind}/{about['branch']}/{path}"
        anchor = page[1] if page else anchor
        link = nodes.reference("", "", *node.children, refuri=f"{uri}#{anchor}" if anchor else uri, internal=bool(page))
        if node.get("reftitle"):
            link["reftitle"] = node["reftitle"]
        node.replace_self(link)


def name_cells(app, doctree):
    """Code cells get an anchor (#cell-ID), their pictures a text: where they stand and what was said just before."""
    cells = app.kit_cells.get(app.env.docname, [])
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") != "cell_code":
            continue
        node["ids"].append(f"cell-{cells[node['cell_index']]}")
        before = [one for one in node.parent.children[:node.parent.index(node)] if isinstance(one, nodes.paragraph)]
        heading = next((one for one in node.parent.children if isinstance(one, nodes.title)), None)
        said = re.split(r"(?<=[.:?])\s", clean_astext(before[-1]).replace("\n", " "))[-1] if before else ""
        words = f"Picture made by the code above, under “{clean_astext(heading) if heading else app.env.docname}”" + (f": {said[:200]}" if said else ".")
        for image in node.findall(nodes.image):
            image["alt"] = words


def mathml(display):
    def visit(self, node):
        self.body.append(convert(node.astext(), display=display))
        raise nodes.SkipNode
    return visit, None


def read_cells(app):
    import nbformat
    source = Path(app.srcdir)
    app.kit_cells = {path.relative_to(source).with_suffix("").as_posix(): [cell.id for cell in nbformat.read(path, as_version=4).cells] for path in source.glob("*/*.ipynb")}


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=mathml("inline"), block_renderers=mathml("block"))
    app.connect("builder-inited", read_cells)
    app.connect("doctree-read", lead_on)
    app.connect("doctree-read", name_cells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
