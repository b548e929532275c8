"""The trial's measures on a net whose answers hang on one planted neuron: what has to come out is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from planted import FORGET, NEURONS, RETAIN, planted_asked, planted_net
from toys import chain_batch, tiny_vl

from mipnb.evidence.activations import KINDS, PADDING, activation_sums, averaged, position_kinds, removing
from mipnb.evidence.asked import Asked, answer_marks
from mipnb.evidence.controls import lowest, random_rankings
from mipnb.evidence.measures import branch_marks, layer_effects
from mipnb.evidence.ranked import Ranked, even_sizes, given, weighted_sizes
from mipnb.evidence.verdicts import measure_table, verdict_table
from mipnb.paths import NeuronPath


@pytest.fixture(scope="module")
def net():
    return planted_net()


@pytest.fixture(scope="module")
def asked():
    return planted_asked()


def planted(choice="path"):
    values = torch.zeros(1, NEURONS)
    values[0, FORGET] = 1
    return Ranked(choice, values)


def marks_of(net, asked, path, steps=(1,)):
    ranked = [path, lowest(path), *random_rankings(path.values, 20, 1)]
    means = torch.zeros(len(KINDS), 1, NEURONS)
    sizes = {k: even_sizes(k, 1, NEURONS) for k in steps}
    return branch_marks(net, asked, net.ffns, "text", ranked, sizes, means)


def test_recall_is_what_greedy_decoding_says(net, asked):
    marks = answer_marks(net, asked)
    assert marks.recall.tolist() == [1.0] * 16
    assert np.allclose(marks.probability, 0.95)
    after = answer_marks(net, asked, removing(net.ffns, [[FORGET]])).set_index("person_id")
    assert after.loc["forget0", "recall"] == 0
    assert after.loc["forget0", "probability"] == pytest.approx(0.05)
    assert after.loc["retain0", "recall"] == 1


def test_one_wrong_token_is_no_recall():
    from mipnb.evidence.asked import _said

    logits = torch.tensor([[[0.0, 1.0], [2.0, 1.0], [0.0, 1.0]]]).repeat(3, 1, 1)
    labels = torch.tensor([[-100, 1, 0], [-100, 1, 1], [-100, -100, 0]])
    assert _said(logits, labels).tolist() == [1, 0, 1]


def test_the_planted_neuron_is_better_than_random_on_every_measure(net, asked):
    table = verdict_table(marks_of(net, asked, planted(), (1, 2, 4)), k=1).set_index("measure")
    assert set(table.index) == {"necessity", "spared", "ratio", "sufficiency", "area_removed", "area_kept"}
    assert (table.verdict == "better").all()
    assert table.loc["necessity", "value"] == 1 == table.loc["sufficiency", "value"]
    assert table.loc["ratio", "value"] == pytest.approx(
        1 / (0.5 / 8)
    )  # no retain loss counts as half a question


def test_a_random_path_is_not_better_than_random(net, asked):
    path = Ranked("path", random_rankings(torch.zeros(1, NEURONS), 1, 7)[0].values)
    assert FORGET not in path.top([1])[0]
    table = verdict_table(marks_of(net, asked, path, (1, 2, 4)), k=1)
    assert "better" not in set(table.verdict)


def test_the_retain_sets_neuron_is_worse_where_sparing_counts(net, asked):
    values = torch.zeros(1, NEURONS)
    values[0, RETAIN] = 1
    table = verdict_table(marks_of(net, asked, Ranked("path", values))).set_index("measure")
    assert table.loc["spared", "verdict"] == "worse"
    assert table.loc["spared", "value"] == -1


def test_intervals_hold_the_value_and_shrink_with_people():
    def marks(n):
        rows = [("u", "text", m, c, 0, k, s, "text", f"{s}{i}", 1.0, 1.0, 1) for i in range(n) for s in ("forget", "retain")
                for m, c, k in (("nothing", "nothing", 0), ("remove", "path", 1))]  # fmt: skip
        table = pd.DataFrame(rows, columns=["unit", "branch", "measure", "choice", "draw", "k", "set", "modality",
                                            "person_id", "recall", "probability", "n"])  # fmt: skip
        hit = (
            (table.choice == "path")
            & (table["set"] == "forget")
            & table.person_id.str[6:].isin([str(i) for i in range(0, n, 2)])
        )
        return table.assign(recall=table.recall.where(~hit, 0.0))

    wide, narrow = (measure_table(marks(n)).set_index("measure").loc["necessity"] for n in (6, 60))
    for row in (wide, narrow):
        assert row.value == pytest.approx(0.5)
        assert row.low < 0.5 < row.high
    assert narrow.high - narrow.low < wide.high - wide.low
    assert 0.2 < narrow.high - narrow.low < 0.3  # 2 * 1.96 * sqrt(.25 / 60) = .253


COLUMNS = [
    "unit", "branch", "measure", "choice", "draw", "k", "set", "modality", "person_id", "recall", "probability", "n",
]  # fmt: skip


def necessity(units, people, fall):
    """The row of a path that takes `fall(unit, number)` from the forget set's people, named `people(unit)` and a number."""
    rows = [
        (unit, "text", *what, group, "text", f"{people(unit)}{group}{i}", 1.0 - hit * fall(unit, i), 1.0, 1)
        for unit in units
        for i in range(40)
        for group, hit in (("forget", 1), ("retain", 0))
        for what, hit in ((("nothing", "nothing", 0, 0), 0), (("remove", "path", 0, 1), hit))
    ]
    return measure_table(pd.DataFrame(rows, columns=COLUMNS)).set_index("measure").loc["necessity"]


def test_people_whom_all_units_ask_are_drawn_once():
    def width(units, people):
        row = necessity(units, people, lambda unit, i: i % 2)
        return row.high - row.low

    units = ("a/0", "a/1", "b/0", "b/1")
    one, same = width(units[:1], lambda unit: ""), width(units, lambda unit: "")
    assert same == pytest.approx(one, rel=0.15)  # four times the same answers are no more evidence
    assert width(units, lambda unit: unit) < 0.9 * one  # of other people they are


def test_forget_sets_and_models_are_drawn_crossed():
    units = ("a/0", "a/1", "a/2", "b/0", "b/1", "b/2")
    row = necessity(units, lambda unit: unit, lambda unit, i: unit.startswith("a"))
    assert (row.low, row.high) == pytest.approx((0, 1))  # as often as not, one model is all that is drawn
    assert row.value == pytest.approx(0.5)


def drawn_marks(taken, units=("a/0", "a/1", "b/0")):
    """Marks of random choices, draw by draw: `taken(draw)` of every answer of either set."""
    rows = [
        (unit, "text", *what, group, "text", f"{group}{i}", 1.0 - fall, 1.0 - fall, 1)
        for unit in units
        for group in ("forget", "retain")
        for i in range(4)
        for what, fall in (
            (("nothing", "nothing", 0, 0), 0),
            *((("remove", "random", draw, 1), taken(draw)) for draw in range(20)),
        )
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_a_draw_is_the_same_neurons_for_both_sets():
    table = measure_table(drawn_marks(lambda draw: 0.2 + draw / 40)).set_index("measure")
    assert table.loc["necessity", "low"] < 0.4 < table.loc["necessity", "high"]
    assert table.loc["spared", ["low", "high"]].tolist() == pytest.approx([0, 0])
    assert table.loc["ratio", ["low", "high"]].tolist() == pytest.approx([1, 1])


def test_neurons_that_do_nothing_have_ratio_1():
    marks = drawn_marks(lambda draw: 0.0)
    idle = measure_table(marks).set_index("measure").loc["ratio"]
    assert (idle.low, idle.value, idle.high) == (1, 1, 1)
    half = marks.assign(
        recall=marks.recall.where((marks["set"] == "retain") | (marks.choice == "nothing"), 0.5)
    )
    found = measure_table(half).set_index("measure").loc["ratio"]
    assert found.value == pytest.approx(0.5 / (0.5 / 4))  # of four questions, however many units ask them


def test_units_are_resampled_too(net, asked):
    marks = marks_of(net, asked, planted())
    idle = marks_of(net, asked, Ranked("path", planted().values.roll(5)))
    both = pd.concat([marks.assign(unit="a"), idle.assign(unit="b")])
    row = measure_table(both).query("choice == 'path' and measure == 'necessity'").iloc[0]
    assert (row.low, row.value, row.high) == (0, 0.5, 1)
    with pytest.raises(ValueError, match="different rows"):
        measure_table(pd.concat([marks.assign(unit="a"), idle.query("choice != 'lowest'").assign(unit="b")]))


def test_keeping_puts_means_by_kind_in_place_of_all_others(net, asked):
    kinds = torch.tensor([[0, 2]]).expand(8, 2)
    means = torch.arange(3 * NEURONS, dtype=torch.float32).reshape(3, 1, NEURONS)
    seen = []
    with averaged(net.ffns, [[FORGET]], means, kinds):
        handle = net.outs[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        net(**{key: value for key, value in asked.batches[0].items() if key != "labels"})
        handle.remove()
    assert (seen[0][..., FORGET] == asked.batches[0]["a0"][..., FORGET]).all()
    assert (seen[0][:, 0, 7] == means[0, 0, 7]).all()
    assert (seen[0][:, 1, 7] == means[2, 0, 7]).all()
    assert not net.outs[0]._forward_pre_hooks
    with pytest.raises(ValueError, match="2 layers"), averaged(net.ffns, [[], []], means):
        pass


def test_sums_are_by_kind_and_count_no_padding():
    model = tiny_vl()
    batch = {
        "input_ids": torch.tensor([[91, 90, 92, 5, 6, 0], [91, 90, 92, 5, 6, 7]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]),
        "labels": torch.tensor([[-100] * 4 + [6, -100], [-100] * 4 + [6, 7]]),
    }
    kinds = position_kinds(model, batch)
    assert kinds.tolist() == [[0, 1, 0, 2, 0, PADDING], [0, 1, 0, 2, 2, 0]]
    torch.manual_seed(0)
    net = planted_net()
    asked = planted_asked()
    sums = activation_sums(net, asked, net.ffns, "text")
    assert sums.count.tolist() == [
        16,
        0,
        16,
    ]  # the first of two tokens predicts the answer, the second is the end
    stacked = torch.cat([batch["a0"] for batch in asked.batches])
    assert torch.allclose(sums.plain[2, 0].float(), stacked[:, 0].sum(0))
    assert torch.allclose(sums.means()[1, 0], stacked.mean((0, 1)))  # a kind that never came up
    assert torch.allclose(sums.above.sum(0)[0], (stacked > 0.1).sum((0, 1)).double())


def test_sizes_follow_effects_and_add_up():
    assert weighted_sizes([1, 1], 3, 10) == (3, 3)
    assert weighted_sizes([3, 1, 0], 4, 10) == (9, 3, 0)
    assert weighted_sizes([1, 0, 0], 4, 6) == (6, 3, 3)
    assert weighted_sizes([0, 0], 2, 5) == (2, 2)
    assert sum(weighted_sizes([0.31, 0.17, 0.07, 0.45], 7, 9)) == 28


def test_only_the_planted_layer_has_an_effect(net, asked):
    assert layer_effects(net, asked, net.ffns, planted(), 1) == [pytest.approx(0.9)]
    assert layer_effects(net, asked, net.ffns, Ranked("path", planted().values.roll(2)), 1) == [0]


def test_a_given_path_comes_back_at_its_own_sizes():
    path = NeuronPath("text", ((1, 4), (), (0,)), 6, "f" * 16)
    assert given(path).top(path.sizes) == path.layers
    with pytest.raises(ValueError, match="2 sizes for a ranking of 3"):
        given(path).top((1, 1))


def test_asked_by_set_and_modality(asked):
    assert set(asked.only(set="forget").rows["set"]) == {"forget"}
    with pytest.raises(ValueError, match="no batch"):
        asked.only(modality="image_text")
    assert isinstance(asked, Asked)


def test_positions_add_up_to_integrated_gradients():
    from toys import Chain

    from mipnb.attribution import attribute
    from mipnb.evidence.positions import position_scores

    net, batch = Chain(), chain_batch()
    found = position_scores(net, batch, net.ffns, "text", "igi", 4, "midpoint")
    whole = attribute(net, batch, "text", kind="igi", search="one_pass", n_steps=4, rule="midpoint", top_k=1,
                      ffns=net.ffns, fingerprint="chain")  # fmt: skip
    assert torch.allclose(found["all"], whole.values, atol=1e-6)
    assert torch.allclose(found["prompt"] + found["answer"], found["all"], atol=1e-6)
    assert not torch.allclose(found["first"], found["all"], atol=1e-3)
    fisher = position_scores(net, batch, net.ffns, "text", "ifi", 4, "midpoint")
    assert (fisher["all"] >= fisher["first"]).all()
    assert (fisher["first"] >= 0).all()
