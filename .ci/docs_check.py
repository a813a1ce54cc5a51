"""Looks over the pages of a built site: links and anchors, what is fetched from elsewhere, pictures without a text. `python .ci/docs_check.py [SITE]`"""
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "object": "data", "embed": "src", "use": "href"}
STYLES = re.compile(r"""url\(\s*['"]?((?:https?:)?//[^)'"]+)|@import\s+['"]((?:https?:)?//[^'"]+)""")
PROGRAMS = re.compile(r"""(?:import|from|src\s*=|importScripts)\s*\(?\s*['"`]((?:https?:)?//[^'"`]+)""")

# plotly's program can draw the icons of its maps from there; no page has a map
NEVER = {"https://cdn.jsdelivr.net/npm/@mapbox/maki@8.2.0/icons/${p}.svg"}


class Page(HTMLParser):
    """The anchors, links and fetched files of one page, and what is missing in it."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.anchors, self.links, self.fetched, self.wrong, self.inside, self.title, self.code = set(), [], [], [], None, False, 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        had = dict(attributes)
        for name in ("id", "name"):
            if had.get(name) and (name == "id" or tag == "a"):
                if name == "id" and had[name] in self.anchors:
                    self.wrong.append(f"the anchor #{had[name]} stands twice")
                self.anchors.add(had[name])
        self.inside, self.title, self.code = tag, self.title or tag == "title", self.code + (tag in ("pre", "code"))
        if tag == "a" and had.get("href"):
            self.links.append(had["href"])
        if tag in FETCHED and had.get(FETCHED[tag]) and not (tag == "link" and had.get("rel") in ("canonical", "index", "search", "next", "prev", "author", "copyright")):
            self.fetched.append(had[FETCHED[tag]])
        if tag == "link" and had.get("rel") in ("index", "search", "next", "prev"):
            self.links.append(had["href"])
        if tag == "img" and not (had.get("alt") or "").strip():
            self.wrong.append(f"a picture without a text: {(had.get('src') or '')[:80]}")
        if tag == "html" and not had.get("lang"):
            self.wrong.append("the page does not say its language")

    def handle_data(self, data):
        if self.inside == "style":
            self.wrong += [f"a style fetches {''.join(found)}" for found in STYLES.findall(data)]
        if self.inside == "script":
            self.wrong += [f"a program fetches {found}" for found in PROGRAMS.findall(data)]

        if not self.code and self.inside not in ("script", "style") and re.search(r"\|\s*(?:-{3,}|—)\s*\|", data):
            self.wrong.append(f"a table that is not shown as one: {data.strip()[:60]}")

    def handle_endtag(self, tag):
        self.inside, self.code = None, self.code - (tag in ("pre", "code"))


def look_over(site):
    """(complaints, counts) for the pages, styles and programs in the folder `site`."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    complaints, inner, outer = [], 0, set()
    for path, page in pages.items():
        here = path.relative_to(site)
        complaints += [f"{here}: {one}" for one in page.wrong] + ([] if page.title else [f"{here}: no title"])
        for link, fetched in [(link, False) for link in page.links] + [(link, True) for link in page.fetched]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https") or link.startswith("//"):
                outer.add(link)
                complaints += [f"{here}: fetches {link}"] if fetched else []
            elif parts.scheme in ("", "file"):
                inner += 1
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                target = target / "index.html" if target.is_dir() else target
                if parts.scheme or not target.is_relative_to(site) or not target.is_file():
                    complaints.append(f"{here}: {link} leads nowhere")
                elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                    complaints.append(f"{here}: {link}: there is no such anchor")
            elif parts.scheme not in ("data", "mailto"):
                complaints.append(f"{here}: {link[:80]}: what is {parts.scheme}?")
    for path in sorted(site.rglob("*.css")):
        complaints += [f"{path.relative_to(site)}: a style fetches {''.join(found)}" for found in STYLES.findall(path.read_text(encoding="utf-8"))]
    for path in sorted(site.rglob("*.js")):
        complaints += [f"{path.relative_to(site)}: a program fetches {found}" for found in PROGRAMS.findall(path.read_text(encoding="utf-8")) if found not in NEVER]
    return complaints, {"pages": len(pages), "links within": inner, "links elsewhere (not tried)": len(outer)}


if __name__ == "__main__":
    found, counts = look_over(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "site").resolve())
    print("\n".join(found) or ", ".join(f"{number} {what}" for what, number in counts.items()))
    sys.exit(bool(found))
