"""A memory budget: held, without changing scores, and refused when one sample does not fit."""

from functools import partial

import pytest
import torch
from toys import Chain, chain_batch, questions, tiny_vl, toy_scores

from mipnb import budget
from mipnb.attribution import attribute
from mipnb.measuring import interleaved, peak_bytes, seconds_of
from mipnb.models import ffns
from mipnb.parts import lengths, longest, parts_by_length, pick, trimmed

CASES = [("text", [(4, 4), (2, 6), (8, 4)]), ("vision", [(4, 4), (2, 6), (8, 4)])]
LENGTHS = [7, 9, 5]


@pytest.mark.parametrize(("branch", "grids"), CASES)
@pytest.mark.parametrize(
    ("search", "score", "rule"),
    [
        ("greedy", "joint", "right"),
        ("greedy", "complete", "right"),
        ("one_pass", "complete", "right"),
        ("greedy", "complete", "stieltjes"),
        ("one_pass", "complete", "stieltjes"),
    ],
)
def test_passes_stay_within_the_budget_and_scores_stay_the_same(branch, grids, search, score, rule):
    model, batch = tiny_vl(), questions(grids * 2, LENGTHS * 2)
    choices = {
        "search": search,
        "score": score,
        "rule": rule,
        "top_k": 2,
        "fingerprint": "",
        "completeness": False,
        "n_steps": 2,
    }
    free = attribute(model, batch, branch, **choices)
    for memory_gb in (0.004, 0.0015):
        call = partial(attribute, model, batch, branch, memory_gb=memory_gb, **choices)
        held = call()
        assert torch.allclose(held.values, free.values, rtol=1e-4, atol=1e-5 * free.values.abs().max().item())
        kept = held.values.nbytes * 3  # results, which grow with the samples and not with a pass
        assert peak_bytes(call, model) < memory_gb * 1e9 + kept


def test_more_memory_means_fewer_passes():
    model, batch, passes = tiny_vl(), questions([(0, 0)] * 3, LENGTHS), []
    hook = ffns(model, "text")[-1].output.register_forward_pre_hook(lambda module, args: passes.append(1))
    counts = []
    for memory_gb in (0.001, 0.1):
        passes.clear()
        attribute(model, batch, "text", memory_gb=memory_gb, top_k=2, n_steps=8)
        counts.append(len(passes))
    hook.remove()
    assert counts[0] > counts[1]


def test_a_budget_too_small_for_one_sample_says_what_it_takes():
    with pytest.raises(ValueError, match=r"memory_gb is 1e-08, but one sample of 4 tokens takes about .* GB"):
        toy_scores(Chain(), chain_batch(), memory_gb=1e-8)


def test_the_dearest_sample_counts_whether_text_or_picture_makes_it_so():
    """The longest question has the smallest picture: what the other one takes must fit, too."""
    model, batch = tiny_vl(), questions([(4, 4), (32, 32)], [400, 5])
    choices = {"top_k": 2, "completeness": False, "fingerprint": "", "search": "one_pass"}
    for sample in (0, 1):
        alone = trimmed(pick(batch, torch.tensor([sample])))
        with pytest.raises(ValueError, match="takes about") as told:
            attribute(model, alone, "vision", memory_gb=1e-6, **choices)
        needed = float(str(told.value).split("takes about ")[1].split(" GB")[0])
        with pytest.raises(ValueError, match="one sample of"):
            attribute(model, batch, "vision", memory_gb=0.9 * needed, **choices)


def test_a_budget_that_is_no_number_is_refused_and_a_cut_graph_is_told_under_a_budget_too():
    model, batch = tiny_vl(), questions([(4, 4)], [5])
    for none in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"memory_gb is {none}; expected a finite number"):
            attribute(model, batch, "vision", memory_gb=none)
    model.model.visual.forward = torch.no_grad()(model.model.visual.forward)
    with pytest.raises(ValueError, match="no gradient reaches any of the 3 layers"):
        attribute(model, batch, "vision", memory_gb=1.0)


def test_max_rows_still_bounds_what_a_large_budget_allows():
    model, batch, rows = Chain(), chain_batch(samples=5), []
    hook = model.outs[0].register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    toy_scores(model, batch, memory_gb=1.0, max_rows=3)
    hook.remove()
    assert max(rows) <= 3


# ---- parts


def test_parts_are_of_like_length_and_trimmed():
    batch = questions([(0, 0)] * 5, [7, 12, 5, 8, 12])
    parts = list(parts_by_length(batch, 3))
    assert [rows.tolist() for rows, _ in parts] == [[2, 0, 3], [1, 4]]
    assert [part["labels"].shape for _, part in parts] == [(3, 8), (2, 12)]
    rows, part = parts[0]
    for index, row in enumerate(rows.tolist()):
        length = int(lengths(batch)[row])
        assert torch.equal(part["input_ids"][index, :length], batch["input_ids"][row, :length])


def test_scores_are_in_the_order_asked():
    model, batch = tiny_vl(), questions([(0, 0)] * 5, [7, 12, 5, 8, 12])
    found = attribute(model, batch, "text", search="greedy", max_rows=2, top_k=2)
    for row in range(5):
        alone = attribute(model, pick(batch, torch.tensor([row])), "text", search="greedy", top_k=2)
        assert torch.allclose(found.values[row], alone.values[0], rtol=1e-3, atol=1e-6)
        assert torch.allclose(found.f_full[row], alone.f_full[0])
        assert torch.allclose(found.gap[row], alone.gap[0], rtol=1e-2, atol=1e-4)


def test_picked_samples_bring_their_own_picture():
    batch = questions([(4, 4), (2, 6), (8, 4)], LENGTHS)
    part = pick(batch, torch.tensor([2, 0]))
    assert part["image_grid_thw"].tolist() == [[1, 8, 4], [1, 4, 4]]
    assert torch.equal(
        part["pixel_values"], torch.cat([batch["pixel_values"][28:], batch["pixel_values"][:16]])
    )
    assert longest(batch)["image_grid_thw"].tolist() == [[1, 8, 4]]


def test_nothing_is_trimmed_that_a_sample_has_tokens_in():
    batch = questions([(0, 0)] * 2, [7, 9])
    assert trimmed(batch)["labels"].shape == (2, 9)
    assert trimmed({"labels": batch["labels"]})["labels"].shape == (2, 9)


# ---- measuring


def test_the_peak_is_what_lives_at_one_time():
    def call():
        a = torch.ones(1000, 1000)
        b = a * 2
        del a
        return b + 1

    assert peak_bytes(call, torch.nn.Module()) == pytest.approx(8e6, rel=0.01)


def test_time_is_that_of_one_thread_and_all_are_there_again():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        seconds_of(lambda: seen.append(torch.get_num_threads()))
        interleaved({"": lambda: seen.append(torch.get_num_threads())}, 1)
        assert seen == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_calls_take_turns_after_one_uncounted_round():
    made = []
    found = interleaved({"a": lambda: made.append("a"), "b": lambda: made.append("b")}, 2)
    assert made == ["a", "b"] * 3
    assert [len(seconds) for seconds in found.values()] == [2, 2]


@pytest.mark.parametrize(("name", "value"), [("memory_gb", float("nan")), ("n_steps", 0), ("n_steps", 2.5)])
def test_numbers_that_are_none_are_refused(name: str, value: float):
    with pytest.raises(ValueError, match=f"{name} is {value}; expected"):
        toy_scores(Chain(), chain_batch(), **{name: value})


def test_what_a_sample_takes_does_not_depend_on_where_memory_lies(monkeypatch):
    counts, count = [], budget.row_bytes
    monkeypatch.setattr(budget, "row_bytes", lambda *given: counts.append(count(*given)) or counts[-1])
    model, batch = tiny_vl(), questions([(0, 0)] * 3, LENGTHS)
    for rule in ("right", "midpoint") * 3:
        attribute(model, batch, "text", memory_gb=0.01, top_k=2, rule=rule)
    assert len(counts) == 6
    assert len(set(counts)) == 1
