"""What a notebook reports at its end."""

from pathlib import Path

import numpy as np

import mipnb
from mipnb.artefacts import read_json
from mipnb.report import finish, peak_memory_gb


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
