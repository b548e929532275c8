"""From questions to tensors: labels on the answer alone, pictures that stay whole, errors that say why."""

from dataclasses import replace

import pytest
import torch

from mipnb.artefacts import project_root
from mipnb.batches import (
    IGNORED,
    answer_logprob,
    batches,
    decode_image,
    encode,
    patch_owner,
    repeat_batch,
    take_batch,
)
from mipnb.benchmarks import draw_questions, load_training
from mipnb.models import load_model, load_processor

POCKET = project_root() / "data" / "pocket"


@pytest.fixture(scope="module")
def processor():
    return load_processor(POCKET / "vanilla")


@pytest.fixture(scope="module")
def questions():
    return draw_questions(load_training(POCKET, ids=["001", "002"]), 6, seed=0)


@pytest.mark.parametrize("task", ["VQA", "VGEN", "CLOZE_VQA"])
def test_a_question_about_a_picture_needs_one(processor, questions, task):
    bare = replace(next(q for q in questions if q.image is None), task=task)
    with pytest.raises(ValueError, match="are image questions without an image"):
        encode(processor, [bare])


def test_labels_are_the_answer_and_its_end(processor, questions):
    for group in batches(questions, 4):
        batch = encode(processor, group)
        for ids, labels, question in zip(batch["input_ids"], batch["labels"], group, strict=True):
            kept = labels[labels != IGNORED]
            assert processor.tokenizer.decode(kept) == question.answer + "<|im_end|>"
            assert torch.equal(ids[labels != IGNORED], kept)


def test_prompts_are_padded_left_and_hold_no_answer(processor, questions):
    batch = encode(processor, questions[:4], with_answer=False)
    assert "labels" not in batch
    assert batch["attention_mask"][:, -1].all()
    for ids, question in zip(batch["input_ids"], questions, strict=False):
        text = processor.tokenizer.decode(ids)
        assert question.prompt in text
        assert question.answer not in text


def test_a_mixed_batch_is_refused(processor, questions):
    with pytest.raises(ValueError, match="one modality"):
        encode(processor, questions)


def test_repeated_and_taken_batches_keep_pictures_whole(processor, questions):
    pictured = [question for question in questions if question.image]
    batch = encode(processor, pictured[:3])
    twice = repeat_batch(batch, 2)
    assert torch.equal(take_batch(twice, 3, 6)["pixel_values"], batch["pixel_values"])
    alone = encode(processor, pictured[1:2])
    part = take_batch(batch, 1, 2)
    assert torch.equal(part["pixel_values"], alone["pixel_values"])
    assert torch.equal(part["image_grid_thw"], alone["image_grid_thw"])


def test_patches_know_their_picture():
    grid = torch.tensor([[1, 2, 2], [1, 2, 4]])
    assert patch_owner(grid).tolist() == [0] * 4 + [1] * 8


def test_answer_logprob_counts_answer_tokens_alone():
    logits = torch.zeros(1, 4, 8)
    logits[0, 2, 3] = 2.0
    labels = torch.tensor([[IGNORED, IGNORED, 1, 3]])
    expected = (-torch.tensor(8.0).log() + torch.log_softmax(logits[0, 2], -1)[3]) / 2
    torch.testing.assert_close(answer_logprob(logits, labels), expected[None])
    logits[0, 0] = torch.randn(8)  # a prompt position
    torch.testing.assert_close(answer_logprob(logits, labels), expected[None])


def test_one_question_answers_alike_alone_and_in_a_batch(processor, questions):
    model = load_model(POCKET / "vanilla")
    for group in batches(questions, 6):
        together = _logprob(model, encode(processor, group))
        alone = torch.cat([_logprob(model, encode(processor, [question])) for question in group])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def _logprob(model, batch):
    with torch.inference_mode():
        return answer_logprob(
            model(**{k: v for k, v in batch.items() if k != "labels"}).logits, batch["labels"]
        )


def test_broken_pictures_are_named():
    with pytest.raises(ValueError, match="7 bytes do not decode"):
        decode_image(b"no jpeg")


def test_a_question_without_an_answer_is_refused_where_answers_count(processor, questions):
    empty = replace(questions[0], answer=" ")
    with pytest.raises(ValueError, match=r"answer of .* is empty"):
        encode(processor, [empty])
    assert "labels" not in encode(processor, [empty], with_answer=False)
