"""A run that is stopped in the middle goes on where it was, and ends in the same results."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_families import picture, tiny

from mipnb import editing, generation, locating
from mipnb.artefacts import PARTIAL, read_json
from mipnb.batches import encode
from mipnb.benchmarks import Question
from mipnb.editing import edit, prune
from mipnb.edits import same_bits
from mipnb.generation import evaluate
from mipnb.locating import locate
from mipnb.models import fingerprint
from mipnb.paths import NeuronPath
from mipnb.rmisu import EditConfig

CONFIG = EditConfig(n_steps=7, layer_index=1, learning_rate=1e-2)
CHOICES = {"n_steps": 2, "top_k": 3}
pytestmark = pytest.mark.filterwarnings(
    "ignore:out of memory"
)  # further warnings than the one that is expected


class StoppedError(Exception):
    """What preemption looks like from inside."""


@pytest.fixture(scope="module")
def tiny_model():
    return tiny("qwen2_5_vl")


def asked(pictured: bool, count: int = 7) -> list[Question]:
    """Questions about a few people; prompts differ in length."""
    return [
        Question(f"p{i}", "VGEN" if pictured else "GEN", "Who is this?" + " Say it." * (i % 3), "a blue hat",
                 image=picture(i % 3, 16, 24) if pictured else None)
        for i in range(count)
    ]  # fmt: skip


def stop_after(monkeypatch, module, name: str, calls: int) -> list:
    """Lets a function be called so many times; the next call is a StoppedError. Returns the list of calls."""
    original, seen = getattr(module, name), []

    def stopping(*args, **kwargs):
        if len(seen) == calls:
            raise StoppedError
        seen.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, stopping)
    return seen


# Locating


def _located(model, processor, resume, **changed):
    choices = {"branch": "vision", "batch_size": 2} | CHOICES | changed
    return locate(model, processor, asked(True), resume=resume, **choices)


def test_locating_goes_on_with_the_next_batch(tiny_model, monkeypatch, tmp_path):
    whole = _located(*tiny_model, None)
    with monkeypatch.context() as patch:
        stop_after(patch, locating, "attribute", 2)
        with pytest.raises(StoppedError):
            _located(*tiny_model, tmp_path)
    seen = stop_after(monkeypatch, locating, "attribute", 99)
    resumed = _located(*tiny_model, tmp_path)
    assert len(seen) == 2, "two of four batches were there already"
    assert same_bits(resumed.values, whole.values)
    assert resumed.names == whole.names
    assert resumed.parameters == whole.parameters
    assert same_bits(resumed.f_full, whole.f_full)


@pytest.mark.parametrize("part", ["size", "template"])
def test_another_processors_scores_are_not_taken(tiny_model, monkeypatch, tmp_path, part):
    model, processor = tiny_model
    _located(model, processor, tmp_path)
    if part == "size":
        monkeypatch.setattr(processor.image_processor, "size", {"shortest_edge": 64, "longest_edge": 256})
    else:
        monkeypatch.setattr(processor, "chat_template", processor.chat_template + " ")
    seen = stop_after(monkeypatch, locating, "attribute", 99)
    _located(model, processor, tmp_path)
    assert len(seen) == 4, "all batches anew"


def test_no_sample_is_located_again_whatever_the_batch_size(tiny_model, monkeypatch, tmp_path):
    whole = _located(*tiny_model, None)
    with monkeypatch.context() as patch:
        stop_after(patch, locating, "attribute", 2)
        with pytest.raises(StoppedError):
            _located(*tiny_model, tmp_path)
    seen = stop_after(monkeypatch, locating, "encode", 99)
    resumed = _located(*tiny_model, tmp_path, batch_size=1, max_rows=2)
    assert [question.person_id for _, part in seen for question in part] == ["p4", "p5", "p6"]
    assert resumed.names == whole.names
    torch.testing.assert_close(resumed.values, whole.values, rtol=1e-3, atol=1e-6)


def test_samples_found_out_of_order_are_put_in_order(tiny_model, monkeypatch, tmp_path):
    whole = _located(*tiny_model, tmp_path)
    files = sorted((tmp_path / PARTIAL).rglob("*.safetensors"))
    files[0].write_bytes(b"damaged")
    resumed = _located(*tiny_model, tmp_path)
    assert resumed.names == whole.names
    assert same_bits(resumed.values, whole.values)
    assert same_bits(resumed.f_full, whole.f_full)


def test_scores_of_another_locating_are_not_taken(tiny_model, monkeypatch, tmp_path):
    _located(*tiny_model, tmp_path)
    model, processor = tiny_model
    pruned = prune(model, [NeuronPath("text", ((1,), (), ()), 24, fingerprint(model))])
    seen = stop_after(monkeypatch, locating, "attribute", 99)
    _located(*tiny_model, tmp_path)
    assert seen == []
    _located(*tiny_model, tmp_path, n_steps=3)
    _located(*tiny_model, tmp_path, branch="text")
    locate(*tiny_model, asked(True)[::-1], "vision", 2, resume=tmp_path, **CHOICES)
    with pruned.applied(model):
        _located(model, processor, tmp_path)
    assert len(seen) == 16, "four batches each"


KILLED_LOCATING = """
import os, signal, sys
sys.path[:0] = [{here!r}]
from mipnb import locating
import test_interrupted as tests

attribute, calls = locating.attribute, []

def killed(*args, **choices):
    calls.append(args)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return attribute(*args, **choices)

locating.attribute = killed
tests._located(*tests.tiny("qwen2_5_vl"), {folder!r})
"""


def test_killed_while_locating_only_the_batch_under_way_is_located_again(tiny_model, monkeypatch, tmp_path):
    whole = _located(*tiny_model, None)
    assert run_program(KILLED_LOCATING, tmp_path) == -signal.SIGKILL
    seen = stop_after(monkeypatch, locating, "encode", 99)
    resumed = _located(*tiny_model, tmp_path)
    assert [question.person_id for _, part in seen for question in part] == ["p4", "p5", "p6"]
    assert resumed.names == whole.names
    assert same_bits(resumed.values, whole.values)


# Editing


def _sets(processor):
    forget = [encode(processor, asked(pictured, 3)) for pictured in (False, True)]
    return forget, [encode(processor, asked(pictured)[3:]) for pictured in (False, True, False)]


def edited(model, processor, resume, config=CONFIG, seed=1, every=2):
    """An edit of the tiny model, with checkpoints."""
    mark = fingerprint(model)
    path = [
        NeuronPath("text", ((1, 4), (0,), (5,)), 24, mark),
        NeuronPath("vision", ((3,), (0,), (9,)), 40, mark),
    ]
    return edit(model, path, *_sets(processor), config, seed, resume=resume, every=every)


def _same(one, other):
    slices = zip(one[0].slices, other[0].slices, strict=True)
    assert all(same_bits(a.new, b.new) and a.name == b.name for a, b in slices)
    assert one[1].equals(other[1])
    assert one[0].metadata == other[0].metadata


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_editing_goes_on_from_its_checkpoint_bit_for_bit(tiny_model, monkeypatch, tmp_path, schedule):
    config = replace(CONFIG, schedule=schedule, direction="input", redraw=True)
    whole = edited(*tiny_model, None, config)
    with monkeypatch.context() as patch:
        stop_after(patch, editing, "step_losses", 5)
        with pytest.raises(StoppedError):
            edited(*tiny_model, tmp_path, config)
    seen = stop_after(monkeypatch, editing, "step_losses", 99)
    _same(edited(*tiny_model, tmp_path, config), whole)
    assert len(seen) == 3, "four of seven steps were kept"
    _same(edited(*tiny_model, tmp_path, config), whole)
    assert len(seen) == 3, "a finished edit is not trained again"


def test_a_checkpoint_of_another_edit_is_not_taken(tiny_model, monkeypatch, tmp_path):
    edited(*tiny_model, tmp_path)
    seen = stop_after(monkeypatch, editing, "step_losses", 99)
    _same(edited(*tiny_model, tmp_path, seed=2), edited(*tiny_model, None, seed=2))
    edited(*tiny_model, tmp_path, replace(CONFIG, learning_rate=2e-2))
    assert len(seen) == 3 * CONFIG.n_steps


def test_a_damaged_checkpoint_is_not_taken(tiny_model, tmp_path):
    whole = edited(*tiny_model, tmp_path)
    (file,) = (tmp_path / PARTIAL).rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    _same(edited(*tiny_model, tmp_path), whole)


KILLED = """
import os, signal, sys
sys.path[:0] = [{here!r}]
from mipnb import records
import test_interrupted as tests

calls, write = [], records.save_file

def killed_in_the_middle(tensors, path, **fields):
    write(tensors, path, **fields)
    calls.append(path)
    if len(calls) == 2:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

records.save_file = killed_in_the_middle
tests.edited(*tests.tiny("qwen2_5_vl"), {folder!r})
"""


def run_program(program: str, folder: Path) -> int:
    """Runs one of the programs here; returns its exit status."""
    here, root = str(Path(__file__).parent), str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program.format(here=here, folder=str(folder))]
    return subprocess.run(command, cwd=root, env=environment, check=False).returncode


def test_killed_while_writing_a_checkpoint_the_one_before_it_counts(tiny_model, monkeypatch, tmp_path):
    assert run_program(KILLED, tmp_path) == -signal.SIGKILL
    seen = stop_after(monkeypatch, editing, "step_losses", 99)
    resumed = edited(*tiny_model, tmp_path)
    assert len(seen) == 5, "the checkpoint after step 2 is whole, the one after step 4 is not"
    _same(resumed, edited(*tiny_model, None))


# Evaluating


def _answers(model, processor, resume, **changed):
    questions = {"forget": asked(False) + asked(True), "retain": asked(True)[:2]}
    return evaluate(
        model, processor, questions, **{"batch_size": 3, "max_new_tokens": 4} | changed, resume=resume
    )


def test_evaluating_goes_on_with_the_next_batch(tiny_model, monkeypatch, tmp_path):
    whole = _answers(*tiny_model, None)
    with monkeypatch.context() as patch:
        stop_after(patch, generation._Asking, "_said", 4)
        with pytest.raises(StoppedError):
            _answers(*tiny_model, tmp_path)
    seen = stop_after(monkeypatch, generation._Asking, "_said", 99)
    assert _answers(*tiny_model, tmp_path).equals(whole)
    assert len(seen) == 2, "six batches, four of which were there already"


def _kept(folder) -> set[int]:
    """The questions that have an answer."""
    files = (folder / PARTIAL).rglob("*.json")
    return {index for file in files for index, _ in read_json(file)}


def _asked_again(seen: list) -> list[int]:
    return sorted(index for _, indices, _ in seen for index in indices)


def test_no_question_of_half_a_batch_is_asked_again(tiny_model, monkeypatch, tight, tmp_path):
    whole = _answers(*tiny_model, None)
    with monkeypatch.context() as patch:
        tight()  # batches of three go through in parts of one
        stop_after(patch, generation._Asking, "_said", 5)
        with pytest.warns(RuntimeWarning), pytest.raises(StoppedError):
            _answers(*tiny_model, tmp_path)
    finished = _kept(tmp_path)
    assert finished
    assert len(finished) % 3, "the run was stopped within a batch"
    seen = stop_after(monkeypatch, generation._Asking, "_said", 99)
    assert _answers(*tiny_model, tmp_path, batch_size=4).equals(whole)
    fitted = [call for call in seen if len(call[1]) <= 2]
    assert set(_asked_again(fitted)) == set(range(len(whole))) - finished
    assert len(_asked_again(fitted)) == len(whole) - len(finished), "each once"


KILLED_ASKING = """
import os, signal, sys
sys.path[:0] = [{here!r}]
from mipnb import generation
import test_interrupted as tests

said, calls = generation._Asking._said, []

def killed(self, indices, prefix):
    calls.append(indices)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return said(self, indices, prefix)

generation._Asking._said = killed
tests._answers(*tests.tiny("qwen2_5_vl"), {folder!r})
"""


def test_killed_while_asking_only_the_batch_under_way_is_asked_again(tiny_model, monkeypatch, tmp_path):
    assert run_program(KILLED_ASKING, tmp_path) == -signal.SIGKILL
    finished = _kept(tmp_path)
    assert len(finished) > 3
    seen = stop_after(monkeypatch, generation._Asking, "_said", 99)
    assert _answers(*tiny_model, tmp_path).equals(_answers(*tiny_model, None))
    resumed = _asked_again(seen[:3])  # three of six batches
    assert resumed == sorted(set(range(16)) - finished)


def test_answers_of_another_model_or_question_are_not_taken(tiny_model, monkeypatch, tmp_path):
    model, processor = tiny_model
    vanilla = _answers(model, processor, tmp_path)
    pruned = prune(model, [NeuronPath("text", (tuple(range(24)),) * 3, 24, fingerprint(model))])
    with pruned.applied(model):
        expected = _answers(model, processor, None)
        assert _answers(model, processor, tmp_path).equals(expected)
    assert not expected.equals(vanilla)
    seen = stop_after(monkeypatch, generation._Asking, "_said", 99)
    assert _answers(model, processor, tmp_path).equals(vanilla)
    assert seen == []
    _answers(model, processor, tmp_path, max_new_tokens=3)
    assert len(seen) == 6


# Out of memory


@pytest.fixture
def tight(tiny_model, monkeypatch):
    """The language model's first layer holds two rows; more are out of memory, as often as they are tried."""
    layer, failed = tiny_model[0].model.language_model.layers[0], []
    forward = layer.forward

    def limited(hidden, *args, **kwargs):
        if len(hidden) > 2:
            failed.append(len(hidden))
            raise torch.OutOfMemoryError(f"CUDA out of memory with {len(hidden)} rows")
        return forward(hidden, *args, **kwargs)

    def tighten():
        monkeypatch.setattr(layer, "forward", limited)
        return failed

    return tighten


@pytest.mark.parametrize("branch", ["text", "vision"])
def test_locating_halves_its_passes(tiny_model, tight, branch):
    whole = locate(*tiny_model, asked(True), branch, 4, **CHOICES)
    failed = tight()
    with pytest.warns(RuntimeWarning, match="8 rows at a time: going on with 4"):
        halved = locate(*tiny_model, asked(True), branch, 4, **CHOICES)
    assert len(failed) <= 6, "what did not fit is not tried with every batch"
    torch.testing.assert_close(halved.values, whole.values, rtol=1e-3, atol=1e-6)
    assert halved.names == whole.names


def test_editing_adds_up_the_gradients_of_halves(tiny_model, tight):
    config = replace(CONFIG, n_steps=3)
    whole, history = edited(*tiny_model, None, config)
    failed = tight()
    with pytest.warns(RuntimeWarning, match="going on with 2"):
        halved, again = edited(*tiny_model, None, config)
    assert len(failed) <= 8, "once for the states of each of the four pools, once for each of the four passes"
    torch.testing.assert_close(
        torch.tensor(again.to_numpy()), torch.tensor(history.to_numpy()), rtol=2e-2, atol=1e-3
    )
    change = (
        [(a.new - a.old).flatten() for a in whole.slices],
        [(a.new - a.old).flatten() for a in halved.slices],
    )
    one, other = (torch.cat(parts) for parts in change)
    assert torch.cosine_similarity(one, other, dim=0) > 0.999
    assert (one - other).norm() < 0.03 * one.norm()


def test_gradients_of_an_attempt_that_ran_out_of_memory_do_not_count(tiny_model, monkeypatch):
    config, original, calls = replace(CONFIG, n_steps=2), torch.autograd.grad, []
    whole, _ = edited(*tiny_model, None, config)

    def failing(*args, **kwargs):
        calls.append(args)
        found = original(*args, **kwargs)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(torch.autograd, "grad", failing)
    with pytest.warns(RuntimeWarning, match="out of memory"):
        halved, _ = edited(*tiny_model, None, config)
    parts = [torch.cat([(a.new - a.old).flatten() for a in made.slices]) for made in (whole, halved)]
    assert (parts[0] - parts[1]).norm() < 0.03 * parts[0].norm()


@pytest.mark.parametrize("share_prefix", [True, False])
def test_generating_halves_its_batches(tiny_model, tight, share_prefix):
    questions = asked(False) + asked(True)
    whole = generation.generate(*tiny_model, questions, 6, 4, share_prefix=share_prefix)
    failed = tight()
    with pytest.warns(RuntimeWarning, match="at a time: going on with"):
        halved = generation.generate(*tiny_model, questions, 6, 4, share_prefix=share_prefix)
    assert halved == whole
    assert len(set(whole)) > 3
    assert len(failed) <= 3
