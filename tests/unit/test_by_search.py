"""What paths of searches are worth, by hand."""

import pandas as pd
import pytest

from mipnb.evidence.by_search import with_overlap, worth_sentences, worth_table


def marks_of(falls: dict[str, tuple[float, float]], people: int = 4, questions: int = 8) -> pd.DataFrame:
    """Marks of one unit whose choices take so much from (forget, retain), the same of everybody."""
    rows = []
    for choice, fall in {"nothing": (0.0, 0.0), **falls}.items():
        measure, k = ("nothing", 0) if choice == "nothing" else ("remove", 3)
        for group, lost in zip(("forget", "retain"), fall, strict=True):
            for person in range(people):
                rows.append(("vanilla/0", "text", measure, choice, 0, k, group, "text", f"{group} {person}", 1 - lost,
                             1 - lost / 2, questions))  # fmt: skip
    columns = ["unit", "branch", "measure", "choice", "draw", "k", "set", "modality", "person_id", "recall"]
    return pd.DataFrame(rows, columns=[*columns, "probability", "n"])


FALLS = {
    "greedy, forget": (0.8, 0.4),
    "greedy, contrast": (0.5, 0.2),
    "tangent, contrast": (0.4, 0.1),
    "random": (0.1, 0.1),
}


def overlap(estimator: str, value: float, pair: str = "text", kind: str = "igi") -> dict:
    return {"pair": pair, "estimator": estimator, "layer": "all", "measure": "top_k_overlap", "value": value,
            "rule": "right", "kind": kind}  # fmt: skip


AGREEMENT = pd.DataFrame(
    [
        overlap("greedy", 0.5),
        overlap("tangent", 0.9),
        overlap("greedy", 0.7, "vision", "ifi"),
        overlap("greedy", 0.1, "text_pictured"),
        overlap("greedy", 0.2, "vision", "igi"),
    ]
)


def test_a_row_a_search_and_ranking_by_either_mark():
    table = worth_table({"text": marks_of(FALLS)})
    found = table.set_index(["mark", "search", "ranking"])
    assert found.loc[("recall", "greedy", "forget"), ["necessity", "spared", "ratio"]].tolist() == (
        pytest.approx([0.8, 0.4, 2.0])
    )
    assert found.necessity["probability", "tangent", "contrast"] == pytest.approx(0.2)
    assert found.ratio["recall", "random", ""] == pytest.approx(1)
    assert len(table) == 2 * len(FALLS)


def test_overlap_is_that_of_the_branch_and_kind():
    worth = worth_table({"text": marks_of(FALLS), "vision": marks_of({"greedy, forget": (0.2, 0.1)})})
    table = with_overlap(worth, AGREEMENT, {"text": "igi", "vision": "ifi"})
    assert "random" not in set(table.search)
    shown = table[table.mark == "recall"].set_index(["branch", "search", "ranking"]).overlap
    assert shown.to_dict() == {
        ("text", "greedy", "forget"): 0.5,
        ("text", "greedy", "contrast"): 0.5,
        ("text", "tangent", "contrast"): 0.9,
        ("vision", "greedy", "forget"): 0.7,
    }


def test_the_most_specific_is_named_and_what_goes_with_overlap():
    table = with_overlap(worth_table({"text": marks_of(FALLS)}), AGREEMENT, {"text": "igi"})
    told = worth_sentences(table[(table.mark == "recall") & (table.ranking == "contrast")])
    assert (
        "text, by `contrast`: `tangent` 4.00 (4.00 to 4.00; necessity 0.40, overlap 0.90); `greedy` 2.50"
        in told
    )
    assert (
        "Over the 2 searches overlap has a rank correlation of 1.00 with the ratio, and of -1.00 with nec"
        in told
    )
