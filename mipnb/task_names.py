"""What tasks are called wherever they are shown; stored tables keep the benchmarks' own names."""

from __future__ import annotations

import pandas as pd

#: stored name -> the one shown, where they differ
TASK_NAMES = {"CLOZE_VQA": "VCLOZE", "CLOZE_QA": "CLOZE"}


def task_name(task: str) -> str:
    """The name by which a task is shown."""
    return TASK_NAMES.get(task, task)


def named_tasks(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the names that are shown in its column `task`."""
    return table.assign(task=table.task.replace(TASK_NAMES))
