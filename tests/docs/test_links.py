"""Links between the pages in docs/ lead somewhere, and the glossary is in order."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINKS = [
    (page.name, target)
    for page in PAGES
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    if "://" not in target
]


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("page", "target"), sorted(set(LINKS)))
def test_a_link_between_pages_leads_to_a_page_and_a_heading(page: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    linked = DOCS / path if path else DOCS / page
    assert linked.exists()
    assert not anchor or anchor in _anchors(linked)


def test_the_glossary_is_alphabetical_and_explains_each_term_once() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| [^|]+ \| \[", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) > 30
    assert rows == sorted(rows, key=str.lower)
    assert len(set(rows)) == len(rows)
