"""The documentation as a site: it builds without a warning, and every link leads somewhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from seqc.frontend.sources import shipped

ROOT = Path(__file__).parents[2]
SPECS = ["gla", "bidirectional_gru"]


class Page(HTMLParser):
    """The places that a page leads to, and those that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name == "id" and value:
                self.places.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    config.extra["specs"] = SPECS  # `make site` makes a page of each
    build(config)
    return folder


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    lost = []
    for path, page in pages.items():
        for link in page.links:
            told = urlparse(link)
            if told.scheme or told.netloc:
                continue
            target = (path.parent / unquote(told.path)).resolve() if told.path else path
            target = target / "index.html" if target.is_dir() else target
            known = not told.fragment or target not in pages or told.fragment in pages[target].places
            if path.name != "404.html" and not (target.is_file() and known):
                lost.append((path.relative_to(site).as_posix(), link))
    assert not lost
    assert len(pages) > 25


def test_specs_have_pages_with_their_graphs(site: Path) -> None:
    table = (site / "specs.html").read_text(encoding="utf-8")
    for name in SPECS:
        text = (site / "specs" / f"{name}.html").read_text(encoding="utf-8")
        assert "<svg" in text and "operations forward" in text and f'href="specs/{name}.html"' in table
    assert set(SPECS) < set(shipped())


def test_search_and_colours(site: Path) -> None:
    assert "eigenvalues" in (site / "search" / "search_index.json").read_text(encoding="utf-8")
    tutorial = (site / "tutorial.html").read_text(encoding="utf-8")
    assert '<span class="kd">state</span>' in tutorial, "specs are coloured by the lexer that seqc brings"
