"""The documentation site: built from the committed notebooks, whole, and readable without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mipnb
from mipnb.artefacts import project_root

pytestmark = pytest.mark.slow
ROOT = project_root()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-c", "docs", "-b", "html", "-d", str(folder / "kept")]
    done = subprocess.run([*command, ".", str(folder / "html")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr, done.stderr
    return folder / "html"


def test_every_notebook_is_a_page_with_its_title(site: Path):
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        page = (site / "notebooks" / f"{path.stem}.html").read_text()
        assert re.search(r"<h1>.+</h1>", page, re.DOTALL), path.stem


def test_the_interface_is_there_with_signatures(site: Path):
    page = (site / "docs" / "api.html").read_text()
    for name in mipnb.__all__:
        assert f'id="mipnb.{name}"' in page or f'.{name}"' in page, name
    assert "forget_batches" in page


def test_no_page_needs_a_network(site: Path):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img)[^>]*src=\"(https?:[^\"]+)|<link[^>]*stylesheet[^>]*href=\"(https?:[^\"]+)",
            page.read_text(),
        )
        assert not loaded, (page.name, loaded[:3])
    assert (site / "_static" / "mathjax" / "tex-chtml.js").is_file()
