"""An optional judge: a chat model grades free answers against the right ones, from 1 to 10.

A grade that cannot be read is no grade: it is counted apart and shown, and never enters the mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from mipnb.metrics import MARK_COLUMNS

#: takes prompts, returns what the judge says to each, in the same order
Ask = Callable[[Sequence[str]], Sequence[str]]
TASKS = ("VGEN", "GEN")
LOWEST, HIGHEST = 1, 10
INSTRUCTION = (
    "You grade an answer about a person. Compare it with the reference: the facts count, the wording does not.\n"
    "Question: {prompt}\nReference: {answer}\nAnswer: {generated}\n"
    f"Give a grade from {LOWEST} (every fact is wrong or missing) to {HIGHEST} (every fact is right). "
    "Reply with one line: Grade: <number>"
)
_GRADE = re.compile(r"\bgrade\W{0,4}(\d+)(?:\s*/\s*10)?(?![\d./])|\A\W*(\d+)(?:\s*/\s*10)?\W*\Z", re.I)


def read_grade(said: str) -> float:
    """The grade that a judge gave, from 0 (lowest) to 1 (highest); NaN if there is none, several, or none from 1 to 10."""
    found = {int(named or alone) for named, alone in _GRADE.findall(said)}
    grade = found.pop() if len(found) == 1 else 0
    return (grade - LOWEST) / (HIGHEST - LOWEST) if LOWEST <= grade <= HIGHEST else float("nan")


def judge_answers(answers: pd.DataFrame, ask: Ask) -> pd.DataFrame:
    """The free answers with the judge's words and grade.

    Args:
        answers: from `evaluate`; other tasks than VGEN and GEN are left out.
        ask: from `load_judge`, or any other function of prompts.

    Returns:
        The rows judged, with columns judge_says and grade (0 to 1, NaN where it could not be read).

    Raises:
        ValueError: the judge did not say one thing a prompt.
    """
    judged = answers[answers.task.isin(TASKS)]
    columns = ("prompt", "answer", "generated")
    prompts = [INSTRUCTION.format(**row) for row in judged[list(columns)].to_dict("records")]
    said = list(ask(prompts))
    if len(said) != len(prompts):
        raise ValueError(
            f"the judge answered {len(said)} times to {len(prompts)} prompts; expected one answer each"
        )
    return judged.assign(judge_says=said, grade=[read_grade(text) for text in said])


def judge_marks(judged: pd.DataFrame) -> pd.DataFrame:
    """Marks for `evaluation.score_marks`: judge (grades that could be read), judge_unparsed (1 for one that could not).

    Args:
        judged: from `judge_answers`.

    Returns:
        One row a mark, columns `metrics.MARK_COLUMNS`.
    """
    unread = judged.grade.isna()
    graded = judged[~unread].assign(metric="judge", mark=judged.grade)
    counted = judged.assign(metric="judge_unparsed", mark=unread.astype(float))
    return pd.concat([graded, counted], ignore_index=True)[MARK_COLUMNS]


def judge_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The judge's tokenizer; loading it tells cheaply whether the folder holds a chat model. Errors as `load_judge`."""
    if not (Path(folder) / "config.json").is_file():
        raise FileNotFoundError(f"judge_dir = {folder}: there is no model in it (no config.json)")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", local_files_only=True)
    if not tokenizer.chat_template:
        raise ValueError(
            f"judge_dir = {folder}: its tokenizer has no chat template; a judge has to be a chat model"
        )
    return tokenizer


def load_judge(
    folder: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 8,
    max_new_tokens: int = 16,
) -> Ask:
    """A chat model of transformers as a judge: greedy, batched.

    Args:
        folder: a causal language model with its tokenizer and chat template, on this machine.
        device, dtype: where and in which number type it runs.
        batch_size: prompts at a time.
        max_new_tokens: what it may say at most.

    Raises:
        FileNotFoundError: no model in the folder.
        ValueError: its tokenizer has no chat template.
    """
    tokenizer = judge_tokenizer(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).to(device).eval()
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=model.generation_config.eos_token_id or tokenizer.eos_token_id,
    )  # fmt: skip

    def ask(prompts: Sequence[str]) -> list[str]:
        parts = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
        return [text for part in parts for text in _say(model, tokenizer, part, settings)]

    return ask


def _say(model, tokenizer, prompts: Sequence[str], settings: GenerationConfig) -> list[str]:
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    batch = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    with torch.inference_mode():
        tokens = model.generate(**batch, generation_config=settings)
    return tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
