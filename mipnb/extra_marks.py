"""What an evaluation marks beside the generated answers: likelihoods of given answers, and a judge's grades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pydantic import BaseModel

from mipnb.artefacts import under_root
from mipnb.evaluation import score_marks
from mipnb.judge import judge_answers, judge_marks, load_judge
from mipnb.metrics import MARK_COLUMNS


def extra_marks(
    answers: pd.DataFrame, likelihoods: Sequence[pd.DataFrame], params: BaseModel, labels: Mapping[str, Any]
) -> list[pd.DataFrame]:
    """Result rows of likelihoods and grades; none where the run asks for neither.

    Args:
        answers: of all methods and seeds, with columns method and seed.
        likelihoods: of `likelihood.likelihood_marks`, with the same two columns.
        params: of notebook 05; `judge_dir` is the judge's folder, "" for no judge.
        labels: run, model, benchmark, forget_ratio.
    """
    marked = list(likelihoods)
    if params.judge_dir:
        judge = load_judge(under_root(params.judge_dir), params.device, params.dtype)
        parts = judge_answers(answers, judge).groupby(["method", "seed"], sort=False)
        marked += [judge_marks(part).assign(method=m, seed=s) for (m, s), part in parts]
    if not marked:
        return []
    groups = pd.concat(marked, ignore_index=True).groupby(["method", "seed"], sort=False)
    return [score_marks(part[MARK_COLUMNS], method=m, seed=s, **labels) for (m, s), part in groups]
