"""Prompts that share their beginning: gone through once, answered as if each had been gone through alone."""

from dataclasses import replace

import pytest
import torch
from tiny_families import RECIPES, picture, tiny

from mipnb.batches import answer_logprob, encode
from mipnb.benchmarks import Question
from mipnb.generation import generate
from mipnb.options import answer_logprobs
from mipnb.prefixes import shared_prefix, unseen

PROMPTS = (
    "Who is this?",
    "Where does Ana Novak live? Say it.",
    "Is this a tram driver or a blue hat?",
    "Who?",
)
#: families whose shared beginnings cannot be kept: Gemma 3 forgets what lies far back
PLAIN = {"gemma3"}


@pytest.fixture(scope="module", params=RECIPES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model_and_processor(name):
    return tiny(name)


def _asked(n_pictures=3, pictured=True):
    """Four questions a picture, in turn; pictures and prompts differ in size."""
    images = [picture(i, 16 + 16 * i, 24) if pictured else None for i in range(n_pictures)]
    return [
        Question(str(i), "VGEN" if pictured else "GEN", prompt, "a blue hat", image=image)
        for prompt in PROMPTS
        for i, image in enumerate(images)
    ]


def _count(monkeypatch, model):
    """Tokens that go through the model, and how often its tower is asked for pictures."""
    seen = {"tokens": 0, "pictures": 0}
    tower = model.model.visual if hasattr(model.model, "visual") else model.model.vision_tower
    monkeypatch.setattr(tower, "forward", _counting(tower.forward, seen, "pictures"))
    layer = model.model.language_model.layers[0]
    monkeypatch.setattr(layer, "forward", _counting(layer.forward, seen, "tokens"))
    return seen


def _counting(forward, seen, what):
    def counted(*args, **kwargs):
        first = args[0] if args else kwargs["pixel_values"]
        seen[what] += first.shape[0] * first.shape[1] if what == "tokens" else len(first)
        return forward(*args, **kwargs)

    return counted


@pytest.mark.parametrize("pictured", [True, False])
def test_answers_are_those_of_the_whole_prompts(name, model_and_processor, monkeypatch, pictured):
    model, processor = model_and_processor
    asked = _asked(pictured=pictured)
    counts, answers = [], []
    for share in (False, True):
        with monkeypatch.context() as patch:
            seen = _count(patch, model)
            answers.append(generate(model, processor, asked, 5, 6, share_prefix=share))
        counts.append(seen)
    assert answers[1] == answers[0]
    if name in PLAIN:
        return
    assert len(set(answers[0])) >= 4, "the test is empty if all answers agree"
    if pictured:
        assert counts[1]["pictures"] <= counts[0]["pictures"] / 3, "each picture is looked at once"
        assert counts[1]["tokens"] < 0.8 * counts[0]["tokens"]


def test_the_logits_after_a_shared_beginning_are_those_of_the_whole_prompt(name, model_and_processor):
    model, processor = model_and_processor
    groups = [_asked()[0::3], _asked()[1::3]]  # two pictures of different size
    found = shared_prefix(model, processor, groups)
    assert (found is None) == (name in PLAIN)
    if found is None:
        return
    prefix, tails = found
    order = [(1, 2), (0, 0), (1, 0), (0, 3)]  # (group, question)
    batch = prefix.extended([g for g, _ in order], [tails[g][q] for g, q in order], 0)
    before = [layer.keys.clone() for layer in prefix.cache.layers]
    logits = model(**unseen(batch), logits_to_keep=1).logits[:, -1]
    for row, (group, question) in zip(logits, order, strict=True):
        alone = encode(processor, [groups[group][question]], with_answer=False)
        torch.testing.assert_close(row, model(**alone).logits[0, -1], rtol=1e-3, atol=1e-4)
    assert all(torch.equal(a, layer.keys) for a, layer in zip(before, prefix.cache.layers, strict=True))


def test_a_picture_that_does_not_come_first_is_asked_plainly(monkeypatch):
    model, processor = tiny("qwen2_5_vl")
    asked = _asked(2)
    template = processor.chat_template
    start = "{% for part in message['content'] %}"
    assert start in template
    processor.chat_template = template.replace(start, "{% for part in message['content'] | reverse %}")
    try:
        assert shared_prefix(model, processor, [asked[0::2]]) is None
        plain = generate(model, processor, asked, 4, 5, share_prefix=False)
        assert generate(model, processor, asked, 4, 5) == plain
    finally:
        processor.chat_template = template


def _options(asked, texts=("Oslo", "a tram driver in Oslo", "hat")):
    return [replace(question, answer=text) for question in asked for text in texts]


def test_answers_are_as_likely_as_one_by_one(model_and_processor):
    model, processor = model_and_processor
    asked = _options([*_asked(2), *_asked(1, pictured=False)])[::-1]
    found = answer_logprobs(model, processor, asked, batch_size=4)
    for question, value in zip(asked, found, strict=True):
        batch = encode(processor, [question])
        labels = batch.pop("labels")
        assert value == pytest.approx(answer_logprob(model(**batch).logits, labels).item(), abs=1e-3)


def test_a_prompt_is_gone_through_once_for_its_answers(monkeypatch):
    model, processor = tiny("qwen2_5_vl")
    asked = _asked(2)[:2]
    prompts = [int(encode(processor, [q], with_answer=False)["attention_mask"].sum()) for q in asked]
    with monkeypatch.context() as patch:
        seen = _count(patch, model)
        answer_logprobs(model, processor, _options(asked, ("Oslo", "blue", "hat", "Ana")), batch_size=8)
    longest_answer = 6
    assert seen["tokens"] <= 2 * max(prompts) + 8 * (1 + longest_answer)
