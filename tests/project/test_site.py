"""The documentation's site builds without a warning, needs no network, and its links out of docs become paths."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md"]
RESOURCE = re.compile(r"<(?:script|img|iframe)\b[^>]*\bsrc=\"([^\"]*)\"|<link\b[^>]*\bhref=\"([^\"]*)\"")


def _build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["--config-file", str(config), "--site-dir", str(site)]
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = _build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_docs_is_in_the_site_and_no_script(site: Path) -> None:
    built = {path.stem for path in site.glob("*.html")} - {"404"}
    assert built == {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert (site / "search.ipynb").read_bytes() == (ROOT / "docs/search.ipynb").read_bytes()
    assert not list(site.glob("*.py"))


def test_a_page_loads_nothing_from_the_network(site: Path) -> None:
    for page in site.glob("*.html"):
        loaded = [a or b for a, b in RESOURCE.findall(page.read_text())]
        assert loaded
        assert not [address for address in loaded if "//" in address]


def test_a_link_out_of_docs_is_shown_as_a_path(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert "<code>CONTRIBUTING.md</code>" in page
    assert 'href="../' not in page


@pytest.mark.parametrize("target", ["missing.md", "index.md#missing", "/index.html"])
def test_a_broken_link_fails_the_build_and_is_named(target: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# Home\n\n[a page]({target})\n")
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text()) | {"nav": None, "hooks": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    done = _build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 1
    assert f"'{target}'" in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_to_a_file_of_the_project_leads_to_one(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    files = [link for link in links if link and not re.match(r"\w+:", link)]
    assert not [link for link in files if not (page.parent / link).exists()]
