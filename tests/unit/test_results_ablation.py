"""The ablation's rows: which neurons and losses each has, RMisU of the full model, tables beside the paper's."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from tiny_qwen import tiny_batch, tiny_model

from mipnb.edits import same_bits
from mipnb.evaluation import COLUMNS
from mipnb.losses import passes_of, step_losses
from mipnb.models import fingerprint
from mipnb.overlay import overlay
from mipnb.paths import NeuronPath
from mipnb.pools import pools
from mipnb.precision import training_attention
from mipnb.results import ablation
from mipnb.results.ablation_figures import (
    ablation_sentences,
    differences,
    means_by_row,
    shared_sentence,
    winners,
)
from mipnb.results.full_model import edit_full_model
from mipnb.rmisu import EditConfig, unanswered

CONFIG = EditConfig(
    n_steps=2, layer_index=1, forget_weight=2.0, retain_weight=3.0, ce_weight=0.5, direction="shared",
    retain_tokens="answer",
)  # fmt: skip


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def paths(model):
    mark = fingerprint(model)
    return [NeuronPath("text", ((1, 4), (0,), ()), 24, mark), NeuronPath("vision", ((3,), (0, 19)), 20, mark)]


@pytest.fixture
def sets():
    near = unanswered([tiny_batch(6, False)])
    return [tiny_batch(1, False), tiny_batch(2, True)], [tiny_batch(4, False), tiny_batch(5, True), *near]


@pytest.mark.parametrize(("method", "branches"), [("text_only", ["text"]), ("vision_only", ["vision"])])
def test_a_row_of_one_branch_touches_only_that_branch(paths, method, branches):
    assert [path.branch for path in ablation.row_paths(None, method, paths)] == branches


def test_fine_tuning_has_the_path_and_only_the_answers_loss(paths):
    assert ablation.row_paths(None, "fine_tuning", paths) == paths
    assert ablation.row_config("fine_tuning", CONFIG) == replace(CONFIG, forget_weight=0.0, retain_weight=0.0)
    assert ablation.row_config("text_only", CONFIG) == CONFIG
    seen = {}
    setting = SimpleNamespace(
        edited=lambda method, seed, paths, config, batches: seen.update(batches=batches)
    )
    answered, near = tiny_batch(1, False), unanswered([tiny_batch(2, False)])
    ablation.row_results(setting, "fine_tuning", 0, paths, CONFIG, ([answered], [answered, *near]))
    assert seen["batches"] == ([answered], [answered]), "questions without answers teach fine-tuning nothing"


def test_what_is_pruned_alone_takes_no_step_and_one_seed():
    assert ablation.row_config("nearest_prune", CONFIG) == replace(CONFIG, n_steps=0)
    assert ablation.row_config("nearest", CONFIG) == CONFIG
    params = SimpleNamespace(
        seed=7, n_ablation_seeds=2, search="greedy", reuse_paths="", use_released_paths=""
    )
    units = ablation.units(params)
    assert [seed for method, seed in units if method == "nearest_prune"] == [7]
    assert [seed for method, seed in units if method == "nearest"] == [7, 8]
    assert {method for method, _ in units} == set(ablation.TRAINED)


def test_the_nearest_search_has_no_rows_where_it_is_the_runs_own():
    given = {"search": ablation.NEAREST, "reuse_paths": "", "use_released_paths": ""}
    params = SimpleNamespace(seed=7, n_ablation_seeds=1, **given)
    assert {method for method, _ in ablation.units(params)} == set(ablation.TRAINED) - set(ablation.RELOCATED)
    params.reuse_paths = "runs/other"  # found by who knows which search
    assert {method for method, _ in ablation.units(params)} == set(ablation.TRAINED)


def test_how_much_of_a_path_another_has_is_a_share_of_the_former(paths):
    mark = paths[0].fingerprint
    others = [
        NeuronPath("text", ((1, 5), (), (0,)), 24, mark),
        NeuronPath("vision", ((3,), (0, 19)), 20, mark),
    ]
    assert shared_sentence(paths, others) == "text 33%, vision 100%"


def test_a_row_that_is_taken_from_elsewhere_is_not_trained(paths):
    with pytest.raises(ValueError, match=r"'edited' is not one of .*text_only"):
        ablation.row_results(None, "edited", 0, paths, CONFIG, ([], []))


@pytest.mark.parametrize("direction", ["shared", "input"])
def test_the_full_model_begins_with_the_losses_of_rmisu(model, paths, sets, direction):
    config = replace(CONFIG, direction=direction)
    _, history = edit_full_model(model, *sets, config, seed=7, learning_rate=1e-3)
    untouched = overlay(model, paths, silent=False)  # vanilla weights: RMisU's losses before any step
    for part in untouched.weights:
        for tensor in part.tensors():
            tensor.requires_grad_(True)
    drawn = passes_of(model, *(pools(part, 7, which) for which, part in enumerate(sets)), config)
    with training_attention(torch.device("cpu")):
        found = step_losses(model, untouched, drawn, config)
    expected = 3.0 * found["loss_retain"] + 0.5 * found["loss_ce"]
    assert history.loss_retain[0] == pytest.approx(expected, rel=1e-4)
    if direction == "shared":
        assert history.loss_forget[0] == pytest.approx(2.0 * found["loss_forget"], rel=1e-4)


def test_the_full_model_is_vanilla_again_and_all_of_it_was_trained(model, sets):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change, history = edit_full_model(model, *sets, replace(CONFIG, n_steps=6), seed=1, learning_rate=1e-3)
    assert all(same_bits(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    names = {part.name for part in change.slices}
    assert any("self_attn" in name for name in names)
    assert any("visual" in name for name in names)
    assert history.loss.iloc[-1] < history.loss.iloc[0]
    assert torch.isfinite(torch.tensor(history.loss.to_numpy())).all()


def result(method, split, task, value, seed=42):
    metric = "accuracy" if task in ("VQA", "QA") else "rougeL"
    kind = "image_text" if task.startswith("V") else "text"
    return (
        "r",
        "m",
        "b",
        method,
        5,
        seed,
        split,
        task,
        kind,
        metric,
        value,
        80,
        max(0, value - 0.1),
        min(1, value + 0.1),
    )


def results(**rows):
    """method -> (value on forget splits, value on retain splits), the same in every task."""
    return pd.DataFrame(
        [
            result(method, split, task, values["retain" in split])
            for method, values in {"vanilla": (1.0, 1.0), **rows}.items()
            for split in ("forget", "retain", "test_forget", "test_retain")
            for task in ("VQA", "QA", "VGEN", "GEN")
        ],
        columns=COLUMNS,
    )


def test_tables_have_a_column_a_split_and_task():
    table = ablation.ablation_table(results(edited=(0.1, 0.9), random=(0.2, 0.8)))
    assert list(table.columns) == ["FVQA", "RVQA", "FQA", "RQA", "FVGEN", "RVGEN", "FGEN", "RGEN"]
    assert list(table.index) == ["vanilla", "ours", "ours on random neurons"]
    assert table.loc["ours", "FVQA"] == "0.10 [0.00, 0.20]"
    unseen = ablation.ablation_table(results(edited=(0.1, 0.9)), ("test_forget", "test_retain"))
    assert unseen.loc["ours", "RGEN"] == "0.90 [0.80, 1.00]"


def test_the_papers_table_is_as_printed_and_complete():
    table = ablation.published_table()
    assert len(table) == 7
    assert table.loc["ours", "FVQA"] == 0.048
    assert table.loc["RMisU of the full model, no path", "RVQA"] == 0.1465
    assert table.loc["text path only", "FQA"] == 0.416
    beside = ablation.side_by_side_rows(results(edited=(0.1, 0.9), random=(0.2, 0.8)))
    assert beside.loc["ours", ("paper", "RQA")] == 0.3631
    assert beside.loc["ours", ("here", "RQA")] == 0.9
    assert beside.loc["ours on random neurons", "paper"].isna().all()


def test_what_does_as_well_as_ours_is_named():
    found = results(edited=(0.1, 0.9), random=(0.1, 0.9), prune=(0.8, 1.0), text_only=(0.3, 0.7))
    means = means_by_row(found)
    assert means.loc["edited"].tolist() == pytest.approx([0.9, 0.9, 0.9, 0.9])
    assert means.loc["prune", "forgetting"] == pytest.approx(0.2)
    assert "**ours on random neurons**" in winners(found)
    told = ablation_sentences(found)
    assert (
        "path pruned, no RMisU**: forgetting rate 0.20, retention 1.00; forgets less than and keeps more than ours"
        in told
    )
    assert (
        "text path only**: forgetting rate 0.70, retention 0.70; forgets less than and keeps less than ours"
        in told
    )
    assert winners(results(edited=(0.1, 0.9), prune=(0.8, 1.0))).startswith("No row")


def test_a_difference_that_the_seeds_may_make_does_not_count():
    seeds = [results(edited=(f, 0.9), random=(r, 0.9)) for f, r in ((0.10, 0.20), (0.20, 0.10), (0.15, 0.21))]
    found = pd.concat([part.assign(seed=index) for index, part in enumerate(seeds)])
    found = found[(found.method != "vanilla") | (found.seed == 0)]
    assert differences(found).loc["random"].tolist() == [0, 0]
    steady = pd.concat(
        [results(edited=(0.1, 0.9), random=(0.15, 0.9)).assign(seed=index) for index in range(3)]
    )
    steady = steady[(steady.method != "vanilla") | (steady.seed == 0)]
    assert differences(steady).loc["random"].tolist() == pytest.approx([-0.05, 0])
