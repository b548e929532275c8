"""From an answer to a mark between 0 and 1, and from marks to an interval.

Options: the answer is matched to them (letter or text). Free answers: ROUGE-L F1 (rouge-score, stemmer; Lin 2004) and
exact recall of the value asked for. Cloze: MLLMU-Bench's own rule, the blank's value as a case-insensitive substring. Under
the benchmarks' own protocol and the paper's, an option is told by the answer's first character alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer

LETTERS = "ABCDEFGHIJ"
#: columns of a table of marks, one row a mark
MARK_COLUMNS = ["split", "task", "modality", "metric", "person_id", "mark"]
NORMAL_975 = 1.959964
_LONE_LETTER = re.compile(
    r"\W*(?:(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|option|choice)\s*(?:is|:)?\s*:?\s*)?\W*([a-j])\W*",
    re.I,
)
_FIRST_LETTER = re.compile(r"\(?([A-J])[.):]\s")


def normalised(text: str) -> str:
    """Lower case, runs of white space as one blank, none at the ends."""
    return " ".join(text.lower().split())


def holds_words(text: str, words: str) -> bool:
    """Whether `words` stand in `text` as whole words, whatever case and white space; False for no words."""
    sought = normalised(words)
    return bool(sought) and re.search(_whole(sought), normalised(text)) is not None


def _whole(words: str) -> str:
    return rf"(?<!\w){re.escape(words)}(?!\w)"


def match_option(generated: str, options: Sequence[str]) -> int | None:
    """Which option an answer names.

    In this order: an option's very text; a lone letter ("B", "b)", "(B).", "Answer: B"); the option texts
        that it holds as whole
    words, where one inside a longer one found does not count; a leading letter ("B. the second").

    Args:
        generated: the model's answer.
        options: the option texts in the order of their letters.

    Returns:
        The option's index from 0, or None if it names none or several.
    """
    texts, said = [normalised(option) for option in options], normalised(generated)
    if said in texts:
        return texts.index(said)
    if lone := _LONE_LETTER.fullmatch(generated.strip()):
        return _index(lone[1], len(options))
    held = _held(said, texts)
    if held:
        return held[0] if len(held) == 1 else None
    first = _FIRST_LETTER.match(generated.strip())
    return _index(first[1], len(options)) if first else None


def _index(letter: str, n_options: int) -> int | None:
    index = LETTERS.index(letter.upper())
    return index if index < n_options else None


def _held(said: str, texts: list[str]) -> list[int]:
    """Indices of the texts found as whole words: longest first, each blotted out before shorter ones."""
    found = []
    for index in sorted(range(len(texts)), key=lambda i: -len(texts[i])):
        said, times = re.subn(_whole(texts[index]), "|", said) if texts[index] else (said, 0)
        if times:
            found.append(index)
    return found


@cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)


@cache
def _all_scorer() -> RougeScorer:
    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def rouge_l(generated: str, reference: str) -> float:
    """ROUGE-L F1 with stemming, between 0 and 1."""
    return _scorer().score(reference, generated)["rougeL"].fmeasure


def rouge_marks(generated: str, reference: str) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L F1 (MLLMU-Bench) and ROUGE-L recall (CLEAR), all with stemming, from 0 to 1."""
    found = _all_scorer().score(reference, generated)
    return {name: score.fmeasure for name, score in found.items()} | {"rougeL_recall": found["rougeL"].recall}


def bleu(generated: str, reference: str) -> float:
    """Sentence BLEU of words, up to 4-grams, smoothed by a small constant (MLLMU-Bench's, nltk's method 1), from 0 to 1."""
    said = generated.split()
    return (
        sentence_bleu([reference.split()], said, smoothing_function=SmoothingFunction().method1)
        if said
        else 0.0
    )


def first_letter(generated: str, options: Sequence[str]) -> int | None:
    """The option whose letter is the answer's first letter or digit; None if it is no option's (MLLMU-Bench's rule)."""
    said = re.sub(r"[^A-Za-z0-9]", "", generated).upper()
    return _index(said[0], len(options)) if said and said[0] in LETTERS else None


def marks(row: pd.Series, protocol: str = "pocket") -> dict[str, float]:
    """The marks of one answer by its task: metric -> a number from 0 to 1.

    VQA, QA: accuracy, unparsed (no option, or several, recognised: counts as wrong). CLOZE_VQA, CLOZE_QA: accuracy. VGEN,
    GEN, FT: rougeL and, where the question has a value, value_recall; under the protocol `benchmark` also rouge1, rouge2,
    rougeL_recall and bleu, under `paper` rougeL alone.
    """
    if row.task in ("VQA", "QA"):
        choose = match_option if protocol == "pocket" else first_letter
        chosen = choose(row.generated, row.options)
        right = chosen is not None and normalised(row.options[chosen]) == normalised(row.answer)
        return {"accuracy": float(right), "unparsed": float(chosen is None)}
    if row.task in ("CLOZE_VQA", "CLOZE_QA"):
        return {"accuracy": float(normalised(row.answer) in normalised(row.generated))}
    if protocol == "benchmark":
        found = rouge_marks(row.generated, row.answer) | {"bleu": bleu(row.generated, row.answer)}
    else:
        found = {"rougeL": rouge_l(row.generated, row.answer)}
    if protocol == "paper":
        return found
    return found | ({"value_recall": float(holds_words(row.generated, row.value))} if row.value else {})


def interval(values: np.ndarray, people: np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean of marks, when one person's questions are not independent.

    Wilson's interval at the effective number of questions n_eff = p (1 - p) / V, where V is the variance of
    the mean between people (the cluster-robust one), with the t quantile of (people - 1) degrees of freedom
    (Korn and Graubard 1998, Dean and Pagano 2015). A bootstrap over people has no width where every answer
    is right or every one wrong, and those are the cells that matter here; there n_eff is the number of
    questions. A pass/fail mark never gets n_eff above it.

    Args:
        values: (n,) marks from 0 to 1.
        people: (n,) whose question each one is.

    Returns:
        Lower and upper end, within 0 and 1; with a single person n_eff is 1.
    """
    n, p = len(values), float(np.mean(values))
    _, codes = np.unique(people, return_inverse=True)
    n_people = int(codes.max()) + 1
    if n_people == 1:
        return _wilson(p, 1.0, NORMAL_975)
    residuals = np.bincount(codes, weights=np.asarray(values, dtype=float) - p)  # (people,)
    variance = n_people / (n_people - 1) * float(np.sum(residuals**2)) / n**2
    effective = p * (1 - p) / variance if variance > 1e-15 else float(n)
    if np.isin(values, (0.0, 1.0)).all():
        effective = min(effective, float(n))
    return _wilson(p, max(effective, 1.0), t_975(n_people - 1))


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def t_975(degrees: int) -> float:
    """The t distribution's 97.5 % point; from 3 degrees on by Fisher's expansion, within 1 %."""
    if degrees < 3:
        return {1: 12.706, 2: 4.303}[degrees]
    z, d = NORMAL_975, degrees
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / d + second / d**2 + third / d**3
