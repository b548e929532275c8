"""Passes that begin in the middle give what whole passes give, and models that cannot be entered are left whole."""

from types import SimpleNamespace

import pytest
import torch
from test_hooks import n_hooks
from torch import Tensor, nn
from toys import as_ffn, questions, tiny_vl, two_way_logits
from transformers import LlavaConfig, LlavaForConditionalGeneration

from mipnb.attribution import attribute
from mipnb.batches import IGNORED
from mipnb.models import FFN, ffns
from mipnb.plain import plain_greedy
from mipnb.probe import Probe
from mipnb.rules import quadrature
from mipnb.searches import Plan, exact
from mipnb.sharing import shared

TEXT_ONLY, PICTURES = [(0, 0)] * 3, [(4, 4), (2, 6), (8, 4)]
LENGTHS = [7, 9, 5]
CASES = [("text", TEXT_ONLY), ("text", PICTURES), ("vision", PICTURES)]


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_vl"])
def model(request):
    return tiny_vl(request.param)


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


def probe_of(model, batch: dict, networks: list[FFN], **choices) -> Probe:
    return Probe(model, networks, batch, "probability", False, 64, **choices)


@pytest.mark.parametrize(("branch", "grids"), CASES)
@pytest.mark.parametrize("kind", ["igi", "ifi"])
@pytest.mark.parametrize("rule", ["right", "gauss"])
@pytest.mark.parametrize("max_rows", [64, 5])
def test_greedy_is_the_plain_search_layer_by_layer(model, branch, grids, kind, rule, max_rows):
    batch, networks = questions(grids, LENGTHS), ffns(model, branch)
    target = "probability" if kind == "igi" else "log_likelihood"
    expected = plain_greedy(
        model, batch, networks, quadrature(rule, 3), power=1 if kind == "igi" else 2, target=target, top_k=2,
        packed=branch == "vision",
    )  # fmt: skip
    choices = {"search": "greedy", "kind": kind, "rule": rule, "n_steps": 3, "top_k": 2, "max_rows": max_rows}
    for wanted in (False, True):
        found = attribute(model, batch, branch, completeness=wanted, **choices).values
        assert close(found, expected)


@pytest.mark.parametrize(("branch", "grids"), CASES)
def test_these_models_are_entered_in_the_middle(model, branch, grids):
    networks = ffns(model, branch)
    probe = Probe(model, networks, questions(grids, LENGTHS), "probability", branch == "vision", 64)
    assert shared(probe).place is not None
    assert shared(probe).last is not None


@pytest.mark.parametrize(("branch", "grids"), CASES)
def test_lower_layers_run_once_and_not_once_a_pass(model, branch, grids):
    networks, ran = ffns(model, branch), []
    batch = questions(grids, LENGTHS)
    choices = {"search": "greedy", "kind": "igi", "rule": "right", "top_k": 2, "completeness": False}
    attribute(model, batch, branch, **choices)
    hook = networks[0].inputs[0].register_forward_pre_hook(lambda module, args: ran.append(1))
    tower = model.model.visual.register_forward_pre_hook(lambda module, args: ran.append("tower"))
    attribute(model, batch, branch, **choices)
    hook.remove()
    tower.remove()
    assert n_hooks(model) == 0
    if branch == "text":
        assert ran.count("tower") == (grids is PICTURES)


def test_the_first_layers_attention_runs_for_the_unscaled_model_only():
    model, batch, calls = tiny_vl(), questions(TEXT_ONLY, LENGTHS), []
    attention = model.model.language_model.layers[0].self_attn
    forward = type(attention).forward

    class Counting(type(attention)):
        def forward(self, *args, **kwargs):
            calls.append(len(kwargs["hidden_states"]))
            return forward(self, *args, **kwargs)

    attention.__class__ = Counting
    choices = {"search": "greedy", "rule": "right", "top_k": 2, "completeness": False}
    attribute(model, batch, "text", **choices)  # tries whether the model can be entered
    calls.clear()
    attribute(model, batch, "text", **choices)
    assert calls == [3]


@pytest.mark.parametrize(("branch", "grids"), CASES)
def test_exact_entered_in_the_middle_is_exact_from_the_beginning(model, branch, grids):
    batch, networks = questions(grids, LENGTHS), ffns(model, branch)[:2]
    plain = Probe(model, networks, batch, "probability", branch == "vision", 48, at_one=True)
    plan = Plan(quadrature("right", 2), 2, 1, False, 2, False)
    with torch.enable_grad():
        expected, found = exact(plain, plan).values, exact(shared(plain), plan).values
    assert close(found, expected)


def test_a_model_whose_hooks_would_run_twice_gets_whole_passes():
    """What a module gave is hooked already; standing in for the module, it would be hooked again."""
    model, batch = tiny_vl(), questions(TEXT_ONLY, LENGTHS)
    for layer in model.model.language_model.layers:
        layer.self_attn.register_forward_hook(lambda module, args, out: (out[0] * 1.01, *out[1:]))
    assert shared(probe_of(model, batch, ffns(model, "text"))).place is None
    found = attribute(model, batch, "text", search="greedy", rule="right", top_k=2, completeness=False).values
    assert close(found, plain_greedy(model, batch, ffns(model, "text"), quadrature("right", 4), top_k=2))


def test_no_memory_for_the_trial_is_no_refusal(monkeypatch):
    model, batch = tiny_vl(), questions(TEXT_ONLY, LENGTHS)
    probe, answer = probe_of(model, batch, ffns(model, "text")), Probe.answer

    def full(self, *args):
        """Only a pass that begins in the middle finds no memory."""
        if self.place is None:
            return answer(self, *args)
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Probe, "answer", full)
        with pytest.raises(torch.OutOfMemoryError):
            shared(probe)
    assert shared(probe).place is not None


class Forgetful(nn.Module):
    """Layers that hand something on beside their output: entered in the middle, the model misses it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Module()
        self.body.layers = nn.ModuleList(Handing(self) for _ in range(3))
        self.handed = 0.0
        self.requires_grad_(False)

    def forward(self, hidden: Tensor) -> SimpleNamespace:
        self.handed = 0.0
        for layer in self.body.layers:
            hidden = layer(hidden)
        return SimpleNamespace(
            logits=two_way_logits((hidden.mean((1, 2)) + self.handed).sigmoid(), hidden.shape[1])
        )


class Handing(nn.Module):
    def __init__(self, owner: nn.Module):
        super().__init__()
        self.up, self.down, self.owner = nn.Linear(4, 5), nn.Linear(5, 4), [owner]

    def forward(self, hidden: Tensor) -> Tensor:
        activation = torch.tanh(self.up(hidden))
        self.owner[0].handed = self.owner[0].handed + activation.mean((1, 2))
        return hidden + self.down(activation)


def test_a_model_that_cannot_be_entered_gets_whole_passes():
    model = Forgetful()
    networks = [
        FFN(f"body.layers.{index}", (layer.up,), layer.down, ("up",), "down", nn.Tanh())
        for index, layer in enumerate(model.body.layers)
    ]
    labels = torch.full((3, 4), IGNORED)
    labels[:, -1] = 0
    batch = {"hidden": torch.randn(3, 4, 4), "labels": labels}
    assert shared(probe_of(model, batch, networks)).place is None
    choices = {"search": "greedy", "rule": "right", "top_k": 2, "ffns": networks, "fingerprint": ""}
    found = attribute(model, batch, "text", **choices).values
    assert close(found, plain_greedy(model, batch, networks, quadrature("right", 4), top_k=2))


def test_networks_that_no_list_of_layers_holds_get_whole_passes():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    probe = Probe(
        net, [as_ffn(net[1], name="elsewhere")], {"labels": torch.zeros(1, 2)}, "probability", False, 1
    )
    assert shared(probe) is probe


def test_stand_ins_go_when_a_pass_fails():
    model, batch = tiny_vl(), questions(TEXT_ONLY, LENGTHS)
    expected = attribute(model, batch, "text", top_k=2).values
    last = ffns(model, "text")[-1].output

    def fail(module, args, out):
        raise RuntimeError("out of memory, say")

    hook = last.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        attribute(model, batch, "text", top_k=2)
    hook.remove()
    assert not [name for name, module in model.named_modules() if "forward" in vars(module)]
    assert n_hooks(model) == 0
    assert torch.equal(attribute(model, batch, "text", top_k=2).values, expected)


# ---- another family, and a feature layer below the tower's last block


@pytest.fixture(scope="module")
def llava():
    torch.manual_seed(0)
    text = {
        "model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3,
    }  # fmt: skip
    vision = {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 20, "num_hidden_layers": 3,
        "num_attention_heads": 2, "image_size": 8, "patch_size": 4, "initializer_range": 0.3,
    }  # fmt: skip
    config = LlavaConfig(text_config=text, vision_config=vision, image_token_id=90, vision_feature_layer=-2)
    return LlavaForConditionalGeneration(config).eval().requires_grad_(False)


def llava_ffns(model, branch: str) -> list[FFN]:
    if branch == "text":
        prefix, inputs, output = (
            "model.language_model.layers",
            ("mlp.gate_proj", "mlp.up_proj"),
            "mlp.down_proj",
        )
    else:
        prefix, inputs, output = "model.vision_tower.encoder.layers", ("mlp.fc1",), "mlp.fc2"
    networks = []
    for index in range(3):
        name = f"{prefix}.{index}"
        names = tuple(f"{name}.{path}" for path in inputs)
        modules = tuple(model.get_submodule(path) for path in names)
        act = model.get_submodule(f"{name}.mlp.{'act_fn' if branch == 'text' else 'activation_fn'}")
        networks.append(
            FFN(name, modules, model.get_submodule(f"{name}.{output}"), names, f"{name}.{output}", act)
        )
    return networks


def llava_batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(2, 89, (3, 12))
    ids[:, 1:5] = 90
    labels = torch.where(torch.arange(12) >= 9, ids, IGNORED)
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels,
        "pixel_values": torch.randn(3, 3, 8, 8),
    }  # fmt: skip


@pytest.mark.parametrize("branch", ["text", "vision"])
def test_llava_is_entered_too(llava, branch):
    batch, networks = llava_batch(), llava_ffns(llava, branch)
    assert shared(probe_of(llava, batch, networks)).place is not None
    choices = {"kind": "igi", "rule": "right", "top_k": 2, "completeness": False}
    found = attribute(llava, batch, branch, search="greedy", ffns=networks, fingerprint="", **choices)
    expected = plain_or_zero(llava, batch, networks)
    assert close(found.values, expected)


def plain_or_zero(model, batch, networks) -> Tensor:
    """The plain search over the layers that the answer depends on, and zeros for the rest."""
    reaching = networks if "language" in networks[0].name else networks[:-1]
    values = plain_greedy(model, batch, reaching, quadrature("right", 4), top_k=2)
    return torch.cat(
        [values, values.new_zeros(3, len(networks) - len(reaching), networks[0].n_neurons)], dim=1
    )


@pytest.mark.parametrize("search", ["greedy", "one_pass", "shortlist"])
def test_the_block_beyond_the_feature_layer_scores_zero_and_is_told(llava, search):
    networks = llava_ffns(llava, "vision")
    scores = attribute(
        llava, llava_batch(), "vision", search=search, kind="igi", top_k=2, ffns=networks, fingerprint=""
    )
    assert scores.silent_layers == [2]
    assert (
        attribute(
            llava, llava_batch(), "text", top_k=2, ffns=llava_ffns(llava, "text"), fingerprint=""
        ).silent_layers
        == []
    )
