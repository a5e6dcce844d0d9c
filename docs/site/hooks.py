"""What MkDocs does beside the pages of docs/: pages of the files at the top of the checkout, a page for every shipped spec,
colours. In: the build's events. Out: files that exist for the site alone, and links that lead to them.

A link of a page to a file outside of docs/ leads to a copy of the file in the site, and to a page where it is Markdown; a link
to a folder leads to a list of its files.
"""

from __future__ import annotations

import os
import re
from html import escape
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files
from pygments.formatters import HtmlFormatter

from seqc.driver.compile import compile_spec
from seqc.driver.explain.page import STYLE, body
from seqc.driver.options import Options
from seqc.frontend.sources import shipped

ROOT = Path(__file__).parents[2]
TOP = {"README.md": "index.md", **{name: name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")}}
SOURCE = "source"  # folder of the site with copies of what lies outside of docs/
_LINK = re.compile(r"(?<!\!)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(```.*?```)", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    for name, page in TOP.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_linked(text, name, files, config)))
    for file in list(files.documentation_pages()):
        if file.abs_src_path:  # a file of docs/, and not one that is made here
            text = Path(file.abs_src_path).read_text(encoding="utf-8")
            linked = _linked(text, f"docs/{file.src_uri}", files, config)
            files.remove(file)
            files.append(File.generated(config, file.src_uri, content=linked))
    known = shipped()
    for name in config.extra.get("specs") or known:
        files.append(File.generated(config, f"specs/{name}.md", content=spec_page(name)))
    table = files.get_file_from_path("specs.md")
    assert table is not None
    made = _specs_linked(table.content_string, files)
    files.remove(table)
    files.append(File.generated(config, "specs.md", content=made))
    files.append(File.generated(config, "colours.css", content=colours()))
    return files


def spec_page(name: str) -> str:
    """The page of a shipped spec: what `seqc explain --html` shows."""
    compiled = compile_spec(name, Options("auto", "sm_90", {}, None, None))
    return f"---\ntitle: {name}\n---\n\n{body(compiled, level=1)}\n"


def colours() -> str:
    """The style sheet: of code, and of the pages of specs."""
    own = [line for line in STYLE.strip().splitlines() if not line.startswith(("body", "h1", "h2", "h3", "p ", "ul"))]
    wide = [
        ".wy-nav-content { max-width: 76rem; }",
        ".rst-content .wy-table-responsive table td, .rst-content .wy-table-responsive table th "
        "{ white-space: normal; padding: .3rem .5rem; vertical-align: top; }",
        ".rst-content table td:nth-child(2):nth-last-child(5) { min-width: 16rem; }",  # what a spec is, in the table of specs
    ]
    return "\n".join([HtmlFormatter().get_style_defs(".codehilite"), *own, *wide]) + "\n"


def _linked(text: str, here: str, files: Files, config: Any) -> str:
    """A page's text with its links as the site has them. here: the page's path in the checkout."""

    def link(match: re.Match[str]) -> str:
        target = normpath(os.path.join(os.path.dirname(here), match[1]))
        page = _page(target, files, config)
        own = TOP.get(here, here.removeprefix("docs/"))
        return f"]({relpath(page, os.path.dirname(own) or '.')}{match[2] or ''})"

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def _page(target: str, files: Files, config: Any) -> str:
    """Where a file of the checkout lies in the site; it is added where it is not there yet."""
    if target in TOP:
        return TOP[target]
    path = ROOT / target
    if target.startswith("docs/") and path.is_file():
        return target.removeprefix("docs/")
    if path.suffix == ".md" and path.is_file():
        page, text = f"{SOURCE}/{target}", path.read_text(encoding="utf-8")
    elif path.is_dir():
        names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir() if not entry.name.startswith(("_", ".")))
        page, text = f"{SOURCE}/{target}/index.md", f"# {target}/\n\n" + "\n".join(f"- `{name}`" for name in names) + "\n"
    elif path.is_file():
        page, text = f"{SOURCE}/{target}.md", f"# {target}\n\n<pre>{escape(path.read_text(encoding='utf-8'))}</pre>\n"
    else:
        return target  # MkDocs tells of the link that leads nowhere
    if files.get_file_from_path(page) is None:
        files.append(File.generated(config, page, content=text))
    return page


def _specs_linked(text: str, files: Files) -> str:
    """The table of specs, each name a link to its page."""
    def row(match: re.Match[str]) -> str:
        page = f"specs/{match[1]}.md"
        return f"| [{match[1]}]({page}) |" if files.get_file_from_path(page) else match[0]

    return re.sub(r"^\| (\w+) \|", row, text, flags=re.MULTILINE)
