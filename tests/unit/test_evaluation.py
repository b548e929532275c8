"""Answers, marks, intervals and the tidy table."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mipnb.benchmarks import Question, choice_prompt
from mipnb.evaluation import (
    COLUMNS,
    aggregate,
    compare,
    forgetting_rate,
    read_results,
    retention,
    score,
    side_by_side,
    write_results,
)
from mipnb.generation import ANSWER_COLUMNS, evaluate, generate
from mipnb.metrics import holds_words, interval, marks, match_option, rouge_l, t_975
from mipnb.pocket.model import new_model, new_processor, new_tokenizer

LABELS = {"run": "tiny", "model": "random", "benchmark": "tiny", "forget_ratio": 5, "seed": 1}
OPTIONS = ("Paris", "New York", "York", "Rome")


# Matching


@pytest.mark.parametrize(
    ("said", "index"),
    [
        ("Rome", 3),
        ("  rome ", 3),
        ("She lives in Rome.", 3),
        ("She moved to NEW\nYORK.", 1),
        ("She lives in York, in the north.", 2),
        ("B", 1),
        ("b", 1),
        ("B.", 1),
        ("(B)", 1),
        ("b) ", 1),
        ("**B**", 1),
        ("Answer: B", 1),
        ("The correct answer is (C).", 2),
        ("C. the old town", 2),
        ("D) Paris", 0),  # the text counts for more than the letter before it
        ("She lives in a romesque house.", None),  # whole words only
        ("Paris or Rome", None),
        ("New York, not York", None),
        ("E", None),  # there is no such option
        ("London", None),
        ("A nice place", None),  # the article is no letter
        ("", None),
    ],
)
def test_which_option_an_answer_names(said, index):
    assert match_option(said, OPTIONS) == index


def test_an_options_very_text_comes_before_its_letter():
    assert match_option("A", ("AB", "0", "A", "B")) == 2
    assert match_option("blood group A", ("AB", "0", "A", "B")) == 2
    assert match_option("A", ("one", "two", "three", "four")) == 0


def test_a_value_is_recalled_as_whole_words():
    assert holds_words("Her hobby is  Rock\nClimbing.", "rock climbing")
    assert not holds_words("a martial artist", "art")
    assert holds_words("She was born in 1984.", "1984")
    assert not holds_words("She was born in 19845.", "1984")
    assert not holds_words("anything", "")


def test_rouge_l_by_hand():
    # common subsequence "the cat sat": precision 3/4, recall 3/6
    assert rouge_l("the cat sat down", "the cat sat on the mat") == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    assert rouge_l("she works", "she worked") == 1.0  # stemmed
    assert rouge_l("", "she worked") == 0.0


def test_marks_by_task():
    def row(task, generated, answer, value="", options=()):
        fields = {"task": task, "generated": generated, "answer": answer, "value": value, "options": options}
        return pd.Series(fields)

    assert marks(row("QA", "It is Rome", "Rome", options=OPTIONS)) == {"accuracy": 1, "unparsed": 0}
    assert marks(row("QA", "It is York", "Rome", options=OPTIONS)) == {"accuracy": 0, "unparsed": 0}
    assert marks(row("VQA", "Rome, Paris", "Rome", options=OPTIONS)) == {"accuracy": 0, "unparsed": 1}
    assert marks(row("CLOZE_QA", "the word is ROME", "Rome")) == {"accuracy": 1}
    told = row("GEN", "Ann lives in Rome", "Ann lives in Rome", "Rome")
    assert marks(told) == {"rougeL": 1, "value_recall": 1}
    assert set(marks(row("VGEN", "so", "Ann lives in Rome"))) == {"rougeL"}


# Intervals


def test_independent_answers_give_wilsons_interval():
    values = np.repeat([0.0, 1.0], [60, 140])
    low, high = interval(values, np.arange(200))
    assert (low, high) == pytest.approx((0.6333, 0.7592), abs=0.003)  # Wilson, n = 200


def test_a_persons_answers_that_agree_count_once():
    one_each = interval(np.repeat([0.0, 1.0], 20), np.arange(40))
    eight_each = interval(np.repeat([0.0, 1.0], 160), np.repeat(np.arange(40), 8))
    assert eight_each == pytest.approx(one_each, abs=1e-6)
    spread = interval(np.tile([0.0, 1.0], 160), np.repeat(np.arange(40), 8))
    assert spread[1] - spread[0] < 0.5 * (eight_each[1] - eight_each[0])


def test_perfect_marks_still_have_a_width():
    people = np.repeat(np.arange(10), 8)
    low, high = interval(np.ones(80), people)
    assert high == 1.0
    assert 0.9 < low < 0.97
    nearly = np.ones(80)
    nearly[0] = 0
    assert interval(nearly, people)[0] < low
    assert interval(np.ones(80), np.zeros(80))[0] < 0.3, "one person says little about people"


def test_the_interval_covers_the_truth_when_people_differ():
    random = np.random.default_rng(0)
    people, covered = np.repeat(np.arange(20), 8), 0
    for _ in range(400):
        ability = random.beta(2, 1, 20)
        low, high = interval((random.random(160) < ability[people]).astype(float), people)
        covered += low <= 2 / 3 <= high
    assert 0.92 < covered / 400 < 0.99  # about 0.80 if the questions were taken for independent


def test_t_quantiles():
    found = [t_975(degrees) for degrees in (1, 3, 5, 9, 30, 1000)]
    assert found == pytest.approx([12.706, 3.182, 2.571, 2.262, 2.042, 1.962], rel=0.01)


# The table


def _answers():
    rows = [
        ("forget", "p1", "QA", "text", "q", "Rome", "Rome", list(OPTIONS), "Rome"),
        ("forget", "p2", "QA", "text", "q", "Rome", "Rome", list(OPTIONS), "no idea"),
        ("forget", "p1", "VGEN", "image_text", "q", "Ann lives in Rome.", "Rome", [], "Ann lives in Rome."),
        ("retain", "p3", "CLOZE_QA", "text", "q", "Rome", "Rome", [], "Rome"),
    ]
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)


def _results(method="vanilla", **changed):
    return score(_answers(), method=method, **{**LABELS, **changed})


def test_scores_are_a_tidy_table():
    results = _results()
    assert list(results.columns) == COLUMNS
    cells = {(row.split, row.task, row.metric): (row.value, row.n) for row in results.itertuples()}
    assert cells == {
        ("forget", "QA", "accuracy"): (0.5, 2),
        ("forget", "QA", "n_unparsed"): (1, 2),
        ("forget", "VGEN", "rougeL"): (1, 1),
        ("forget", "VGEN", "value_recall"): (1, 1),
        ("retain", "CLOZE_QA", "accuracy"): (1, 1),
    }
    rates = results[results.metric != "n_unparsed"]
    assert (rates.low <= rates.value).all()
    assert (rates.value <= rates.high).all()


def test_forgetting_and_retention():
    assert forgetting_rate(0.25, 0.5) == 0.5
    assert retention(0.25, 0.5) == 0.5
    assert np.isnan(retention(0.25, 0.0))
    rates = forgetting_rate(pd.Series([0.1, 0.2]), pd.Series([1.0, 0.0]))
    assert rates.round(3).fillna(-1).tolist() == [0.9, -1]


def test_means_over_seeds_stand_beside_vanilla():
    edited = [_results("edited", seed=seed) for seed in (1, 2)]
    for table, value in zip(edited, (0.1, 0.3), strict=True):
        table.loc[table.split == "forget", "value"] = value
    table = compare(pd.concat([_results(), *edited]))
    row = table[(table.method == "edited") & (table.task == "QA")].iloc[0]
    assert (row.value, row.vanilla, row.n_seeds) == (pytest.approx(0.2), 0.5, 2)
    assert (row.forgetting_rate, row.retention) == (pytest.approx(0.6), pytest.approx(0.4))
    assert row.sd == pytest.approx(np.std([0.1, 0.3], ddof=1))
    wide = side_by_side(pd.concat([_results(), *edited]), ["edited", "vanilla"])
    assert list(wide.columns) == ["edited", "vanilla"]
    assert wide.loc[("forget", "QA", "text", "accuracy")].tolist() == pytest.approx([0.2, 0.5])


def test_forget_ratios_are_not_mixed():
    mixed = pd.concat([_results(), _results(forget_ratio=10)])
    assert aggregate(mixed).n_seeds.max() == 1
    with pytest.raises(ValueError, match=r"forget_ratio \[5, 10\]"):
        side_by_side(mixed)
    with pytest.raises(ValueError, match="no rows of method 'vanilla'"):
        compare(pd.concat([_results(), _results("edited", forget_ratio=10)]))
    with pytest.raises(ValueError, match=r"\['random'\]; found \['vanilla'\]"):
        side_by_side(_results(), ["random"])


def test_results_are_written_whole_or_not_at_all(tmp_path):
    path, good = tmp_path / "results.parquet", _results()
    write_results(good, path)
    assert len(read_results(path, path)) == 2 * len(good)
    before = path.read_bytes()
    for bad, told in (
        (good.drop(columns="low"), "columns"),
        (good.assign(split="train"), r"split \['train'\]"),
        (good.assign(task="VQ"), "task"),
        (good.assign(value=np.nan), "value"),
        (good.assign(value=1.5), "outside"),
    ):
        with pytest.raises(ValueError, match=told):
            write_results(bad, path)
    assert path.read_bytes() == before
    good.assign(metric="rouge").to_parquet(path)
    with pytest.raises(ValueError, match=r"results.parquet: .*metric \['rouge'\]"):
        read_results(path)


# Generating


SPOKEN = "who is shown here Ann Bob lives in Rome Paris works as a baker"
WORDS = SPOKEN.split()


@pytest.fixture(scope="module")
def pocket():
    tokenizer = new_tokenizer([" ".join(WORDS)] * 3, vocabulary=400)
    model = new_model(tokenizer, seed=0).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that different prompts give different answers
    return model, new_processor(tokenizer)


def _question(index, pictured):
    random = np.random.default_rng(index)
    prompt = " ".join(random.choice(WORDS, 3 + index % 5))
    pixels = random.integers(0, 255, (84, 84, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    image = buffer.getvalue() if pictured else None
    if index % 2:
        return Question(f"p{index}", "VGEN" if pictured else "GEN", prompt, "Ann", image=image, value="Ann")
    return Question(
        f"p{index}", "VQA" if pictured else "QA", choice_prompt(prompt, OPTIONS), "Rome", OPTIONS, image
    )


def test_answers_do_not_depend_on_the_batch_and_come_in_order(pocket):
    questions = [_question(index, pictured=index in (1, 2, 5)) for index in range(7)]
    together = generate(*pocket, questions, batch_size=4, max_new_tokens=6)
    assert len(set(together)) > 3, "the test is empty if all answers agree"
    assert together == [generate(*pocket, [question], 1, 6)[0] for question in questions]
    assert generate(*pocket, questions[::-1], batch_size=3, max_new_tokens=6) == together[::-1]


def test_the_models_own_generation_settings_do_not_change_the_answer(pocket):
    model, processor = pocket
    questions = [_question(index, False) for index in range(4)]
    plain = generate(model, processor, questions, 4, 8)
    settings = model.generation_config
    settings.repetition_penalty, settings.do_sample, settings.temperature = 5.0, True, 9.0
    try:
        assert generate(model, processor, questions, 4, 8) == plain
    finally:
        settings.repetition_penalty, settings.do_sample, settings.temperature = 1.0, False, None


def test_evaluating_keeps_split_and_question(pocket):
    asked = {"forget": [_question(1, True), _question(2, False)], "retain": [_question(3, False)]}
    answers = evaluate(*pocket, asked, batch_size=2, max_new_tokens=4)
    assert list(answers.columns) == ANSWER_COLUMNS
    assert answers.split.tolist() == ["forget", "forget", "retain"]
    assert answers.task.tolist() == ["VGEN", "QA", "GEN"]
    assert answers.modality.tolist() == ["image_text", "text", "text"]
    assert answers.options.tolist() == [[], list(OPTIONS), []]
    assert len(score(answers, method="vanilla", **LABELS)) == 6
    with pytest.raises(ValueError, match="batch_size is 0"):
        generate(*pocket, asked["forget"], batch_size=0)
