"""Paths: what each ranking and aggregate choose, worked out by hand; comparing, drawing, keeping them."""

import pytest
import torch
from safetensors.torch import save_file
from toys import tiny_vl

from mipnb.models import fingerprint
from mipnb.paths import NeuronPath, overlap, random_path, sample_paths, select
from mipnb.ranking import AGGREGATES, RANKINGS
from mipnb.scores import Scores

# 3 samples, 1 layer, 4 neurons
FORGET = [[[5, 4, 0, 1]], [[0, 4, 3, 1]], [[1, 0, 3, 2]]]


def scores(values, **changes) -> Scores:
    values = torch.tensor(values, dtype=torch.float32)
    names = tuple(f"p{index}" for index in range(len(values)))
    return Scores(**{"branch": "text", "values": values, "names": names, "fingerprint": "toy"} | changes)


def path(*layers: tuple, **changes) -> NeuronPath:
    return NeuronPath(**{"branch": "text", "layers": layers, "n_neurons": 8, "fingerprint": "toy"} | changes)


# ---- one path for a forget set


def test_mean_takes_the_highest_averages():
    # sums over samples: 6, 8, 6, 4; the tie of 0 and 2 goes to the lower index
    assert select(scores(FORGET), top_k=1).layers == ((1,),)
    assert select(scores(FORGET), top_k=2).layers == ((0, 1),)


def test_union_keeps_what_any_sample_chose_even_beyond_top_k():
    assert select(scores(FORGET), top_k=1, aggregate="union").layers == ((0, 1, 2),)
    assert select(scores(FORGET), top_k=2, aggregate="union").layers == ((0, 1, 2, 3),)


def test_vote_counts_samples_and_breaks_ties_by_the_mean():
    # of two each: votes 0: 1, 1: 2, 2: 2, 3: 1
    assert select(scores(FORGET), top_k=2, aggregate="vote").layers == ((1, 2),)
    # of one each: votes 0, 1, 2: one each; means say 1, then 0
    assert select(scores(FORGET), top_k=1, aggregate="vote").layers == ((1,),)
    assert select(
        scores([[[9, 0, 0, 1]], [[0, 1, 0, 0]], [[0, 1, 0, 0]]]), top_k=1, aggregate="vote"
    ).layers == (
        (1,),  # two votes beat the larger mean
    )


def test_samples_are_averaged_not_overwritten():
    last_only = select(scores(FORGET[-1:]), top_k=1).layers
    assert last_only == ((2,),)
    assert select(scores(FORGET), top_k=1).layers != last_only


def test_layers_are_chosen_apart():
    values = [[[0, 1, 2, 3], [300, 200, 100, 0]]]
    assert select(scores(values), top_k=2).layers == ((2, 3), (0, 1))


def test_contrast_subtracts_the_retain_share_whatever_the_scales():
    forget, retain = [[[6, 5, 4, 1]]], [[[8, 2, 1, 1]], [[4, 0, 1, 1]]]
    # shares: forget 6/16 5/16 4/16 1/16; retain 12/18 2/18 2/18 2/18: differences -.29 .20 .14 -.05
    assert select(scores(forget), top_k=1).layers == ((0,),)
    for scale in (1.0, 1e-4, 1e4):
        scaled = scores((torch.tensor(retain) * scale).tolist())
        assert select(scores(forget), scaled, top_k=2, ranking="contrast").layers == ((1, 2),)


def test_ratio_divides_the_shares_and_survives_neurons_the_retain_set_ignores():
    forget, retain = [[[8, 3, 1e-6, 5]]], [[[16, 2, 0, 6]]]
    # shares over (share + 1/4): .5 / .917, .1875 / .333, 0 / .25, .3125 / .5
    assert select(scores(forget), scores(retain), top_k=2, ranking="ratio").layers == ((1, 3),)
    assert select(scores(forget), scores(retain), top_k=2, ranking="contrast").layers == ((1, 3),)
    assert select(scores(forget), scores(retain), top_k=1, ranking="ratio").layers == ((3,),)


@pytest.mark.parametrize("ranking", ["contrast", "ratio"])
@pytest.mark.parametrize("aggregate", ["mean", "union", "vote"])
def test_every_ranking_goes_with_every_aggregate(ranking, aggregate):
    retain = scores([[[9, 9, 0, 0]]] * 2)
    chosen = select(scores(FORGET), retain, top_k=1, ranking=ranking, aggregate=aggregate)
    assert 2 in chosen.layers[0]
    assert chosen.parameters["ranking"] == ranking
    assert chosen.parameters["aggregate"] == aggregate


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_a_layer_that_no_gradient_has_come_to_gets_no_neurons_and_a_warning(ranking, aggregate):
    cut = scores([[[0, 0, 0, 0], *sample] for sample in FORGET])
    retain = scores([[[0, 9, 9, 0], [9, 9, 0, 0]]])
    with pytest.warns(UserWarning, match=r"every score of text layers \[0\] is 0"):
        found = select(cut, retain, top_k=1, ranking=ranking, aggregate=aggregate)
    assert found.sizes[0] == 0 < found.sizes[1]


def test_a_path_carries_how_it_was_made():
    found = select(scores(FORGET, parameters={"kind": "igi"}), top_k=3, benchmark="pocket 5 %")
    assert (found.fingerprint, found.benchmark, found.n_neurons, found.sizes) == (
        "toy",
        "pocket 5 %",
        4,
        (3,),
    )
    assert found.parameters == {"kind": "igi", "ranking": "forget", "aggregate": "mean", "path_top_k": 3}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"ranking": "best"}, "ranking 'best'"),
        ({"aggregate": "sum"}, "aggregate 'sum'"),
        ({"top_k": 5}, "top_k is 5, a layer has 4 neurons"),
        ({"ranking": "contrast"}, "give retain_scores"),
        (
            {"ranking": "contrast", "retain_scores": scores(FORGET, fingerprint="other")},
            "differ in fingerprint",
        ),
        ({"ranking": "ratio", "retain_scores": scores(FORGET, branch="vision")}, "differ in branch"),
        (
            {"ranking": "ratio", "retain_scores": scores(FORGET, parameters={"n_steps": 2})},
            "made differently",
        ),
    ],
)
def test_select_refuses(choices, message):
    with pytest.raises(ValueError, match=message):
        select(scores(FORGET), **choices)


def test_sample_paths_are_each_samples_own_by_name():
    found = sample_paths(scores(FORGET), top_k=2)
    assert {name: item.layers for name, item in found.items()} == {
        "p0": ((0, 1),),
        "p1": ((1, 2),),
        "p2": ((2, 3),),
    }
    with pytest.raises(ValueError, match="3 samples share 1 names"):
        sample_paths(scores(FORGET, names=("a", "a", "a")), top_k=2)


def test_a_sample_without_a_score_has_no_neurons_there():
    found = sample_paths(scores([[[0, 2], [0, 0]], [[0, 0], [3, 0]]]), top_k=1)
    assert {name: item.layers for name, item in found.items()} == {"p0": ((1,), ()), "p1": ((), (0,))}


# ---- comparing and drawing


def test_overlap_is_jaccard_per_layer():
    assert overlap(path((0, 1), (2, 3), (), (4,)), path((0, 1), (3, 4), (), ())) == [1, 1 / 3, 1, 0]


@pytest.mark.parametrize("changes", [{"branch": "vision"}, {"fingerprint": "other"}, {"n_neurons": 9}])
def test_paths_of_different_kinds_are_not_compared(changes):
    with pytest.raises(ValueError, match=f"different {next(iter(changes))}"):
        overlap(path((0,)), path((0,), **changes))


def test_paths_of_different_depth_are_not_compared():
    with pytest.raises(ValueError, match="different number of layers"):
        overlap(path((0,)), path((0,), (1,)))


def test_random_paths_have_equal_numbers_a_seed_and_the_whole_layer_to_draw_from():
    like = path((0, 1, 2), (), (5,))
    assert random_path(like, 1).sizes == (3, 0, 1)
    assert random_path(like, 1) == random_path(like, 1)
    draws = [random_path(like, seed) for seed in range(200)]
    assert {neuron for draw in draws for neuron in draw.layers[2]} == set(range(8))
    assert len({draw.layers for draw in draws}) > 100
    assert draws[0].fingerprint == "toy"
    assert draws[3].parameters == {"random": True, "seed": 3}


@pytest.mark.parametrize("neurons", [(8,), (-1,), (1, 1), (2, 1)])
def test_impossible_neurons_are_refused(neurons):
    with pytest.raises(ValueError, match=r"expected distinct neurons, ascending, in 0\.\.7"):
        path((0,), neurons)


# ---- keeping


def test_a_path_is_read_back_as_it_was(tmp_path):
    whole = path((0, 7), (), (3,), benchmark="pocket", parameters={"kind": "igi", "n_steps": 4, "ratio": 0.5})
    assert NeuronPath.load(whole.save(tmp_path / "deep" / "text.safetensors")) == whole


def test_layers_come_back_in_order_beyond_ten(tmp_path):
    whole = path(*[(index % 8,) for index in range(37)])
    assert NeuronPath.load(whole.save(tmp_path / "text.safetensors")).layers == whole.layers


def test_a_path_of_another_model_is_refused_naming_both(tmp_path):
    mine, other = tiny_vl(seed=0), tiny_vl(seed=1)
    file = path((0,), fingerprint=fingerprint(mine)).save(tmp_path / "text.safetensors")
    NeuronPath.load(file, mine).check(mine)
    with pytest.raises(ValueError, match=f"{fingerprint(mine)}.*{fingerprint(other)}"):
        NeuronPath.load(file, other)


def test_damaged_missing_and_foreign_files_are_refused(tmp_path):
    file = path((0,), (1, 2)).save(tmp_path / "text.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        NeuronPath.load(file)
    file.write_text("neurons: 1, 2")
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        NeuronPath.load(file)
    save_file({"weight": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match="holds format None, expected 'mipnb-path-1'"):
        NeuronPath.load(file)
    with pytest.raises(ValueError, match="holds format 'mipnb-scores-1', expected 'mipnb-path-1'"):
        NeuronPath.load(scores(FORGET).save(file))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        NeuronPath.load(tmp_path / "none.safetensors")


def test_a_failed_save_leaves_the_old_file(tmp_path):
    file = path((0,)).save(tmp_path / "text.safetensors")
    before = file.read_bytes()
    with pytest.raises(TypeError):
        path((1,), parameters={"model": object()}).save(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
