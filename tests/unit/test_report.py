"""What a notebook reports at its end."""

from pathlib import Path

import numpy as np
import pytest

import mipnb
from mipnb.artefacts import read_json
from mipnb.report import finish, peak_memory_gb, replace_block


def test_usage_is_written_and_shown(tmp_path: Path):
    table = finish(tmp_path, seed=42, device="cpu")
    usage = read_json(tmp_path / "usage.json")
    assert set(usage) >= {"seconds", "peak_memory_gb"}
    assert usage["seconds"] > 0
    assert table.loc["seed", "value"] == "42"
    assert table.loc["mipnb", "value"] == mipnb.__version__
    assert table.loc["peak_memory_gb", "value"] == str(usage["peak_memory_gb"])


def test_peak_memory_stays_after_memory_is_freed():
    before = peak_memory_gb()
    block = np.ones(2**25)  # 0.25 GB
    del block
    assert peak_memory_gb() > 0.25
    assert peak_memory_gb() >= before


def test_a_block_is_replaced_and_nothing_else(tmp_path: Path):
    page = tmp_path / "README.md"
    page.write_text("a\n<!-- numbers: begin (by code) -->\n<!-- numbers: end -->\nb\n")
    for text in ("one \\1", "| two |\n| 2 |\n"):
        replace_block(page, "numbers", text)
        block = f"<!-- numbers: begin (by code) -->\n{text.strip()}\n<!-- numbers: end -->"
        assert page.read_text() == f"a\n{block}\nb\n"
    with pytest.raises(ValueError, match=r"README\.md has 0 blocks"):
        replace_block(page, "figures", "x")


def test_the_readme_has_its_block():
    assert "<!-- numbers: begin" in (Path(mipnb.__file__).parents[1] / "README.md").read_text()
