"""The pictures of the README show what the program draws today."""

import html
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def _words(picture: str) -> list[str]:
    """The texts of an SVG picture, in order."""
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", picture)]


def test_the_live_screen_of_the_readme_is_drawn_from_the_recorded_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import pictures  # type: ignore[import-not-found]

    pictures.main(["--out", str(tmp_path / "live.svg")])
    drawn = _words((tmp_path / "live.svg").read_text(encoding="utf-8"))
    assert drawn == _words((DOCS / "images" / "live.svg").read_text(encoding="utf-8"))
    assert any("100/200" in text for text in drawn)
    sys.modules.pop("pictures")
