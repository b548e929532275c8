"""Answer probability and truth ratio, and few-shot questions, on a tiny model with a real tokenizer and processor."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mipnb.batches import IGNORED, encode
from mipnb.benchmarks import Question
from mipnb.evaluation import score_marks, write_results
from mipnb.generation import generate
from mipnb.likelihood import answer_logprobs, likelihood_marks, truth_ratios
from mipnb.pocket.model import new_model, new_processor, new_tokenizer

TEXT = "who is shown here Ann Bob Eve lives in Rome Paris Oslo works as a baker"


@pytest.fixture(scope="module")
def pocket():
    tokenizer = new_tokenizer([TEXT] * 3, vocabulary=400)
    model = new_model(tokenizer, seed=0).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model, new_processor(tokenizer)


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (84, 84, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


QUESTIONS = [
    Question("a", "GEN", "who lives in Rome", "Ann lives in Rome"),
    Question(
        "b",
        "VGEN",
        "who is shown here",
        "Bob",
        image=picture(1),
        paraphrase="Bob works here",
        perturbed=("Ann", "Eve"),
    ),
    Question("c", "GEN", "who works as a baker here", "Eve works as a baker"),
    Question("d", "VGEN", "who is shown", "Eve lives in Oslo", image=picture(2)),
]


def by_hand(model, processor, question: Question) -> float:
    """Mean log-probability of the answer's tokens, one token after the other."""
    batch = encode(processor, [question])
    labels = batch.pop("labels")[0]
    logprobs = model(**batch).logits[0].float().log_softmax(-1)
    at = (labels != IGNORED).nonzero().flatten().tolist()
    return float(np.mean([logprobs[place - 1, labels[place]].item() for place in at]))


def test_each_answer_gets_its_own_mean_log_probability(pocket):
    found = answer_logprobs(*pocket, QUESTIONS, batch_size=2)
    assert found == pytest.approx([by_hand(*pocket, question) for question in QUESTIONS], abs=1e-4)
    assert found == pytest.approx(answer_logprobs(*pocket, QUESTIONS, batch_size=4), abs=1e-4)
    assert answer_logprobs(*pocket, [], batch_size=2).shape == (0,)


def test_the_truth_ratio_by_hand(pocket):
    question = QUESTIONS[1]
    right, *wrong = (
        by_hand(*pocket, replace(question, answer=text))
        for text in (question.paraphrase, *question.perturbed)
    )
    assert truth_ratios(*pocket, [question]) == pytest.approx([np.exp(np.mean(wrong) - right)], rel=1e-3)
    with pytest.raises(ValueError, match=r"no paraphrase .* \['a'\]"):
        truth_ratios(*pocket, QUESTIONS[:1])


def test_marks_depend_on_the_side_and_are_results(pocket, tmp_path):
    choice = Question("e", "QA", "who", "Ann", ("Ann", "Bob"))
    marked = likelihood_marks(*pocket, {"forget": [*QUESTIONS, choice], "retain": QUESTIONS})
    assert marked.groupby(["split", "metric"]).size().to_dict() == {
        ("forget", "probability"): 4, ("forget", "truth_ratio"): 1,
        ("retain", "probability"): 4, ("retain", "truth_ratio"): 1,
    }  # fmt: skip
    (ratio,) = truth_ratios(*pocket, QUESTIONS[1:2])
    shares = marked[marked.metric == "truth_ratio"].set_index("split").mark
    assert shares.to_dict() == pytest.approx({"forget": min(ratio, 1 / ratio), "retain": max(0, 1 - ratio)})
    labels = {"run": "r", "model": "m", "benchmark": "b", "method": "vanilla", "forget_ratio": 5, "seed": 1}
    write_results(score_marks(marked, **labels), tmp_path / "results.parquet")


def test_shots_change_what_the_model_is_shown_and_batches_do_not(pocket):
    model, processor = pocket
    shots = (Question("s", "VGEN", "who is shown", "Ann", image=picture(7)),)
    plain = [QUESTIONS[1], QUESTIONS[3]]
    asked = [replace(question, shots=shots) for question in plain]
    batch, alone = encode(processor, asked, with_answer=False), encode(processor, plain, with_answer=False)
    assert len(batch["image_grid_thw"]) == 4
    assert len(alone["image_grid_thw"]) == 2
    answer = "".join(processor.batch_decode(batch["input_ids"][:1]))
    assert answer.index("Ann") < answer.index("who is shown here")
    together = generate(model, processor, asked, 2, 6)
    assert together == [generate(model, processor, [question], 1, 6)[0] for question in asked]
