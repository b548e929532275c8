"""Scores of many questions: the same as one by one, and what is read off them by hand."""

import pytest
import torch

from mipnb import locating
from mipnb.attribution import attribute
from mipnb.batches import encode
from mipnb.benchmarks import Question, draw_questions, forget_ids, load_training
from mipnb.locating import (
    by_person,
    concentration,
    gap_by_steps,
    gap_verdict,
    held_by,
    locate,
    of_modality,
    question_names,
    rank_correlation,
)
from mipnb.models import load_model, load_processor
from mipnb.scores import Scores

ROOT, MODEL = "data/pocket", "data/pocket/vanilla"


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL)


@pytest.fixture(scope="module")
def processor():
    return load_processor(MODEL)


@pytest.fixture(scope="module")
def drawn():
    return draw_questions(load_training(ROOT, ids=forget_ids(ROOT, 5)), 3, 0)


def _scores(values, names=None):
    values = torch.tensor(values, dtype=torch.float32)
    return Scores("text", values, tuple(names or map(str, range(len(values)))), "model")


def test_names_tell_person_and_count():
    asked = [Question(person, "FT", "?", "!") for person in ("b", "a", "b", "b")]
    assert question_names(asked) == ["b/0", "a/0", "b/1", "b/2"]


def test_many_batches_are_the_questions_one_by_one(model, processor, drawn):
    asked = of_modality(drawn, "image_text")
    found = locate(model, processor, asked, "vision", batch_size=2, n_steps=2, top_k=3)
    single = [attribute(model, encode(processor, [q]), "vision", n_steps=2, top_k=3).values[0] for q in asked]
    torch.testing.assert_close(found.values, torch.stack(single), rtol=1e-2, atol=1e-5)
    assert list(found.names) == question_names(asked)
    assert found.parameters["kind"] == "ifi"


def test_nothing_to_locate_on_is_refused(model, processor):
    with pytest.raises(ValueError, match="no question"):
        locate(model, processor, [], "text")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_questions_of_both_modalities_are_refused_whatever_goes_through_at_a_time(
    model, processor, drawn, batch_size
):
    text, pictured = (of_modality(drawn, kind)[:1] for kind in ("text", "image_text"))
    with pytest.raises(ValueError, match="questions of one modality are needed at a time"):
        locate(model, processor, text + pictured, "text", batch_size)


def test_each_person_gets_the_own_rows():
    parts = by_person(_scores([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]], ["b/0", "a/0", "b/1"]))
    assert list(parts) == ["a", "b"]
    assert parts["b"].values.tolist() == [[[1, 2]], [[5, 6]]]
    assert parts["b"].names == ("b/0", "b/1")


def test_concentration_counts_magnitudes_of_the_mean_over_samples():
    scores = _scores([[[4.0, 0.0], [-1.0, 1.0]], [[2.0, 0.0], [-3.0, -1.0]]])  # mean 3, 0; -2, 0
    curve = concentration(scores)
    assert curve.top.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.held.tolist() == pytest.approx([0.6, 1, 1, 1])
    assert held_by(scores, 0.25) == pytest.approx(0.6)
    assert held_by(scores, 0.001) == pytest.approx(0.6), "at least one neuron"


def test_the_gap_closes_with_steps(model, processor, drawn):
    table = gap_by_steps(model, processor, of_modality(drawn, "text")[:2], "text", (1, 32), ("right",))
    assert len(table) == 4
    gap = table.groupby("n_steps").gap.median()
    assert gap[32] < 0.5 * gap[1]


def test_rank_correlation_is_of_ranks():
    one, cubed = _scores([[[1.0, 2.0], [3.0, -4.0]]]), _scores([[[1.0, 8.0], [27.0, -64.0]]])
    assert rank_correlation(one, cubed) == pytest.approx(1)
    assert rank_correlation(one, _scores([[[-1.0, -2.0], [-3.0, 4.0]]])) == pytest.approx(-1)


def test_a_large_gap_is_called_large():
    words = gap_verdict({"text": 0.05, "vision": 0.4}, "right", 4)
    assert "m = 4 the median gap is 0.05 (text) and 0.40 (vision)" in words
    assert "large (vision)" in words
    assert "good as amounts" in gap_verdict({"text": 0.05}, "right", 4)
    assert "large" in gap_verdict({"text": float("nan")}, "right", 4)


def test_a_gap_that_is_none_by_construction_is_not_praised():
    words = gap_verdict({"text": 0.0}, "stieltjes", 4)
    assert "by construction" in words
    assert "good as amounts" not in words


@pytest.mark.parametrize(("search", "most"), [("shortlist", 3 * 2), ("exact", 3 * 2), ("greedy", 64)])
def test_the_batch_says_how_many_rows_a_search_of_many_sets_takes(
    model, processor, drawn, search, most, monkeypatch
):
    asked, rows = of_modality(drawn, "text"), []

    def noted(*args, max_rows, **choices):
        rows.append(max_rows)
        return attribute(*args, max_rows=max_rows, **choices | {"search": "gradient"})

    monkeypatch.setattr(locating, "attribute", noted)
    locate(model, processor, asked, "text", batch_size=3, n_steps=2, search=search)
    assert set(rows) == {most}


def test_gaps_do_not_depend_on_the_rows_that_fit(model, processor, drawn, monkeypatch):
    asked = of_modality(drawn, "text")[:2]
    whole = gap_by_steps(model, processor, asked, "text", (4, 16), ("right",))

    def small(*args, max_rows, **choices):
        if max_rows > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return attribute(*args, max_rows=max_rows, **choices)

    monkeypatch.setattr(locating, "attribute", small)
    with pytest.warns(RuntimeWarning, match="going on with 8"):
        halved = gap_by_steps(model, processor, asked, "text", (4, 16), ("right",))
    torch.testing.assert_close(torch.tensor(halved.gap), torch.tensor(whole.gap), rtol=1e-3, atol=1e-5)
