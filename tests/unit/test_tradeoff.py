"""Fig. 3: the enlarged corner of a panel hides no mark where there is room for it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from mipnb.results.tradeoff import trade_off_figure


def points(x: float, y: float) -> pd.DataFrame:
    """Three methods a task: one at the corner, one far from it, one at (x, y)."""
    rows = [
        {"method": method, "forget_ratio": 5, "task": task, "drop": at[0], "retain": at[1]}
        for task in ("VQA", "QA", "VGEN", "GEN")
        for method, at in (("edited", (1.0, 1.0)), ("manu", (0.1, 0.05)), ("depn", (x, y)))
    ]
    return pd.DataFrame(rows).assign(ideal_drop=1.0, ideal_retain=1.0)


def hidden(fig: Figure, at: tuple[float, float]) -> list[bool]:
    """Of every panel whether its inset lies over a mark."""
    panels = [ax for ax in fig.axes if ax.child_axes]
    fig.canvas.draw()
    return [ax.child_axes[0].get_window_extent().contains(*ax.transData.transform(at)) for ax in panels]


@pytest.mark.parametrize("x", np.linspace(0.2, 0.9, 5))
@pytest.mark.parametrize("y", np.linspace(0.2, 0.8, 5))
def test_the_enlarged_corner_hides_no_mark(x: float, y: float):
    fig = trade_off_figure(points(x, y))
    assert hidden(fig, (x, y)) == [False] * 4
    plt.close(fig)
