"""Exploring without a front end: positions on the picture, neurons, answers side by side, the dial, runs."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mipnb.batches import encode
from mipnb.benchmarks import draw_questions, load_training
from mipnb.editing import prune
from mipnb.edits import same_bits
from mipnb.evaluation import COLUMNS
from mipnb.explore.ask import ask_both, fitted, value_probability
from mipnb.explore.dial import dial_point, dialed, scaled
from mipnb.explore.neurons import neuron_report, path_lines, served, served_text
from mipnb.explore.places import on_patches
from mipnb.explore.runs import compare
from mipnb.hooks import captured, zeroed
from mipnb.models import ffns, fingerprint, load_model, load_processor
from mipnb.paths import NeuronPath
from mipnb.scores import Scores

ROOT, MODEL = "data/pocket", "data/pocket/vanilla"


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL)


@pytest.fixture(scope="module")
def processor():
    return load_processor(MODEL)


@pytest.fixture(scope="module")
def asked():
    return draw_questions(load_training(ROOT, ids=["001", "002"]), 2, 0)


@pytest.fixture(scope="module")
def edit(model):
    nets = ffns(model, "text")
    layers = tuple(tuple(range(0, net.n_neurons, 2)) for net in nets)
    return prune(model, [NeuronPath("text", layers, nets[0].n_neurons, fingerprint(model))])


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model, before) -> bool:
    return all(same_bits(value, before[name]) for name, value in model.state_dict().items())


def test_a_patch_that_is_altered_is_where_the_activation_changes(model, processor, asked):
    pictured = asked[-1]
    picture = np.asarray(Image.open(io.BytesIO(pictured.image)).convert("RGB")).copy()
    net, found = ffns(model, "vision")[0], []
    for row, column in ((0, 3), (4, 1), (5, 5)):
        maps = []
        for altered in (False, True):
            shown = picture.copy()
            if altered:
                side = shown.shape[0] // 6, shown.shape[1] // 6
                at = np.s_[row * side[0] : (row + 1) * side[0], column * side[1] : (column + 1) * side[1]]
                shown[at] = 255 - shown[at]
            written = io.BytesIO()
            Image.fromarray(shown).save(written, "PNG")
            batch = encode(processor, [replace(pictured, image=written.getvalue())])
            batch.pop("labels")
            with torch.inference_mode(), captured([net]) as seen:
                model(**batch)
            maps.append(np.stack([on_patches(model, batch, seen[0][:, n]) for n in range(net.n_neurons)]))
        moved = np.abs(maps[1] - maps[0]).sum(0)
        found.append(tuple(int(i) for i in np.unravel_index(moved.argmax(), moved.shape)) == (row, column))
    assert found == [True, True, True]


def test_a_report_zeroes_that_neuron_and_no_other(model, processor, asked):
    question = replace(asked[0], value="")
    before = value_probability(model, processor, [question])[0]
    report = neuron_report(model, processor, question, "text", 1, 7)
    with zeroed(ffns(model, "text"), [[], [7], [], []]):
        after = value_probability(model, processor, [question])[0]
    assert report.answers.probability.tolist() == pytest.approx([before, after])
    assert report.patches is None
    assert set(report.tokens.kind) == {"prompt", "answer"}
    assert "".join(report.tokens.token).endswith(question.answer + "<|im_end|>")
    assert not any(net.output._forward_pre_hooks for net in ffns(model, "text"))


def test_a_language_neuron_has_a_map_of_picture_tokens(model, processor, asked):
    report = neuron_report(model, processor, asked[-1], "text", 0, 3)
    at_picture = report.tokens[report.tokens.kind == "picture"].activation
    assert report.patches.flatten() == pytest.approx(at_picture.to_numpy(), abs=1e-6)
    assert neuron_report(model, processor, asked[-1], "vision", 2, 3).patches.shape == (6, 6)


@pytest.mark.parametrize(
    ("branch", "layer", "neuron", "said"),
    [
        ("text", 9, 0, "layers 0..3"),
        ("text", 0, 512, "of 512 neurons"),
        ("vision", 0, 0, "without a picture"),
    ],
)
def test_a_neuron_that_is_not_there_is_refused(model, processor, asked, branch, layer, neuron, said):
    with pytest.raises(ValueError, match=said):
        neuron_report(model, processor, asked[0], branch, layer, neuron)


def test_the_value_s_probability_is_the_product_of_its_tokens_alone(model, processor, asked):
    question = asked[0]
    last = question.answer.rstrip(".").split()[-1]
    batch = encode(processor, [question])
    labels = batch.pop("labels")[0]
    with torch.inference_mode():
        logprobs = model(**batch).logits[0].log_softmax(-1)
    answered = (labels != -100).nonzero()[:, 0].tolist()
    text, wanted = "", 0.0
    for position in answered:
        token = processor.tokenizer.decode([labels[position]])
        spelled = len(text) + len(token) > question.answer.rindex(last) and len(
            text
        ) < question.answer.rindex(last) + len(last)
        wanted += logprobs[position - 1, labels[position]].item() if spelled else 0.0
        text += token
    found = value_probability(model, processor, [replace(question, value=last)])[0]
    assert found == pytest.approx(np.exp(wanted), rel=1e-4)
    mixed = [asked[-1], question]  # order is kept over modalities
    assert value_probability(model, processor, mixed)[1] == pytest.approx(
        value_probability(model, processor, [question])[0]
    )


def test_asking_both_leaves_the_model_vanilla_and_shows_the_damage(model, processor, asked, edit):
    before = weights(model)
    table = ask_both(model, processor, asked[0], {"halved": edit}).set_index("model")
    assert list(table.index) == ["vanilla", "halved"]
    assert table.answer["vanilla"] == asked[0].answer
    assert table.probability["vanilla"] > 0.5 > table.probability["halved"]
    assert unchanged(model, before)


def test_a_typed_question_is_weighed_by_its_value_or_not_at_all(model, processor, asked):
    typed = replace(asked[0], answer="", value="")
    assert np.isnan(ask_both(model, processor, typed, {}).probability[0])
    last = asked[0].answer.rstrip(".").split()[-1]
    given = ask_both(model, processor, replace(typed, value=last), {}).probability[0]
    assert given == pytest.approx(value_probability(model, processor, [replace(asked[0], value=last)])[0])
    with pytest.raises(ValueError, match="there is no question"):
        ask_both(model, processor, replace(typed, prompt="  "), {})


def test_a_user_s_picture_gets_the_size_that_the_model_knows(asked):
    written = io.BytesIO()
    Image.new("RGB", (400, 120), "red").save(written, "JPEG")
    like = Image.open(io.BytesIO(asked[-1].image)).size
    assert Image.open(io.BytesIO(fitted(written.getvalue(), asked[-1].image))).size == like
    with pytest.raises(ValueError, match="the uploaded file is no picture"):
        fitted(b"no picture", asked[-1].image)


@pytest.mark.parametrize("strength", [0, 0.3, 1])
def test_the_dial_goes_from_vanilla_to_the_edit_and_back_bit_for_bit(model, edit, strength):
    before, part = weights(model), edit.slices[0]
    with dialed(model, edit, strength):
        now = part.read(model)
    expected = {0: part.old, 1: part.new}.get(strength, part.old * 0.7 + part.new * 0.3)
    assert same_bits(now, expected) if strength in (0, 1) else torch.allclose(now, expected)
    assert unchanged(model, before)


def test_a_strength_outside_is_refused(edit):
    with pytest.raises(ValueError, match=r"strength is 1\.5"):
        scaled(edit, 1.5)


def test_the_dial_s_scores_fall_with_strength(model, processor, asked, edit):
    points = {
        s: dial_point(model, processor, edit, s, {"forget": asked[:2], "retain": asked[2:]})
        for s in (0.0, 1.0)
    }
    assert points[0.0].recall.tolist() == [1, 1]
    assert (points[1.0].probability < points[0.0].probability).all()


def scores(values: list[list[float]], names: tuple[str, ...]) -> Scores:
    return Scores("text", torch.tensor(values)[:, None], names, "0")


def test_served_is_a_mean_over_a_person_s_questions():
    forget = scores([[1.0, 0], [3.0, 0]], ("a/0", "a/1"))
    retain = scores([[5.0, 0], [-1.0, 0]], ("b/0", "c/0"))
    table = served({"forget": forget, "retain": retain}, 0, 0, {"a": "Ann"})
    assert table[["name", "set", "n_questions", "score"]].to_numpy().tolist() == [
        ["b", "retain", 1, 5.0], ["Ann", "forget", 2, 2.0], ["c", "retain", 1, -1.0],
    ]  # fmt: skip
    assert "people to keep: it serves the" in served_text(table)


def test_lines_join_neighbouring_layers_of_a_branch_only():
    rows = [
        ("text", 0, 4, 1.0, 1.0),
        ("text", 1, 7, 0.5, 0.5),
        ("vision", 1, 9, 1.0, 1.0),
        ("text", 3, 1, 1.0, 1.0),
    ]
    lines = path_lines(pd.DataFrame(rows, columns=["branch", "layer", "neuron", "score", "share"]))
    assert lines.to_numpy().tolist() == [["text", 0, 4, 7, 0.75]]


def write_run(folder, steps: int, value: float) -> None:
    (folder / "04_editing").mkdir(parents=True)
    (folder / "05_evaluation").mkdir()
    (folder / "04_editing" / "params.json").write_text(
        json.dumps({"run_dir": str(folder), "edit_steps": steps, "seed": 1})
    )
    rows = [
        ("r", "m", "b", "edited", 5, s, "forget", "VQA", "image_text", "accuracy", value, 4, 0.0, 1.0)
        for s in (1, 2)
    ]
    pd.DataFrame(rows, columns=COLUMNS).to_parquet(folder / "05_evaluation" / "results.parquet")
    pd.DataFrame({"step": range(steps), "loss": 1.0}).to_parquet(folder / "04_editing" / "history.parquet")


def test_compared_runs_show_what_differs(tmp_path):
    write_run(tmp_path / "one", 3, 0.25)
    write_run(tmp_path / "two", 5, 0.75)
    ablation = tmp_path / "one" / "09_ablation"  # that one of them has gone further changes nothing
    ablation.mkdir()
    (ablation / "params.json").write_text(json.dumps({"n_ablation_seeds": 3}))
    table = pd.read_parquet(tmp_path / "one" / "05_evaluation" / "results.parquet").assign(value=0.9)
    table.to_parquet(ablation / "results.parquet")
    found = compare([tmp_path / "one", tmp_path / "two"])
    assert found.parameters.to_dict("index") == {"edit_steps": {"one": "3", "two": "5"}}
    assert found.scores.loc[("forget", "VQA")].to_dict() == {("one", "edited"): 0.25, ("two", "edited"): 0.75}
    assert found.curves.groupby("run").size().to_dict() == {"one": 3, "two": 5}


def test_a_run_can_stand_alone(tmp_path):
    write_run(tmp_path / "one", 3, 0.25)
    found = compare([tmp_path / "one"])
    assert found.parameters.empty
    assert list(found.scores.columns) == [("one", "edited")]


def test_no_run_one_twice_and_one_without_results_are_refused(tmp_path):
    write_run(tmp_path / "one", 3, 0.25)
    for runs in ([], [tmp_path / "one"] * 2):
        with pytest.raises(ValueError, match="choose one or more, once each"):
            compare(runs)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "05_evaluation" / "results.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="two has no results"):
        compare([tmp_path / "one", tmp_path / "two"])
