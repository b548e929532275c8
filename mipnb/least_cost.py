"""What of greedy's cost in the vision branch no sharing between its passes can take away, counted in operations.

Every block's pass at a grid point below 1 has states of its own above the block, and so needs the language model anew, forward
and backward: (m - 1) times a block, and once for the point 1. The plain search does it m times a block, beside the tower.
"""

from __future__ import annotations

from mipnb.costs import FLOAT32, Costs
from mipnb.passes import Pass, Question
from mipnb.search_passes import Search, locating
from mipnb.shapes import Shape


def greedy_operations(shape: Shape, question: Question, n_steps: int, rows: int = 32) -> dict[str, float]:
    """Shares of the plain layer-by-layer search's operations in the vision branch.

    Args:
        shape: of the model.
        question: a typical one, with a picture.
        n_steps: m, right rule.
        rows: questions of a batch.

    Returns:
        "greedy": what `searches.greedy` takes (complete scores, no gap); "language model": what of it are passes over the
        language model alone.
    """
    layers, costs = shape.vision.layers, Costs(shape, "vision", FLOAT32, arithmetic=FLOAT32)
    search = Search("vision", layers, shape.vision.neurons, "greedy", n_steps, joint=False)
    sizes = {"positions": question.positions, "columns": question.answer, "text_from": 0}
    plain = [
        Pass(1, rows * n_steps, patches=question.patches, gated=1, vision_from=block, **sizes)
        for block in range(layers)
    ]
    above = Pass(1, rows * (1 + (n_steps - 1) * layers), narrow=True, **sizes)
    whole = sum(map(costs.flops, plain))
    ours = sum(map(costs.flops, locating(search, question, rows, rows)))
    language = Costs(shape, "text", FLOAT32, arithmetic=FLOAT32).flops(above)
    return {"greedy": ours / whole, "language model": language / whole}


def least_cost_sentence(shapes: dict[str, tuple[Shape, Question]], n_steps: int, bar: float = 0.5) -> str:
    """Markdown on what `greedy` can cost at least in the vision branch.

    Args:
        shapes: name -> a model and a typical question.
        n_steps: m.
        bar: the share that is asked for.
    """
    shares = {name: greedy_operations(*of, n_steps) for name, of in shapes.items()}
    told = "; ".join(
        f"{name} {share['greedy']:.2f}, of which {share['language model']:.2f}"
        for name, share in shares.items()
    )
    least = max(share["language model"] for share in shares.values())
    verdict = (
        "out of reach of exact scores where that part is the larger one"
        if least > bar
        else "not out of reach"
    )
    return (
        f"Counted in operations, `greedy` in the vision branch takes of the plain search: {told} are the language model above "
        "the tower. Its states depend on the block and on the grid point that is scaled, so it is gone through anew for each: "
        f"that part cannot be shared. With m = {n_steps} a bar of {bar} is {verdict}."
    )
