"""What of greedy's cost in the vision branch no sharing between its passes can take away, counted in operations.

Every block's pass at a grid point below 1 has states of its own from that block on, through the rest of the tower and the
language model, and gradients that come back the same way: (m - 1) such passes a block, and one for the point 1. The plain
search makes m a block, each from the beginning. States at tokens before the picture are the same in all passes, since
attention is causal; they could be kept.
"""

from __future__ import annotations

from dataclasses import replace

from mipnb.costs import FLOAT32, Costs
from mipnb.passes import Pass, Question
from mipnb.search_passes import Search, locating
from mipnb.shapes import Shape


def greedy_operations(
    shape: Shape, question: Question, n_steps: int, rows: int = 32, before: int = 0
) -> dict[str, float]:
    """Shares of the plain layer-by-layer search's operations in the vision branch.

    Args:
        shape: of the model.
        question: a typical one, with a picture.
        n_steps: m, right rule.
        rows: questions of a batch.
        before: of the question's positions those before the picture.

    Returns:
        "greedy": what `searches.greedy` takes (complete scores, no gap); "own": what of it are passes with gradients, at
        tokens from the picture on, which no two of them share.
    """
    layers, costs = shape.vision.layers, Costs(shape, "vision", FLOAT32, arithmetic=FLOAT32)
    search = Search("vision", layers, shape.vision.neurons, "greedy", n_steps, joint=False)
    sizes = {"positions": question.positions, "columns": question.answer, "text_from": 0}
    plain = [
        Pass(1, rows * n_steps, patches=question.patches, gated=1, vision_from=block, **sizes)
        for block in range(layers)
    ]
    ours = locating(search, question, rows, rows)
    own = [replace(one, positions=one.positions - before, context=before) for one in ours if one.backward]
    whole, greedy, least = (sum(map(costs.flops, passes)) for passes in (plain, ours, own))
    return {"greedy": greedy / whole, "own": least / whole}


def least_cost_sentence(
    shapes: dict[str, tuple[Shape, Question, int]], n_steps: int, bar: float = 0.5
) -> str:
    """Markdown on what `greedy` can cost at least in the vision branch.

    Args:
        shapes: name -> a model, a typical question, and how many of its positions are before the picture.
        n_steps: m.
        bar: the share that is asked for.
    """
    told = []
    for name, (shape, question, before) in shapes.items():
        share = greedy_operations(shape, question, n_steps, before=before)
        reach = "out of reach" if share["own"] > bar else "not out of reach"
        told.append(
            f"for {name} {share['greedy']:.2f} of the plain search, of which {share['own']:.2f} cannot be shared (a bar of "
            f"{bar} is {reach})"
        )
    return (
        f"Counted in operations, with m = {n_steps}, `greedy` in the vision branch takes {'; '.join(told)}: states from the "
        "scaled block on, through the language model, and gradients back to it, which depend on the block and on the grid "
        "point. Tokens before the picture are left out of that part."
    )
