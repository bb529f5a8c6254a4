"""Writes the pages of a MyST site as plain HTML; Jupyter Book calls it (`build: render` of template.yml).

It reads what Jupyter Book left beside its output, in ../site: config.json, a JSON of each page, public files. Links are
relative, so that pages open from disk and below any address.
"""

import html
import json
import os
import posixpath
import shutil
from pathlib import Path

import jinja2
from nbconvert.filters import markdown2html
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

HERE, OUT = Path(__file__).parent, Path(os.environ["BUILD_DIRECTORY"])
SITE = OUT.parent / "site"
TAGS = {
    "paragraph": "p", "strong": "strong", "emphasis": "em", "listItem": "li", "table": "table", "tableRow": "tr",
    "blockquote": "blockquote", "details": "details", "summary": "summary", "delete": "del",
}  # fmt: skip
PLAIN = {"root", "block", "outputs"}
NOTHING = {"comment"}


class Page:
    """One page: its JSON, and how deep it lies, which its links go up; `entry` is its line in the table of contents."""

    def __init__(self, entry: dict, urls: set[str]):
        self.data = json.loads((SITE / "content" / f"{entry['slug']}.json").read_text("utf-8"))
        self.title, self.address, self.urls = entry["title"], entry["url"], urls
        self.path = "index.html" if self.address == "/" else f"{self.address[1:]}.html"
        self.up = "../" * self.path.count("/")

    def url(self, url: str) -> str:
        """An address as this page has to write it; "/a/b" is a page of the site or one of its files."""
        place, mark, anchor = url.partition("#")
        if not place.startswith("/"):
            return url
        if place in self.urls:
            return self.up + (f"{place[1:]}.html" if place != "/" else "index.html") + mark + anchor
        return self.up + (f"build{place}" if (SITE / "public" / place[1:]).is_file() else place[1:]) + mark + anchor

    def repository_file(self, source: str) -> str:
        """The address of a page of a run, whose own links need its neighbours; "" for any other file."""
        place = posixpath.normpath(posixpath.join(posixpath.dirname(self.data["location"]), source))
        return f"{self.up}files{place}" if place.startswith("/outputs/") and place.endswith(".html") else ""

    def html(self, node: dict) -> str:
        """A node of MyST's tree, with all below it. Raises KeyError for a kind that it does not know."""
        kind, text = node["type"], node.get("value", "")
        if kind in PLAIN or kind in TAGS or kind in ("heading", "list", "link", "crossReference", "tableCell"):
            inside = "".join(map(self.html, node.get("children", [])))
        named = f' id="{html.escape(node["html_id"])}"' if node.get("html_id") else ""
        match kind:
            case _ if kind in PLAIN:
                return inside
            case _ if kind in TAGS:
                return f"<{TAGS[kind]}>{inside}</{TAGS[kind]}>"
            case _ if kind in NOTHING:
                return ""
            case "text":
                return html.escape(text, quote=False)
            case "inlineCode":
                return f"<code>{html.escape(text)}</code>"
            case "inlineMath" | "math":
                return node["html"]
            case "html":
                return text
            case "break":
                return "<br>"
            case "thematicBreak":
                return "<hr>"
            case "heading":
                return f"<h{node['depth']}{named}>{inside}</h{node['depth']}>"
            case "list":
                return f"<ol>{inside}</ol>" if node["ordered"] else f"<ul>{inside}</ul>"
            case "tableCell":
                tag = "th" if node.get("header") else "td"
                return f'<{tag} style="text-align:{node.get("align") or "left"}">{inside}</{tag}>'
            case "link" if node.get("static") and (file := self.repository_file(node["urlSource"])):
                return f'<a href="{html.escape(file)}">{inside}</a>'
            case "link" | "crossReference":
                anchor = f"#{node['html_id']}" if kind == "crossReference" and node.get("html_id") else ""
                return f'<a href="{html.escape(self.url(node.get("url", "") + anchor))}">{inside}</a>'
            case "image":
                return f'<img src="{html.escape(self.url(node["url"]))}" alt="{html.escape(node.get("alt", ""))}">'
            case "code":
                return self.code(text, node.get("lang") or "text")
            case "output":
                return self.output(node)
        raise KeyError(f"{self.path}: no rule for {kind!r}")

    def code(self, text: str, language: str) -> str:
        """Code in colours, where its language is known."""
        try:
            lexer = get_lexer_by_name(language)
        except ClassNotFound:
            lexer = get_lexer_by_name("text")
        return highlight(text, lexer, HtmlFormatter(cssclass="code"))

    def output(self, node: dict) -> str:
        """What a cell printed or showed, in the richest form that a page can hold."""
        if node.get("children"):  # Markdown, read by MyST
            return f'<div class="output">{"".join(map(self.html, node["children"]))}</div>'
        found = node["jupyter_data"]
        if found["output_type"] == "stream":
            return f'<pre class="output">{html.escape(self.whole(found, "text"))}</pre>'
        data = found.get("data", {})
        if image := next((data[kind] for kind in ("image/svg+xml", "image/png") if kind in data), None):
            alt = found.get("metadata", {}).get("image/png", {}).get("alt", "") or data.get("text/plain", {}).get(
                "content", ""
            )
            return f'<div class="output"><img src="{self.url(image["path"])}" alt="{html.escape(alt)}"></div>'
        if "text/markdown" in data:
            return f'<div class="output">{markdown2html(self.whole(data["text/markdown"], "content"))}</div>'
        if "text/html" in data:
            return f'<div class="output">{self.whole(data["text/html"], "content")}</div>'
        return f'<pre class="output">{html.escape(self.whole(data.get("text/plain", {}), "content"))}</pre>'

    def whole(self, held: dict, name: str) -> str:
        """A text, which lies in a file of its own when it is long."""
        return (SITE / "public" / held["path"].lstrip("/")).read_text("utf-8") if "path" in held else held.get(name, "")


def main() -> None:
    """Write every page, the style sheet and the public files."""
    config = json.loads((SITE / "config.json").read_text("utf-8"))
    entries = [{"slug": "index", "title": config["title"], "level": 1, "url": "/"}, *config["projects"][0]["pages"]]
    for entry in entries[1:]:
        if "slug" in entry:
            entry["url"] = "/" + entry["slug"].replace(".", "/")
    listed = [entry for entry in entries if "slug" in entry]
    urls = {entry["url"] for entry in listed}
    pages = [Page(entry, urls) for entry in listed]
    template = jinja2.Template((HERE / "page.html.jinja").read_text("utf-8"), undefined=jinja2.StrictUndefined)
    for page, before, after in zip(pages, [None, *pages], [*pages[1:], None], strict=False):
        values = {"page": page, "before": before, "after": after, "config": config, "entries": entries}
        text = template.render(**values, repository=os.environ.get("GITHUB_REPOSITORY", ""))
        (OUT / page.path).parent.mkdir(parents=True, exist_ok=True)
        (OUT / page.path).write_text(text, "utf-8")
    shutil.copytree(SITE / "public", OUT / "build", dirs_exist_ok=True)
    style = (HERE / "style.css").read_text("utf-8") + HtmlFormatter(style="friendly").get_style_defs(".code")
    (OUT / "style.css").write_text(style, "utf-8")


main()
