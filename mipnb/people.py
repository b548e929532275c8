"""People before and after: portrait, question and the model's own words, as a page and as a figure."""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

PEOPLE_COLUMNS = ["person_id", "name", "split", "prompt", "answer", "before", "after"]
_STYLE = (
    "<style>.mipnb-people td,.mipnb-people th{text-align:left;vertical-align:top;padding:4px 8px}"
    ".mipnb-people .forget{background:#D55E0018}.mipnb-people small{color:#666}</style>"
)


def people_table(
    before: pd.DataFrame,
    after: pd.DataFrame,
    names: Mapping[str, str],
    task: str = "VGEN",
    n_questions: int = 1,
) -> pd.DataFrame:
    """The words of two models about the same people.

    Args:
        before, after: answers of `evaluate`, the same questions in the same order.
        names: person_id -> name: who is shown, in this order.
        task: whose questions are shown.
        n_questions: the first so many questions a person.

    Returns:
        person_id, name, split, prompt, answer (the right one), before, after.

    Raises:
        ValueError: the two tables ask different questions, or a person has no question of this task.
    """
    asked = ["split", "person_id", "task", "prompt"]
    if not before[asked].reset_index(drop=True).equals(after[asked].reset_index(drop=True)):
        raise ValueError("before and after do not hold the same questions in the same order")
    said = {"before": before.generated, "after": after.generated}
    table = before.assign(**{when: _said(words) for when, words in said.items()})
    table = (
        table[table.task == task].groupby("person_id", sort=False).head(n_questions).set_index("person_id")
    )
    if missing := [person for person in names if person not in table.index]:
        raise ValueError(f"no {task} questions of people {missing}")
    rows = table.loc[list(names)].reset_index()
    return rows.assign(name=rows.person_id.map(names))[PEOPLE_COLUMNS]


def _said(words: pd.Series) -> np.ndarray:
    """Answers in words, an empty one too."""
    return words.mask(words.str.strip() == "", "(nothing)").to_numpy()


def people_page(table: pd.DataFrame, portraits: Mapping[str, bytes], size: int = 84) -> str:
    """An HTML table for a notebook, portraits embedded: show it by IPython.display.HTML.

    Args:
        table: from `people_table`.
        portraits: person_id -> encoded picture.
        size: width of a portrait in pixels.
    """
    head = "<tr><th></th><th>who</th><th>asked, and the right answer</th><th>before</th><th>after</th></tr>"
    rows = "".join(_row(row, portraits[row.person_id], size) for row in table.itertuples())
    return f'{_STYLE}<table class="mipnb-people">{head}{rows}</table>'


def _row(row, portrait: bytes, size: int) -> str:
    text = {name: html.escape(str(value)) for name, value in row._asdict().items()}
    picture = f'<img width="{size}" alt="{text["name"]}" src="{_embedded(portrait)}">'
    who = f"{text['name']}<br><small>{text['split']}</small>"
    asked = f"{text['prompt']}<br><small>{text['answer']}</small>"
    cells = "".join(f"<td>{cell}</td>" for cell in (picture, who, asked, text["before"], text["after"]))
    return f'<tr class="{text["split"]}">{cells}</tr>'


def _embedded(portrait: bytes) -> str:
    """An encoded picture as a data URI, its bytes as they are."""
    kind = Image.open(io.BytesIO(portrait)).get_format_mimetype()
    return f"data:{kind};base64,{base64.b64encode(portrait).decode()}"


def people_figure(
    table: pd.DataFrame, portraits: Mapping[str, bytes], axes: Sequence[Axes], width: int = 26
) -> Sequence[Axes]:
    """The same as a static figure: one axes a row of the table, portrait above, words below.

    Args:
        table: from `people_table`.
        portraits: person_id -> encoded picture.
        axes: one a row.
        width: letters a line.

    Raises:
        ValueError: as many axes as rows are needed.
    """
    if len(axes) != len(table):
        raise ValueError(f"{len(table)} rows need as many axes, got {len(axes)}")
    for ax, row in zip(axes, table.itertuples(), strict=True):
        ax.imshow(Image.open(io.BytesIO(portraits[row.person_id])).convert("RGB"))
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{row.name}\n({row.split})", fontsize="small")
        said = [
            textwrap.fill(f"{when}: {words}", width)
            for when, words in (("before", row.before), ("after", row.after))
        ]
        ax.set_xlabel("\n".join(said), fontsize="x-small", loc="left")
    return axes
