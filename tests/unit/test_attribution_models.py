"""Scores on tiny random Qwen2.5-VL and Qwen2-VL models: packed patches, padding, captum, flags, dtypes."""

from itertools import product

import pytest
import torch
from test_hooks import n_hooks
from torch import Tensor
from toys import questions, tiny_vl

from mipnb.attribution import attribute
from mipnb.batches import answer_logprob, repeat_batch, take_batch
from mipnb.hooks import zeroed
from mipnb.models import ffns

TEXT_ONLY = [(0, 0)] * 3
PICTURES = [(4, 4), (2, 6), (8, 4)]
LENGTHS = [7, 9, 5]
CASES = [("text", TEXT_ONLY), ("text", PICTURES), ("vision", PICTURES)]


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_vl"])
def any_model(request):
    return tiny_vl(request.param)


@pytest.fixture(scope="module")
def model():
    return tiny_vl()


def answer_probability(model, batch: dict) -> Tensor:
    inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
    with torch.no_grad():
        return answer_logprob(model(**inputs).logits, batch["labels"]).exp()


@pytest.mark.parametrize(("branch", "grids"), CASES)
@pytest.mark.parametrize("kind", ["igi", "ifi"])
@pytest.mark.parametrize("score", ["joint", "complete"])
def test_every_combination_runs_on_gated_and_ungated_networks(any_model, branch, grids, kind, score):
    batch = questions(grids, LENGTHS)
    scores = attribute(any_model, batch, branch, kind=kind, score=score, top_k=2, n_steps=2)
    assert scores.values.shape == (3, 3, ffns(any_model, branch)[0].n_neurons)
    assert (scores.values.abs().amax(-1) > 0).all()  # every sample, every layer


@pytest.mark.parametrize(("branch", "grids"), CASES)
def test_full_and_zero_are_the_answer_probability_with_and_without_the_neurons(any_model, branch, grids):
    batch = questions(grids, LENGTHS)
    scores = attribute(any_model, batch, branch, kind="igi", search="one_pass")
    assert torch.allclose(scores.f_full, answer_probability(any_model, batch), rtol=1e-4)
    with zeroed(ffns(any_model, branch)):
        assert torch.allclose(scores.f_zero, answer_probability(any_model, batch), rtol=1e-4)


@pytest.mark.parametrize(("branch", "grids"), CASES)
@pytest.mark.parametrize("search", ["greedy", "one_pass"])
def test_completeness_holds_with_enough_steps(any_model, branch, grids, search):
    """These random nets are wild near 0 (RMS norms of nearly nothing): they need many steps."""
    batch = questions(grids, LENGTHS)
    scores = attribute(
        any_model, batch, branch, kind="igi", search=search, rule="gauss", n_steps=150, max_rows=450
    )
    assert scores.gap.median() < 1e-4
    assert scores.gap.max() < 2e-2


# ---- an oracle

CAPTUM_RULES = [("right", "riemann_right"), ("midpoint", "riemann_middle"), ("gauss", "gausslegendre")]


@pytest.mark.parametrize(("branch", "grids"), CASES)
@pytest.mark.parametrize(("rule", "method"), CAPTUM_RULES)
def test_one_layer_agrees_with_captum(any_model, branch, grids, rule, method):
    captum = pytest.importorskip("captum.attr", reason="captum is the oracle of this test")
    batch, layer = questions(grids, LENGTHS), ffns(any_model, branch)[1]
    ours = attribute(
        any_model, batch, branch, kind="igi", search="one_pass", n_steps=6, rule=rule, ffns=[layer]
    )
    oracle = captum.LayerIntegratedGradients(switched(any_model, batch, layer), layer.output)
    found = oracle.attribute(
        torch.ones(3, 1), torch.zeros(3, 1), n_steps=6, method=method, attribute_to_layer_input=True
    )
    expected = per_sample(found[0] if isinstance(found, tuple) else found, batch)
    assert torch.allclose(ours.values[:, 0], expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def switched(model, batch: dict, layer):
    """The answer probability as a function of a switch a row: off, the layer's activations are zero."""

    def probability(switch: Tensor) -> Tensor:
        rows = repeat_batch(batch, len(switch) // len(batch["labels"]))
        inputs = {key: tensor for key, tensor in rows.items() if key != "labels"}
        hook = layer.inputs[-1].register_forward_hook(lambda module, args, out: out * switch.any())
        try:
            return answer_logprob(model(**inputs).logits, rows["labels"]).exp()
        finally:
            hook.remove()

    return probability


def per_sample(positional: Tensor, batch: dict) -> Tensor:
    """Sum over tokens, or over each picture's patches."""
    if positional.dim() == 3:
        return positional.sum(1).float()
    sizes = batch["image_grid_thw"].prod(-1).tolist()
    return torch.stack([part.sum(0) for part in positional.split(sizes)]).float()


def test_gate_gradients_agree_with_finite_differences_through_the_whole_net(model):
    batch, layers = questions(PICTURES, LENGTHS), ffns(model, "vision")
    scores = attribute(
        model, batch, "vision", kind="igi", search="one_pass", n_steps=1, rule="right"
    )  # dF/dgate at gates of 1
    neuron, step = 4, 1e-2
    with torch.no_grad():
        column = layers[0].output.weight[:, neuron].clone()
        values = []
        for sign in (1, -1):
            layers[0].output.weight[:, neuron] = column * (1 + sign * step)
            values.append(answer_probability(model, batch))
        layers[0].output.weight[:, neuron] = column
    expected = (values[0] - values[1]) / (2 * step)
    assert torch.allclose(
        scores.values[:, 0, neuron], expected, rtol=3e-2, atol=3e-2 * expected.abs().max().item()
    )


# ---- packing, padding, batching

FORMS = [*product(("joint", "complete"), ("greedy", "one_pass")), ("complete", "shortlist")]


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("branch", ["vision", "text"])
@pytest.mark.parametrize("kind", ["igi", "ifi"])
@pytest.mark.parametrize(("score", "search"), FORMS)
def test_a_picture_scores_the_same_beside_pictures_of_other_sizes(any_model, branch, kind, score, search):
    batch = questions(PICTURES, LENGTHS)
    choices = {"kind": kind, "score": score, "search": search, "top_k": 2}
    together = attribute(any_model, batch, branch, **choices).values
    for index in range(3):
        alone = attribute(any_model, take_batch(batch, index, index + 1), branch, **choices).values
        assert close(together[index], alone[0])


def test_pictures_in_another_order_give_the_scores_in_that_order(any_model):
    first = attribute(any_model, questions(PICTURES, LENGTHS), "vision", top_k=2).values
    parts = [take_batch(questions(PICTURES, LENGTHS), index, index + 1) for index in (2, 0, 1)]
    batch = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    assert close(attribute(any_model, batch, "vision", top_k=2).values, first[[2, 0, 1]])


@pytest.mark.parametrize(("branch", "grids"), CASES)
@pytest.mark.parametrize(
    ("score", "search"),
    [
        *FORMS,
        ("joint", "exact"),
        ("complete", "exact"),
        ("joint", "shortlist"),
        ("complete", "shortlist"),
        ("complete", "tangent"),
    ],
)
def test_scores_do_not_depend_on_chunks(model, branch, grids, score, search):
    batch = questions(grids, LENGTHS)
    choices = {"score": score, "search": search, "top_k": 2, "n_steps": 2, "ffns": ffns(model, branch)[:2]}
    found = [attribute(model, batch, branch, max_rows=rows, **choices).values for rows in (1000, 16, 2)]
    assert close(found[1], found[0])
    assert close(found[2], found[0])


@pytest.mark.parametrize(("branch", "grids"), CASES)
@pytest.mark.parametrize("score", ["joint", "complete"])
def test_padding_does_not_count(model, branch, grids, score):
    batch = questions(grids, LENGTHS)
    plain = attribute(model, batch, branch, score=score, top_k=2).values
    fill = {"input_ids": 57, "labels": -100, "attention_mask": 0, "mm_token_type_ids": 0}
    padded = batch | {
        key: torch.cat([batch[key], torch.full((3, 5), value)], dim=1) for key, value in fill.items()
    }
    hidden = batch["attention_mask"] == 0
    padded["input_ids"][:, : hidden.shape[1]][hidden] = 43
    assert hidden.any()
    assert close(attribute(model, padded, branch, score=score, top_k=2).values, plain)


def test_the_prompt_is_not_part_of_the_answer(model):
    batch = questions(TEXT_ONLY, LENGTHS)
    counted = batch | {"labels": torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)}
    scores, other = (attribute(model, b, "text", search="one_pass") for b in (batch, counted))
    assert torch.allclose(scores.f_full, answer_probability(model, batch), rtol=1e-4)
    assert not torch.allclose(scores.f_full, other.f_full, rtol=1e-2)


def test_log_likelihood_sums_over_answer_tokens(model):
    batch = questions(TEXT_ONLY, LENGTHS)
    full = attribute(model, batch, "text", kind="ifi", search="one_pass").f_full
    assert torch.allclose(full, 3 * answer_probability(model, batch).log(), rtol=1e-4)


# ---- the model is left as found


@pytest.mark.parametrize("search", ["greedy", "one_pass", "exact", "tangent", "shortlist"])
def test_the_model_is_left_as_found(search):
    model, batch = tiny_vl(), questions(TEXT_ONLY, LENGTHS)
    model.train()
    model.lm_head.weight.requires_grad_(True)
    before = [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]
    bits = {name: parameter.clone() for name, parameter in model.named_parameters()}
    attribute(model, batch, "text", search=search, top_k=1, n_steps=1, ffns=ffns(model, "text")[:1])
    assert before == (
        [module.training for module in model.modules()],
        [p.requires_grad for p in model.parameters()],
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    assert n_hooks(model) == 0
    assert all(torch.equal(parameter, bits[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("branch", ["text", "vision"])
def test_hooks_come_off_when_the_model_fails_in_the_middle(branch):
    model, batch = tiny_vl(), questions(PICTURES, LENGTHS)
    model.train()

    def fail(module, args, out):
        raise RuntimeError("out of memory, say")

    hook = ffns(model, branch)[-1].output.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        attribute(model, batch, branch)
    hook.remove()
    assert n_hooks(model) == 0
    assert model.training
    assert answer_probability(model, batch).isfinite().all()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(model, context):
    batch = questions(TEXT_ONLY, LENGTHS)
    plain = attribute(model, batch, "text").values
    with context():
        assert torch.equal(attribute(model, batch, "text").values, plain)
        assert not torch.is_grad_enabled()


def test_dropout_is_off_while_scoring():
    model, batch = tiny_vl(), questions(TEXT_ONLY, LENGTHS)
    plain = attribute(model, batch, "text").values
    for layer in model.model.language_model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    assert torch.equal(attribute(model, batch, "text").values, plain)


# ---- dtype


@pytest.mark.parametrize(("branch", "grids"), CASES)
@pytest.mark.parametrize("score", ["joint", "complete"])
def test_bfloat16_weights_give_float32_scores_that_are_not_rounded(branch, grids, score):
    model, batch = tiny_vl(dtype=torch.bfloat16), questions(grids, LENGTHS)
    values = attribute(model, batch, branch, score=score, search="one_pass").values
    assert values.dtype == torch.float32
    assert (values != values.bfloat16().float()).float().mean() > 0.5
    full = attribute(model.float(), batch, branch, score=score, search="one_pass").values
    pair = torch.stack([values.flatten(), full.flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.9


# ---- bad input


def test_vision_without_pictures_and_several_pictures_a_sample_are_refused(model):
    with pytest.raises(ValueError, match="the vision branch needs image questions"):
        attribute(model, questions(TEXT_ONLY, LENGTHS), "vision")
    batch = questions(PICTURES, LENGTHS)
    batch["image_grid_thw"] = torch.tensor([[1, 4, 4], [1, 2, 6], [1, 4, 4], [1, 4, 4]])
    with pytest.raises(ValueError, match="4 pictures for 3 samples"):
        attribute(model, batch, "vision")


def test_layers_that_the_answer_does_not_depend_on_score_zero(model):
    """As in a tower whose last blocks are not read."""
    batch, layers = questions(TEXT_ONLY, LENGTHS), ffns(model, "text")
    spare = ffns(tiny_vl(seed=5), "text")[0]

    def call_spare(module, args, out):
        spare.output(torch.ones(len(args[0]), 1, spare.n_neurons))

    hook = layers[-1].output.register_forward_hook(call_spare)
    values = attribute(model, batch, "text", ffns=[layers[0], spare], kind="igi").values
    hook.remove()
    assert (values[:, 0] != 0).any()
    assert (values[:, 1] == 0).all()
