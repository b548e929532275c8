"""A run on other people is published with its verdict, and only if nothing else was changed for it."""

from pathlib import Path

import pandas as pd
import pytest

from mipnb.artefacts import write_json
from mipnb.evaluation import COLUMNS, write_results
from mipnb.second_pocket import publish_second, second_text, second_verdict
from mipnb.verdict import FORGET_BARS, FORGOTTEN_SPLITS, KEPT_METRICS, KEPT_SPLITS


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one run: edited forgets, random does not."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "README.md").write_text("a\n<!-- second: begin (x) -->\nold\n<!-- second: end -->\nb\n")
    monkeypatch.chdir(tmp_path)
    cells = [(s, t, m, 0.0) for s in FORGOTTEN_SPLITS for t, m, _ in FORGET_BARS]
    cells += [(s, t, m, 0.99) for s in KEPT_SPLITS for t, m in KEPT_METRICS.items()]
    rows = [
        ["r", "m", "b", method, 5, 1, split, task, "text", metric, right, 9, 0.0, 1.0]
        for split, task, metric, value in cells
        for method, right in (("vanilla", 1.0), ("edited", value), ("random", 1.0))
    ]
    write_results(pd.DataFrame(rows, columns=COLUMNS), tmp_path / "run" / "05_evaluation" / "results.parquet")
    write_json(
        tmp_path / "run" / "05_evaluation" / "params.json", {"seed": 42, "benchmark_dir": "data/other"}
    )
    return tmp_path / "run"


def test_the_verdict_of_both_goes_into_data_and_readme(run: Path, tmp_path: Path):
    publish_second(str(run))
    found = pd.read_csv(tmp_path / "data" / "results" / "second_pocket.csv")
    assert found.groupby("method").met.sum().to_dict() == {"edited": 26, "random": 18}
    text = (tmp_path / "README.md").read_text()
    assert "| edited | 26 of 26 | forget | VQA | accuracy | 0.00 | <= 0.30 |" in text
    assert "| random | 18 of 26 | forget | VQA | accuracy | **1.000** | <= 0.30 |" in text
    assert "old" not in text


def test_the_least_of_those_kept_is_shown(run: Path):
    table = second_verdict(run)
    table.loc[
        (table.method == "edited") & (table.split == "celebrity") & (table.task == "QA"), "measured"
    ] = 0.5
    assert "| celebrity | QA | accuracy | 0.50 |" in second_text(table)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"seed": 7, "benchmark_dir": "data/other"}, "made with {'seed': 7}"),
        ({"benchmark_dir": "data/pocket"}, "the shipped people"),
    ],
)
def test_changed_parameters_and_the_shipped_people_are_refused(run: Path, tmp_path: Path, params, message):
    write_json(run / "05_evaluation" / "params.json", params)
    with pytest.raises(ValueError, match=message):
        publish_second(str(run))
    assert not (tmp_path / "data").exists()
