"""What ours has to reach, sentence by sentence, beside what was measured: met or not met, with figures."""

from __future__ import annotations

import pandas as pd

from mipnb.results.measures import CONTROLS, NAMES, OURS, PAIRS, SEEN, TASKS, UNSEEN, baselines, rates

#: of vanilla's value, on every task of the people to keep
KEPT = 0.98
#: points: between the modalities, and between forget ratios
GAP = 3.0
COLUMNS = ["claim", "split", "task", "forget_ratio", "measured", "bound", "against", "met"]
SENTENCES = {
    "forgets": "forgets as much as the best baseline or the retrained model",
    "keeps": f"keeps at least {KEPT} of vanilla on every task",
    "no better baseline": "no baseline that forgets as much keeps more",
    "no better of the retrained": "no baseline that forgets as much as ours or the retrained model keeps more",
    "gap": f"the modalities' forgetting rates differ by at most {GAP:.0f} points",
    "other ratios": f"at the other forget ratios the same within {GAP:.0f} points",
}


def claims(results: pd.DataFrame, ratio: int) -> pd.DataFrame:
    """Every demand on ours beside what was measured, means over seeds.

    Args:
        results: of notebook 06: ours, vanilla, retrained, at least one baseline.
        ratio: the forget ratio that is reported.

    Returns:
        Columns `COLUMNS`. Values, shares and points are as the claim has them; `against` says whose the bound is.
    """
    parts = []
    for splits in (SEEN, UNSEEN):
        table = rates(results, splits)
        here = table[table.forget_ratio == ratio].set_index(["method", "task"])
        parts += _forgets(here, splits[0]) + _keeps(here, splits[1])
        parts += _unbeaten(here, splits[1]) + _unbeaten(here, splits[1], "retrained")
        parts += _gaps(here, splits[0]) + _elsewhere(table, ratio, splits)
    found = pd.DataFrame(parts, columns=["forget_ratio", *[c for c in COLUMNS if c != "forget_ratio"]])
    return found.assign(forget_ratio=found.forget_ratio.fillna(ratio).astype(int))[COLUMNS]


def _forgets(here: pd.DataFrame, split: str) -> list[tuple]:
    rows = []
    for task in TASKS:
        value = here.forget.xs(task, level="task")
        best = value[baselines(value.index)].idxmin()
        who = max([best, "retrained"], key=lambda name: value.get(name, -1.0))
        measured, bound = value[OURS], value[who]
        rows.append((None, "forgets", split, task, measured, bound, NAMES[who], measured <= bound + 1e-9))
    return rows


def _keeps(here: pd.DataFrame, split: str) -> list[tuple]:
    kept = here.retention.xs(OURS, level="method")
    return [(None, "keeps", split, t, kept[t], KEPT, "Vanilla", kept[t] >= KEPT - 1e-9) for t in TASKS]


def _unbeaten(here: pd.DataFrame, split: str, reference: str = OURS) -> list[tuple]:
    """Task by task: of the baselines that forget as much, the one that keeps most.

    As much: the value on the forget set is as low as ours, or, if that is higher, the reference's.
    """
    rows, claim = [], "no better baseline" if reference == OURS else f"no better of the {reference}"
    for task in TASKS:
        part = here.xs(task, level="task")
        ours = part.loc[OURS]
        rivals = part.loc[baselines(part.index)]
        most = max([ours.forget, *part.forget[part.index == reference]])
        rivals = rivals[rivals.forget <= most + 1e-9]
        who = rivals.retention.idxmax() if len(rivals) else None
        bound = rivals.retention.max() if len(rivals) else 0.0
        met, name = bool(ours.retention >= bound - 1e-9), NAMES[who] if who else "none forgets as much"
        rows.append((None, claim, split, task, ours.retention, bound, name, met))
    return rows


def _gaps(here: pd.DataFrame, split: str) -> list[tuple]:
    rate = here.forgetting_rate.xs(OURS, level="method")
    rows = []
    for one, other in PAIRS.items():
        gap = 100 * abs(rate[one] - rate[other])
        rows.append((None, "gap", split, f"{one}-{other}", gap, GAP, "", gap <= GAP + 1e-9))
    return rows


def _elsewhere(table: pd.DataFrame, ratio: int, splits: tuple[str, str]) -> list[tuple]:
    """Forgetting rate and retention of ours at every other ratio, in points below the reported one's."""
    ours = table[table.method == OURS].set_index(["forget_ratio", "task"])
    rows = []
    for other in sorted(set(table.forget_ratio) - {ratio}):
        for split, measure in zip(splits, ("forgetting_rate", "retention"), strict=True):
            for task in TASKS:
                lost = 100 * (ours[measure][ratio, task] - ours[measure][other, task])
                rows.append((other, "other ratios", split, task, lost, GAP, f"{ratio} %", lost <= GAP + 1e-9))
    return rows


def claims_text(table: pd.DataFrame) -> str:
    """Markdown: each sentence, met or not met, with the figures of the parts that are not met."""
    lines = []
    for claim, sentence in SENTENCES.items():
        rows = table[table.claim == claim]
        if rows.empty:
            lines.append(f"- {sentence}: **not measured**")
            continue
        missed = rows[~rows.met.astype(bool)]
        word = "met" if missed.empty else f"not met ({len(missed)} of {len(rows)} parts)"
        told = [_told(row) for row in missed.itertuples()]
        lines.append(f"- {sentence}: **{word}**" + "".join(f"\n    - {line}" for line in told))
    return "\n".join(lines)


def _told(row) -> str:
    where = f"{row.split} {row.task} at {row.forget_ratio} %"
    against = f" ({row.against})" if row.against else ""
    digits = 1 if row.claim in ("gap", "other ratios") else 3
    return f"{where}: {row.measured:.{digits}f}, bound {row.bound:.{digits}f}{against}"


def beaten(results: pd.DataFrame, splits: tuple[str, str]) -> str:
    """For a caption: where another method forgets more or keeps more than ours, who and by how much, at every forget ratio.

    Args:
        results: of notebook 06.
        splits: those of the people to forget and to keep, `SEEN` or `UNSEEN`.
    """
    table = rates(results, splits)
    told = []
    for ratio, here in table.groupby("forget_ratio"):
        found = _better(here.set_index(["method", "task"]), splits)
        told.append(f"at {ratio} %: {'; '.join(found) if found else 'none'}")
    return f"Better than ours, random neurons among them, {'. '.join(told)}."


def _better(here: pd.DataFrame, splits: tuple[str, str]) -> list[str]:
    found = []
    for task in TASKS:
        part = here.xs(task, level="task")
        rivals = part.loc[[*baselines(part.index), *(name for name in CONTROLS if name in part.index)]]
        for column, sign, split in (("forget", -1, splits[0]), ("retain", 1, splits[1])):
            by = sign * (rivals[column] - part.loc[OURS, column])
            ahead = by[by > 5e-4].sort_values(ascending=False, kind="stable")
            if len(ahead):
                who = ", ".join(f"{NAMES[name]} by {value:.3f}" for name, value in ahead.items())
                found.append(f"{split} {task} {who}")
    return found
