"""Marks beside the generated answers: whose they are, and none where none were asked for."""

from types import SimpleNamespace

import pandas as pd
import pytest

from mipnb import extra_marks as module
from mipnb.extra_marks import extra_marks
from mipnb.generation import ANSWER_COLUMNS
from mipnb.metrics import MARK_COLUMNS

LABELS = {"run": "r", "model": "m", "benchmark": "b", "forget_ratio": 5}


def answers() -> pd.DataFrame:
    """One answer of three models to a free question, and one to options."""
    rows = [
        ("forget", "p", task, "text", "Where?", "In Rome.", "", [], said)
        for said in ("In Rome.", "In Oslo.", "?")
        for task in ("GEN", "QA")
    ]
    table = pd.DataFrame(rows, columns=ANSWER_COLUMNS)
    return table.assign(method=["vanilla"] * 2 + ["edited"] * 4, seed=[1, 1, 1, 1, 2, 2])


def likelihoods(method: str, mark: float) -> pd.DataFrame:
    rows = [("forget", "GEN", "text", "probability", "p", mark)]
    return pd.DataFrame(rows, columns=MARK_COLUMNS).assign(method=method, seed=1)


def params(judge_dir: str = "") -> SimpleNamespace:
    return SimpleNamespace(judge_dir=judge_dir, device="cpu", dtype="float32")


def test_nothing_asked_for_is_nothing():
    assert extra_marks(answers(), [], params(), LABELS) == []


def test_likelihoods_stay_with_their_method():
    found = pd.concat(
        extra_marks(answers(), [likelihoods("vanilla", 0.9), likelihoods("edited", 0.1)], params(), LABELS)
    )
    assert found.set_index("method").value.to_dict() == {
        "vanilla": pytest.approx(0.9),
        "edited": pytest.approx(0.1),
    }
    assert set(found.metric) == {"probability"}
    assert found[list(LABELS)].drop_duplicates().to_dict("records") == [LABELS]


def test_every_model_and_seed_is_judged_by_the_judge_of_the_folder(monkeypatch):
    loaded = []

    def load_judge(folder, device, dtype):
        loaded.append((folder.name, device, dtype))
        return lambda prompts: ["Grade: 10" if "Answer: In Rome." in text else "Grade: 1" if "Oslo" in text else "hm"
                                for text in prompts]  # fmt: skip

    monkeypatch.setattr(module, "load_judge", load_judge)
    found = pd.concat(extra_marks(answers(), [likelihoods("vanilla", 0.5)], params("judges/big"), LABELS))
    assert loaded == [("big", "cpu", "float32")]
    table = found.set_index(["method", "seed", "metric"]).value.to_dict()
    assert table == {
        ("vanilla", 1, "probability"): 0.5, ("vanilla", 1, "judge"): 1.0, ("edited", 1, "judge"): 0.0,
        ("vanilla", 1, "n_judge_unparsed"): 0, ("edited", 1, "n_judge_unparsed"): 0, ("edited", 2, "n_judge_unparsed"): 1,
    }  # fmt: skip
