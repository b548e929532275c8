"""The trial in short: what is lost per point of the retain set, and whether the goals are met."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mipnb.evidence.controls import POINT_WISE
from mipnb.evidence.needed import needed_sentence, neurons_needed
from mipnb.paths import NeuronPath

#: as many times the ratio of random neurons, and of the best point-wise score
GOALS = {"random": 3.0, "point-wise": 1.5}
#: share of the forget set's recall that an edit has to take
LEVELS = (0.5, 0.9)
NOT_MET = "not met"
_NAMES = {"path": "path on trial", "run_recipe": "path by the run's recipe", "learned": "learned gates"}
_OWN = {
    "path": "the run's own path",
    "path by recipe": "path by the recipes on trial",
    "gates": "learned gates",
}

_HEADS = {"subject": "silenced", "k": "neurons a layer", "forget": "forget loses", "retain": "retain loses"}


def goal_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Whether the goals of silencing are met.

    Args:
        verdicts: of `verdicts.verdict_table`, with columns branch and subject and the controls "random", "activation", "manu".

    Returns:
        One row a branch, subject and mark: branch, subject, mark, k (neurons a layer), forget and retain (what each set
        loses), ratio (the one per point of the other); then of random neurons and of the best point-wise score, with its
        name: its own ratio, how many times as large the subject's is (95 %), and whether that is as much as `GOALS` say.
    """
    rows = []
    for (branch, subject, mark), part in verdicts.groupby(["branch", "subject", "mark"], sort=False):
        of = {name: rows.set_index("control") for name, rows in part.groupby("measure")}
        ratios, lost = of["ratio"], of["necessity"].value["random"]
        best = ratios.control_value[list(POINT_WISE)].idxmax()
        row = {"branch": branch, "subject": subject, "mark": mark, "k": part.k.max(), "forget": lost}
        row |= {"retain": lost - of["spared"].value["random"], "ratio": ratios.value["random"]}
        rows.append(row | _beside(ratios, "random", "random") | _beside(ratios, "point-wise", best))
    return pd.DataFrame(rows)


def _beside(ratios: pd.DataFrame, name: str, control: str) -> dict[str, str]:
    """A control's ratio, the factor by which the subject's exceeds it, and whether that is enough."""
    found, goal = ratios.loc[control], GOALS[name]
    met = "met" if found.low >= goal else "met as measured, not surely" if found.margin >= goal else NOT_MET
    return {
        name: f"{found.control_value:.2f}" + (f" ({control})" if control != name else ""),
        f"times {name}": f"{found.margin:.2f} [{found.low:.2f}, {found.high:.2f}]",
        f"goal {goal:g}": met,
    }


def trial_summary(folder: str | Path) -> str:
    """Markdown: what was lost by silencing, of recall, and whether the goals, also of editing, are met.

    Args:
        folder: of notebook 14 in a run.
    """
    folder = Path(folder)
    verdicts, own, edited = (
        pd.read_parquet(folder / f"{name}.parquet") for name in ("verdicts", "own", "edited")
    )
    paths = [NeuronPath.load(file) for file in sorted((folder / "located").glob("*.safetensors"))]
    made = "; ".join(f"{path.branch} branch `{path.parameters['choice']}`" for path in paths)
    sizes = {path.branch: path.n_neurons for path in paths}
    needed = (
        f"- {needed_sentence(neurons_needed(edited, ['path', 'random'], level), level)}" for level in LEVELS
    )
    lines = [f"Silenced. How the path on trial is made: {made}.", "", *_lines(verdicts, sizes, _NAMES), ""]
    lines += ["The same on the run's own forget set, at the run's own numbers of neurons:", ""]
    lines += [*_lines(_of_run(own), sizes, _OWN), "", "Edited:", "", *needed]
    return "\n".join(lines)


def _of_run(own: pd.DataFrame) -> pd.DataFrame:
    """Verdicts on paths alone, with branch and subject apart ("text path" -> "text", "path")."""
    found = own.tried.str.split(" ", n=1, expand=True)
    return own.assign(branch=found[0], subject=found[1]).query("tried != 'edit'")


def _lines(verdicts: pd.DataFrame, sizes: dict[str, int], names: dict[str, str]) -> list[str]:
    """`goal_table` of recall as lines of Markdown."""
    table = goal_table(verdicts[verdicts["mark"] == "recall"]).drop(columns="mark")
    of = [f"{row.k} of {sizes[row.branch]}" for row in table.itertuples()]
    table = table.assign(subject=table.subject.map(names), k=of).rename(columns=_HEADS)
    table = table.replace(NOT_MET, f"**{NOT_MET}**")
    cells = table.map(lambda value: value if isinstance(value, str) else f"{value:.2f}")
    rows = [cells.columns, ["---"] * cells.shape[1], *cells.itertuples(index=False)]
    return [f"| {' | '.join(row)} |" for row in rows]
