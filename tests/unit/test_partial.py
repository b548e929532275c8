"""Partial results: found again if nothing has changed, not found otherwise, removed at the end."""

import json

import pytest
import torch
from tiny_qwen import tiny_batch, tiny_model

from mipnb import partial
from mipnb.artefacts import KEEP_PARTIAL, PARTIAL, clear_partial, read_json, write_json
from mipnb.benchmarks import Question
from mipnb.editing import prune
from mipnb.models import fingerprint
from mipnb.partial import batches_digest, partial_results, questions_digest, tensors_digest, weights_digest
from mipnb.paths import NeuronPath
from mipnb.report import finish
from mipnb.stages import Stage
from mipnb.state import outputs


def _remember(kept, value, made):
    def make():
        made.append(value)
        return value

    return kept.remembered("piece.json", make, lambda found, path: write_json(path, found), read_json)


def test_a_piece_is_made_once_and_anew_when_anything_changes(tmp_path):
    made = []
    for key in ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 1}):
        assert _remember(partial_results(tmp_path, "pieces", **key), key["a"], made) == key["a"]
    assert made == [1, 2]
    _remember(partial_results(tmp_path, "others", a=1), 1, made)
    assert made == [1, 2, 1], "a piece of another kind"


def test_another_program_finds_nothing(tmp_path, monkeypatch):
    made = []
    _remember(partial_results(tmp_path, "pieces", a=1), 1, made)
    monkeypatch.setattr(partial, "sha256", lambda path: "other")
    _remember(partial_results(tmp_path, "pieces", a=1), 1, made)
    assert made == [1, 1]


def test_a_damaged_piece_is_made_anew(tmp_path):
    made, kept = [], partial_results(tmp_path, "pieces", a=1)
    _remember(kept, 1, made)
    (kept.folder / "piece.json").write_text("[1, 2")
    assert _remember(kept, 1, made) == 1
    assert made == [1, 1]
    assert json.loads((kept.folder / "piece.json").read_text()) == 1


def test_all_whole_pieces_are_found_again(tmp_path):
    kept = partial_results(tmp_path, "pieces", a=1)
    assert kept.all(read_json) == []
    for value in (2, 1):
        assert kept.keep(f"{value}.json", [value], lambda found, path: write_json(path, found)) == [value]
    assert kept.all(read_json) == [[1], [2]]
    (kept.folder / "1.json").write_text("[1")
    assert partial_results(tmp_path, "pieces", a=1).all(read_json) == [[2]]
    assert partial_results(None, "pieces").all(read_json) == []


def test_without_a_folder_nothing_is_kept_and_no_key_is_computed():
    def never():
        raise AssertionError("a key was computed")

    made, kept = [], partial_results(None, "pieces", model=never)
    _remember(kept, 1, made)
    _remember(kept, 1, made)
    assert made == [1, 1]


def test_partial_results_are_no_artefacts_and_go_with_the_last_cell(tmp_path):
    stage = tmp_path / "02_attribution"
    _remember(partial_results(stage, "pieces", a=1), 1, [])
    write_json(stage / "whole.json", 1)
    assert list(outputs(Stage("02_attribution", stage), tmp_path)) == ["whole.json"]
    finish(stage)
    assert not (stage / PARTIAL).exists()
    assert (stage / "whole.json").exists()
    clear_partial(stage)  # nothing there is no error


def test_pieces_are_kept_on_demand_and_what_processes_shared_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv(KEEP_PARTIAL, "1")
    made = []
    _remember(partial_results(tmp_path, "pieces", a=1), 1, made)
    (tmp_path / PARTIAL / "batches.pt").touch()
    finish(tmp_path)
    assert not (tmp_path / PARTIAL / "batches.pt").exists()
    _remember(partial_results(tmp_path, "pieces", a=1), 1, made)
    assert made == [1]
    monkeypatch.setenv(KEEP_PARTIAL, "")
    finish(tmp_path)
    assert not (tmp_path / PARTIAL).exists()


def test_the_weights_name_sees_an_edit_that_the_fingerprint_may_overlook():
    model = tiny_model()
    path = NeuronPath("text", ((3,), (), ()), 24, fingerprint(model))
    before, pruned = weights_digest(model), prune(model, [path])
    with pruned.applied(model):
        assert weights_digest(model) != before
    assert weights_digest(model) == before
    weight = model.lm_head.weight
    weight[50, 7] = torch.nextafter(weight[50, 7], torch.tensor(9.0))
    assert weights_digest(model) != before


def test_the_weights_name_tells_dtypes_apart():
    assert weights_digest(tiny_model()) != weights_digest(tiny_model().to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_tensors_name_follows_values_shape_order_and_name(dtype):
    one = torch.tensor([[1, 0, 1], [0, 0, 1]]).to(dtype)
    name = tensors_digest([("a", one)])
    assert tensors_digest([("a", one.clone())]) == name
    others = [one.flip(0), one.flip(1), one.reshape(3, 2), one.to(torch.float64)]
    assert all(tensors_digest([("a", other)]) != name for other in others)
    assert tensors_digest([("b", one)]) != name
    assert tensors_digest([("a", torch.tensor(1.0))])


def test_batches_and_questions_are_told_apart_by_content_and_order():
    batches = [tiny_batch(1, False), tiny_batch(2, True)]
    assert batches_digest(batches) == batches_digest([tiny_batch(1, False), tiny_batch(2, True)])
    assert batches_digest(batches) != batches_digest(batches[::-1])
    asked = [Question("a", "GEN", "?", "!"), Question("a", "VGEN", "?", "!", image=b"1")]
    others = [
        asked[::-1], asked[:1], [asked[0], Question("a", "VGEN", "?", "!", image=b"2")],
        [asked[0], Question("a", "VGEN", "?", ".", image=b"1")],
    ]  # fmt: skip
    assert len({questions_digest(group) for group in [asked, *others]}) == 5


def test_weights_are_read_again_only_if_they_changed(monkeypatch):
    model, read = tiny_model(), []
    whole = partial.tensors_digest
    monkeypatch.setattr(partial, "tensors_digest", lambda named: read.append(1) or whole(named))
    first = weights_digest(model)
    assert (weights_digest(model), len(read)) == (first, 1)
    weight = next(model.parameters())
    with torch.no_grad():
        weight[0, 0] += 1
    second = weights_digest(model)
    weight.data.mul_(2)  # past autograd's count
    assert len({first, second, weights_digest(model)}) == 3
