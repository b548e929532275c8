"""The people of a benchmark to look at: portraits in training and unseen views, and what is asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mipnb.batches import decode_image
from mipnb.benchmarks import TASKS, Person, has_split, load_people, load_training
from mipnb.task_names import task_name


def gallery(
    root: str | Path, person_ids: Sequence[str], n_training: int = 5, n_unseen: int = 2
) -> pd.DataFrame:
    """Some views of some people.

    Args:
        root: the benchmark.
        person_ids: who, in this order.
        n_training: the most views of ft_Data shown of each.
        n_unseen: the most views of Test_Set shown of each, where the benchmark has one.

    Returns:
        One row a portrait: person_id, name, view ("training 1", ..., "unseen 1", ...), image (its bytes).
    """
    known = {person.person_id: person for person in load_people(root, "Full_Set")}
    tested = load_people(root, "Test_Set") if has_split(root, "Test_Set") else []
    unseen = {person.person_id: person.images for person in tested}
    training = [q for q in load_training(root, ids=person_ids) if q.image is not None]
    rows = []
    for person_id in person_ids:
        seen = dict.fromkeys(question.image for question in training if question.person_id == person_id)
        views = [
            ("training", list(seen)[:n_training]),
            ("unseen", list(unseen.get(person_id, ()))[:n_unseen]),
        ]
        name = known[person_id].biography.get("Name", person_id)
        rows += [
            (person_id, name, f"{kind} {index}", image)
            for kind, images in views
            for index, image in enumerate(images, start=1)
        ]
    return pd.DataFrame(rows, columns=["person_id", "name", "view", "image"])


def portrait_grid(table: pd.DataFrame, ax: Axes, gap: int = 4) -> Axes:
    """One row a person, one column a view.

    Args:
        table: from `gallery`.
        ax: where to draw.
        gap: pixels of white between portraits.
    """
    people, views = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table["view"]))
    tiles = {(row.name, row.view): np.asarray(decode_image(row.image)) for row in table.itertuples()}
    height, width = np.max([tile.shape[:2] for tile in tiles.values()], axis=0) + gap
    sheet = np.full((len(people) * height - gap, len(views) * width - gap, 3), 255, dtype=np.uint8)
    for (name, view), tile in tiles.items():
        top, left = people.index(name) * height, views.index(view) * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    ax.imshow(sheet, interpolation="nearest")
    ax.set_yticks([(row + 0.5) * height - gap / 2 for row in range(len(people))], people)
    ax.set_xticks([(column + 0.5) * width - gap / 2 for column in range(len(views))], views)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    return ax


def question_table(person: Person) -> pd.DataFrame:
    """One person's first question of each task: task, picture, prompt, answer, value."""
    first = {question.task: question for question in reversed(person.questions)}
    rows = [
        (
            task_name(task),
            "yes" if (q := first[task]).image else "",
            q.prompt.replace("\n", " / "),
            q.answer,
            q.value,
        )
        for task in TASKS
        if task in first
    ]
    return pd.DataFrame(rows, columns=["task", "picture", "prompt", "answer", "value"]).set_index("task")
