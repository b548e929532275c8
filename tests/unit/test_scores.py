"""What attribution refuses, and what it returns."""

import pytest
import torch
from toys import (
    Chain,
    chain_batch,
    toy_scores,
)

from mipnb.attribution import attribute
from mipnb.scores import Scores, concatenate

# ---- bad input


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"rule": "left"}, "rule 'left' is not one of"),
        ({"kind": "ig"}, "kind 'ig' is not one of igi, ifi"),
        ({"score": "sum"}, "score 'sum' is not one of joint, complete"),
        ({"search": "beam"}, "search 'beam' is not one of greedy, exact, one_pass"),
        ({"target": "loss"}, "target 'loss' is not one of"),
        ({"n_steps": 0}, "n_steps is 0"),
        ({"top_k": 6}, "top_k is 6, a layer has 5 neurons"),
        ({"top_k": 0}, "top_k is 0"),
        ({"max_rows": 0}, "max_rows is 0"),
        ({"names": ["a"]}, "1 names for 3 samples"),
    ],
)
def test_unknown_choices_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        toy_scores(Chain(), chain_batch(), **choices)


def test_batches_that_cannot_be_scored_are_refused():
    model, batch = Chain(), chain_batch()
    with pytest.raises(ValueError, match="branch 'audio' is not one of"):
        attribute(model, batch, "audio", ffns=model.ffns, fingerprint="toy")
    with pytest.raises(ValueError, match="no labels"):
        toy_scores(model, {"hidden": batch["hidden"]})
    batch["labels"][1] = -100
    with pytest.raises(ValueError, match=r"samples \[1\] of the batch have no answer token"):
        toy_scores(model, batch)
    with pytest.raises(ValueError, match="the vision branch needs image questions"):
        attribute(model, chain_batch(), "vision", ffns=model.ffns, fingerprint="toy", top_k=1)


def test_networks_of_different_widths_are_refused():
    model = Chain()
    other = [*model.ffns[:2], Chain(neurons=7).ffns[0]]
    with pytest.raises(ValueError, match=r"one number of neurons, found \[5, 7\]"):
        attribute(model, chain_batch(), "text", ffns=other, fingerprint="toy", top_k=1)


def test_scores_that_are_not_finite_name_sample_and_layer():
    model, batch = Chain(), chain_batch()
    batch["hidden"][2] = float("inf")
    with pytest.raises(ValueError, match="scores of sample 'carol' are not finite at text layer 0"):
        toy_scores(model, batch, names=["alice", "bob", "carol"])


# ---- the result


def test_scores_are_saved_whole_and_read_back(tmp_path):
    scores = toy_scores(Chain(), chain_batch(), names=["alice", "bob", "carol"], search="one_pass")
    found = Scores.load(scores.save(tmp_path / "scores.safetensors"))
    assert torch.equal(found.values, scores.values)
    assert torch.equal(found.gap, scores.gap)
    assert (found.names, found.branch, found.fingerprint) == (("alice", "bob", "carol"), "text", "toy")
    assert found.parameters == scores.parameters
    joint = toy_scores(Chain(), chain_batch(), score="joint")
    assert Scores.load(joint.save(tmp_path / "scores.safetensors")).gap is None


def test_names_stay_with_their_samples_when_the_batch_is_cut_up():
    names = ("alice", "bob", "carol")
    assert toy_scores(Chain(), chain_batch(), names=names, max_rows=1).names == names
    assert toy_scores(Chain(), chain_batch()).names == ("0", "1", "2")


def test_concatenate_refuses_scores_made_differently():
    first = toy_scores(Chain(), chain_batch())
    assert concatenate([first, first]).values.shape == (6, 3, 5)
    with pytest.raises(ValueError, match="different parameters"):
        concatenate([first, toy_scores(Chain(), chain_batch(), n_steps=5)])
    with pytest.raises(ValueError, match="at least one"):
        concatenate([])


def test_rounded_scores_are_refused():
    with pytest.raises(ValueError, match="rounded scores tie"):
        Scores("text", torch.zeros(1, 1, 2, dtype=torch.bfloat16), ("a",), "toy")
