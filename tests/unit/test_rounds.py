"""Notebook 06's units of work: each goes where it belongs, and the longest are known."""

from types import SimpleNamespace

import pytest

from mipnb.params import Params
from mipnb.results import comparison
from mipnb.results import rounds as module
from mipnb.results.comparison import Comparison
from mipnb.results.rounds import Rounds


class Told:
    """A comparison that tells what it was asked for."""

    def __init__(self, ratio, steps):
        self.folder, self.ratio, self.effort = f"folder_{ratio}", ratio, SimpleNamespace(edit_steps=steps)
        self.forgotten = 0

    def forget_training(self):
        self.forgotten += 1

    def __getattr__(self, name):
        return lambda *arguments: (self.ratio, name, *arguments)


@pytest.fixture
def rounds(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "retrained", lambda params, ratio, folder: f"retrained_{ratio} or {folder}")
    params = Params(run_dir=str(tmp_path), forget_ratio=5, seed=3)
    return Rounds(params, {5: Told(5, 200), 10: Told(10, 400)}, {"npo": {"beta": 0.5}})


def test_each_unit_goes_where_it_belongs(rounds):
    assert rounds((10, "vanilla", 3)) == (10, "vanilla")
    assert rounds((10, "retrained", 3)) == (10, "retrained", "retrained_10 or folder_10")
    for method in ("edited", "random"):
        ratio, name, *arguments, file = rounds((5, method, 4))
        assert (ratio, name, *arguments) == (5, "given", method, 4)
        assert file.parts[-3:] == ("04_editing", "edits", f"{method}_4.safetensors")
    assert rounds((10, "edited", 3)) == (10, "ours")
    assert rounds((5, "npo", 4)) == (5, "baseline", "npo", 4, {"beta": 0.5})
    assert rounds((10, "ga_diff", 3)) == (10, "baseline", "ga_diff", 3, {})


def test_batches_of_one_ratio_alone_are_in_memory(rounds, monkeypatch, tmp_path):
    rounds((10, "npo", 3))
    assert [rounds.at[ratio].forgotten for ratio in (5, 10)] == [1, 0]
    monkeypatch.setattr(comparison, "training_sets", lambda *arguments: object())
    monkeypatch.setattr(Comparison, "questions", ([], []))
    one = Comparison(Params(), tmp_path, None, None, 5, "")
    first = one.training
    assert one.training is first
    one.forget_training()
    one.forget_training()
    assert one.training is not first


def test_what_is_not_trained_costs_nothing_and_more_people_cost_more(rounds):
    free = [(10, "vanilla", 3), (5, "retrained", 3), (5, "edited", 3), (5, "random", 3)]
    assert [rounds.cost(unit) for unit in free] == [0, 0, 0, 0]
    assert rounds.cost((5, "npo", 4)) == 200
    assert rounds.cost((10, "edited", 3)) == rounds.cost((10, "npo", 3)) == 400


@pytest.mark.parametrize(("ratio", "steps", "batches"), [(5, 200, 80), (10, 400, 160), (15, 600, 240)])
def test_every_ratio_has_as_many_steps_and_batches_a_person(ratio, steps, batches, tmp_path):
    params = Params(forget_ratio=5, edit_steps=200, n_forget_batches=80)
    effort = Comparison(params, tmp_path, None, None, ratio, "").effort
    assert (effort.edit_steps, effort.n_forget_batches) == (steps, batches)
