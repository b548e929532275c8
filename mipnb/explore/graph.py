"""A path that can be clicked: a button a neuron, over lines as wide as their joint scores."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets
import matplotlib as mpl
import pandas as pd

from mipnb.explore.drawing import rank_in_layer
from mipnb.explore.neurons import path_lines

_WIDTH, _ROW, _LEFT, _TOP, _SIZE = 780, 25, 70, 28, 20  # pixels
_STYLE = (
    "<style>.mipnb-graph{position:relative;overflow:visible;margin:0}"
    ".mipnb-graph .mipnb-node{position:absolute;width:20px;height:20px;min-width:0;padding:0;margin:0;border-radius:10px}"
    ".mipnb-graph .mipnb-chosen{outline:3px solid #D55E00 !important;outline-offset:1px}</style>"
)
Chosen = Callable[[str, int, int], None]


def path_buttons(nodes: pd.DataFrame, on_choice: Chosen, told: Callable[[str, int, int], str]) -> widgets.Box:
    """The neurons of a path as buttons, layers left to right, one branch above the other.

    Args:
        nodes: from `path_nodes`.
        on_choice: called with branch, layer and neuron when a button is clicked.
        told: a line to show when the mouse is over a neuron.
    """
    placed = _placed(nodes)
    buttons = [_button(row, on_choice, told) for row in placed.itertuples()]
    width = _LEFT + _column(nodes) * (int(nodes.layer.max()) + 1)
    height = int(placed.y.max()) + _SIZE
    drawing = widgets.HTML(_STYLE + _places(placed) + _svg(nodes, placed, width, height))
    box = widgets.Box(
        [drawing, *buttons], layout={"width": f"{width}px", "height": f"{height}px", "overflow": "visible"}
    )
    box.add_class("mipnb-graph")
    return box


def mark(box: widgets.Box, branch: str, layer: int, neuron: int) -> None:
    """Show in a drawing by `path_buttons` which neuron is the chosen one."""
    for button in box.children[1:]:
        if _name(branch, layer, neuron) in button._dom_classes:
            button.add_class("mipnb-chosen")
        elif "mipnb-chosen" in button._dom_classes:
            button.remove_class("mipnb-chosen")


def _name(branch: str, layer: int, neuron: int) -> str:
    return f"mipnb-{branch}-{layer}-{neuron}"


def _column(nodes: pd.DataFrame) -> int:
    """Pixels from layer to layer: as wide as the page allows, and never so narrow that buttons touch."""
    return min(130, max(30, _WIDTH // (int(nodes.layer.max()) + 1)))


def _placed(nodes: pd.DataFrame) -> pd.DataFrame:
    """Every neuron with x and y, its middle in pixels."""
    branches = list(dict.fromkeys(nodes.branch))
    ranks = rank_in_layer(nodes)
    tall = (int(ranks.max()) + 2) * _ROW
    return nodes.assign(
        x=_LEFT + _column(nodes) * nodes.layer + _column(nodes) // 3,
        y=_TOP + ranks * _ROW + nodes.branch.map(branches.index) * tall,
    )


def _button(row, on_choice: Chosen, told: Callable[[str, int, int], str]) -> widgets.Button:
    branch, layer, neuron = row.branch, int(row.layer), int(row.neuron)
    button = widgets.Button(tooltip=told(branch, layer, neuron))
    button.style.button_color = mpl.colors.to_hex(mpl.colormaps["cividis"](0.15 + 0.85 * row.share))
    for name in ("mipnb-node", _name(branch, layer, neuron)):
        button.add_class(name)
    button.on_click(lambda _: on_choice(branch, layer, neuron))
    return button


def _places(placed: pd.DataFrame) -> str:
    rules = (
        f".mipnb-graph .{_name(row.branch, row.layer, row.neuron)}"
        f"{{left:{row.x - _SIZE // 2}px;top:{row.y - _SIZE // 2}px}}"
        for row in placed.itertuples()
    )
    return f"<style>{''.join(rules)}</style>"


def _svg(nodes: pd.DataFrame, placed: pd.DataFrame, width: int, height: int) -> str:
    at = {(row.branch, row.layer, row.neuron): (row.x, row.y) for row in placed.itertuples()}
    parts = []
    for row in path_lines(nodes).itertuples():
        (x1, y1), (x2, y2) = at[row.branch, row.layer, row.neuron], at[row.branch, row.layer + 1, row.above]
        parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke-width="{0.3 + 5 * row.width**2:.2f}"/>'
        )
    texts, word = [], "layer " if _column(nodes) > 60 else ""
    for branch, part in placed.groupby("branch", sort=False):
        top = int(part.y.min())
        texts.append(f'<text x="4" y="{top + 4}" font-weight="bold">{branch}</text>')
        texts += [
            f'<text x="{x}" y="{top - 18}" text-anchor="middle">{word}{layer}</text>'
            for layer, x in part.groupby("layer").x.first().items()
        ]
    return (
        f'<svg width="{width}" height="{height}" style="position:absolute;left:0;top:0;font:12px sans-serif">'
        f'<g stroke="#999" stroke-opacity="0.5">{"".join(parts)}</g>'
        f'<g fill="currentColor">{"".join(texts)}</g></svg>'
    )
