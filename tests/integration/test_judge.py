"""A judge's grades: what can be read, what is counted apart, and a tiny local chat model that judges."""

import math

import pandas as pd
import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from mipnb.evaluation import COUNTS, compare, score_marks, write_results
from mipnb.generation import ANSWER_COLUMNS
from mipnb.judge import INSTRUCTION, judge_answers, judge_marks, load_judge, read_grade
from mipnb.pocket.model import new_tokenizer

LABELS = {"run": "r", "model": "m", "benchmark": "b", "method": "vanilla", "forget_ratio": 5, "seed": 1}
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}{% if add_generation_prompt %} Grade:{% endif %}"


@pytest.mark.parametrize(
    ("said", "grade"),
    [
        ("Grade: 10", 1.0),
        ("grade: **1**", 0.0),
        ("The facts are right.\nGrade: 7/10", 6 / 9),
        ("4", 3 / 9),
        ("8/10.", 7 / 9),
        ("Grade: 7. I repeat, grade: 7", 6 / 9),
    ],
)
def test_a_grade_is_read(said, grade):
    assert read_grade(said) == pytest.approx(grade)


@pytest.mark.parametrize(
    "said", ["", "no idea", "Grade: 0", "Grade: 11", "Grade: 3 or rather grade: 8", "Grade: 7.5", "in 1984"]
)
def test_what_is_no_grade_is_nothing(said):
    assert math.isnan(read_grade(said))


def answers() -> pd.DataFrame:
    rows = [
        ("forget", "p1", "GEN", "text", "Where?", "In Rome.", "", [], "In {Rome}."),
        ("forget", "p2", "GEN", "text", "Where?", "In Rome.", "", [], "In Oslo."),
        ("forget", "p3", "GEN", "text", "Where?", "In Rome.", "", [], "No idea."),
        ("forget", "p1", "QA", "text", "Where?", "Rome", "", ["Rome", "Oslo"], "Rome"),
    ]
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)


def test_unread_grades_are_counted_and_never_enter_the_mean(tmp_path):
    asked = []

    def stub(prompts):
        asked.extend(prompts)
        return ["Grade: 10", "Grade: 4", "I would rather not say."]

    judged = judge_answers(answers(), stub)
    assert judged.person_id.tolist() == ["p1", "p2", "p3"], "only free answers are judged"
    assert asked[0] == INSTRUCTION.format(prompt="Where?", answer="In Rome.", generated="In {Rome}.")
    assert judged.judge_says.tolist()[2] == "I would rather not say."
    results = score_marks(judge_marks(judged), **LABELS).set_index("metric")
    assert results.loc["judge", ["value", "n"]].tolist() == [pytest.approx((1 + 3 / 9) / 2), 2]
    assert results.loc["n_judge_unparsed", ["value", "n"]].tolist() == [1, 3]
    table = results.reset_index()[["run", "model", "benchmark", "method", "forget_ratio", "seed", "split", "task",
                                   "modality", "metric", "value", "n", "low", "high"]]  # fmt: skip
    write_results(table, tmp_path / "results.parquet")
    assert not set(COUNTS) & set(compare(table).metric)


def test_a_judge_that_says_nothing_readable_has_no_mean():
    marked = judge_marks(judge_answers(answers(), lambda prompts: ["?"] * len(prompts)))
    results = score_marks(marked, **LABELS)
    assert results.metric.tolist() == ["n_judge_unparsed"]
    assert results.value.tolist() == [3]


def test_methods_are_compared_though_no_grade_of_vanilla_could_be_read():
    said = {"vanilla": ["?"] * 3, "edited": ["Grade: 4"] * 3}
    marked = {
        method: judge_marks(judge_answers(answers(), lambda prompts, m=method: said[m])) for method in said
    }
    tables = [score_marks(marks, **LABELS | {"method": method}) for method, marks in marked.items()]
    table = compare(pd.concat(tables)).set_index("metric")
    assert table.index.tolist() == ["judge"]
    assert table.loc["judge", "value"] == pytest.approx(3 / 9)
    assert table.loc["judge", ["vanilla", "forgetting_rate", "retention"]].isna().all()
    with pytest.raises(ValueError, match="no rows of method 'vanilla'"):
        compare(tables[1])


def test_a_judge_has_to_answer_every_prompt():
    with pytest.raises(ValueError, match="answered 1 times to 3 prompts"):
        judge_answers(answers(), lambda prompts: ["Grade: 3"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random chat model that can be loaded like any other."""
    path = tmp_path_factory.mktemp("judge")
    found = new_tokenizer(["Grade: 1 2 3 4 5 6 7 8 9 10 Where In Rome Oslo"] * 3, vocabulary=400)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=found.backend_tokenizer, eos_token=found.eos_token, pad_token=found.pad_token
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id, bos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(path)
    return path


def test_a_local_model_judges_the_same_in_any_batch(folder):
    prompts = [f"Where? {'In Rome. ' * count}" for count in (1, 7, 3)]
    one, three = (load_judge(folder, batch_size=size, max_new_tokens=5)(prompts) for size in (1, 3))
    assert one == three
    assert len(set(one)) > 1, "the test is empty if the judge always says the same"
    judged = judge_answers(answers(), load_judge(folder, max_new_tokens=5))
    assert len(judged) == 3
    assert judge_marks(judged).metric.eq("judge_unparsed").sum() == 3


def test_a_folder_without_a_chat_model_is_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no model in it"):
        load_judge(tmp_path)
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in folder.iterdir():
        if file.name != "chat_template.jinja":
            (plain / file.name).symlink_to(file)
    with pytest.raises(ValueError, match="no chat template"):
        load_judge(plain)
