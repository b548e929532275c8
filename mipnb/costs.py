"""Memory and arithmetic of passes, in bytes and floating-point operations, from a model's shape.

What is counted: weights; what autograd keeps of each position in each layer (weights take no gradient, so inputs of
linear layers are not kept); what is made float32 of them for a product; activations of gated layers, which hooks hold;
words' logits; and what one layer needs while it runs. Attention is taken as fused (no positions x positions matrix is
kept), as on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from mipnb.passes import Editing, Pass, Question
from mipnb.precision import _AT_ONCE
from mipnb.shapes import Shape, Tower

FLOAT32 = 4
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Costs:
    """What passes are charged with.

    Attributes:
        shape: the model.
        branch: the located branch, for gates.
        number: bytes of a number of the model's type.
        path: path neurons a language layer and a vision block, while they are trained.
        arithmetic: bytes of a number that is computed, where it is not the model's type (locating: float32).
    """

    shape: Shape
    branch: str = "text"
    number: int = 2
    path: tuple[int, int] = (0, 0)
    arithmetic: int = 0

    @property
    def active(self) -> int:
        """Bytes of a number of an activation."""
        return self.arithmetic or self.number

    @property
    def weights(self) -> int:
        """Bytes of the model."""
        return self.shape.weights * self.number

    def optimiser(self) -> int:
        """Bytes beside the model while neurons are trained: their values, gradients and two moments, in float32."""
        towers = zip((self.shape.text, self.shape.vision), self.path, strict=True)
        trained = sum(tower.layers * k * (tower.factors + 1) * tower.hidden for tower, k in towers)
        return 4 * FLOAT32 * trained

    def prepared(self, edit: Editing, questions: tuple[Question, Question]) -> int:
        """Bytes of encoded pictures, and of the vanilla states of batches that come round again; in CPU memory."""
        total, steps = 0, edit.n_steps * edit.n_edits
        for one in edit.visited:
            question, asked = questions[one.pictured], min(one.there, one.rows * steps)
            total += asked * question.patches * self.shape.patch_width * FLOAT32
            if steps > one.batches:
                total += asked * question.positions * self.shape.text.hidden * FLOAT32
        return total

    def peak(self, one: Pass) -> int:
        """Bytes that a pass needs at its peak, the model's weights apart.

        That is when all of the graph is there and words are scored, or when integrals by position are added up.
        """
        positions = one.rows * one.positions
        patches = one.rows * one.patches
        base = self._gates(one) + self._entries(one) + patches * self.shape.patch_width * FLOAT32
        base += one.rows * one.context * self.shape.text.layers * self.shape.text.kv_width * self.active
        running = max(positions * self._working(self.shape.text), patches * self._working(self.shape.vision))
        running += self._copied(self.shape.text.hidden * self.shape.text.neurons)
        words = one.rows * one.columns * self.shape.vocabulary * self._per_word(one)
        words += self._copied(self.shape.text.hidden * self.shape.vocabulary)
        forward = self._graph(one) + self._held(one) + max(running, words)
        return int(base + max(forward, self._integrals(one)))

    def _graph(self, one: Pass) -> int:
        """Bytes that autograd keeps: all of a layer above the first of the graph, of that one its last product."""
        if not one.backward:
            return 0
        shape, pictured = self.shape, one.vision_from is not None
        layers = shape.text.layers if one.until is None else one.until
        whole = layers - one.text_from - (not pictured)
        kept = one.rows * one.positions * whole * self._saved(shape.text, one)
        if whole:
            kept -= one.rows * self._spared(one) * shape.text.saved_network * self.active
        if pictured:
            whole = shape.vision.layers - one.vision_from - 1
            kept += one.rows * one.patches * whole * self._saved(shape.vision, one)
        states = 4 * one.rows * one.positions * shape.text.hidden * FLOAT32 if one.trained else 0
        return kept + states  # state, vanilla state, target and difference of RMisU's losses

    def _spared(self, one: Pass) -> int:
        """Positions a row at which the last language layer's network does not work."""
        return one.positions - one.columns if one.narrow else 0

    def _saved(self, tower: Tower, one: Pass) -> int:
        """Bytes that autograd keeps of one position in one layer."""
        own = (
            FLOAT32 * tower.hidden if one.trained else 0
        )  # the network's input in float32, for the neurons' rows
        return tower.saved * self.active + tower.saved_float32 * FLOAT32 + own

    def _working(self, tower: Tower) -> int:
        """Bytes of one position while a layer runs: the network's factors, and the residual stream."""
        return (3 * tower.neurons + 4 * tower.hidden) * self.active

    def _copied(self, numbers: int) -> int:
        """Bytes of what is made float32 at a time of a weight of so many numbers, for the time of one product."""
        return min(numbers, _AT_ONCE) * FLOAT32 if self.active > self.number else 0

    def _per_word(self, one: Pass) -> int:
        """Bytes of a logit: as made; backward or for an answer's probability also in float32, and its gradient."""
        if self.active > self.number:
            return 2 * FLOAT32  # made in float32: it, and one more beside it
        return self.number + (3 * FLOAT32 if one.backward else FLOAT32)

    def _located(self, one: Pass) -> tuple[Tower, int]:
        """The located branch, and the positions of a pass in it."""
        if self.branch == "text":
            return self.shape.text, one.rows * one.positions
        return self.shape.vision, one.rows * one.patches

    def _gates(self, one: Pass) -> int:
        """Bytes of the gates, and of what is kept of the unscaled model: gradients; for joint scores by position, and with
        the activations as they are."""
        tower, positions = self._located(one)
        gates = one.gated * one.rows * tower.neurons
        rows = one.rows // one.copies
        kept = one.unscaled * rows * tower.neurons
        if one.by_position:
            kept = (one.unscaled + tower.layers) * positions // one.copies * tower.neurons
        return (gates + kept) * FLOAT32

    def _entries(self, one: Pass) -> int:
        """Bytes of what stands in for layers that are not run, of this pass and of all grid points."""
        if one.entry is None:
            return 0
        tower, positions = self._located(one)
        states = (
            positions * (one.entry + 2) * tower.hidden
        )  # layers below, and what this layer and the first begin with
        numbers = states + (positions - self._missing(one, one.entry)) * tower.neurons
        own = one.copies * (one.copies > 1)  # put together of those that are kept
        return numbers // one.copies * (own + one.kept * (2 if one.stop else 1)) * self.active

    def _missing(self, one: Pass, layer: int) -> int:
        """Positions of all rows that a layer of the located branch has no activations at."""
        last = self.branch == "text" and layer == self.shape.text.layers - 1
        return one.rows * self._spared(one) * last

    def _held(self, one: Pass) -> int:
        """Bytes of gated activations that hooks hold, and, within the graph, of what was gated."""
        tower, positions = self._located(one)
        first = one.text_from if self.branch == "text" else one.vision_from
        differentiated = one.gated - first if first is not None and one.entry is None else 0
        if first is not None and one.entry is not None:
            differentiated = max(0, one.gated - 1)  # the first of them is the entry's
        return (one.gated + differentiated) * positions * tower.neurons * self.active

    def _integrals(self, one: Pass) -> int:
        """Bytes of the gradients by position of a pass, and of their sums over passes."""
        tower, positions = self._located(one)
        return one.by_position * (positions + positions // one.copies) * tower.neurons * FLOAT32

    def flops(self, one: Pass) -> float:
        """Floating-point operations of all these passes, forward and backward."""
        text, vision = self.shape.text, self.shape.vision
        a_text, a_vision = self._layer(text, one.positions, one.context), self._layer(vision, one.patches)
        words = 2.0 * one.columns * text.hidden * self.shape.vocabulary * (not one.stop)
        spared = 2.0 * self._spared(one) * (text.factors + 1) * text.hidden * text.neurons * (not one.stop)
        total = words + self._run("text", one) * a_text + self._run("vision", one) * a_vision - spared
        total += 2 * one.patches * self.shape.connector / self.shape.merge**2 * (not one.stop)
        if one.backward:
            total += words + self._passed_back("text", one, one.text_from) * a_text - spared
        if one.vision_from is not None:
            total += self._passed_back("vision", one, one.vision_from) * a_vision
        return one.count * one.rows * max(0.0, total)

    def _run(self, branch: str, one: Pass) -> float:
        """Layers of a branch that a pass goes forward through."""
        tower = getattr(self.shape, branch)
        layers = tower.layers if branch == "vision" or one.until is None else one.until
        if one.entry is None:
            return layers
        if branch != self.branch:
            return layers * (not one.stop)
        return 1.0 if one.stop else layers - one.entry - 1 + self._product(tower)

    def _passed_back(self, branch: str, one: Pass, first: int) -> float:
        """Layers of a branch that gradients go back through; of the first gated one only the last product."""
        tower = getattr(self.shape, branch)
        layers = tower.layers if branch == "vision" or one.until is None else one.until
        ends_in_activations = branch == self.branch and one.gated
        return layers - first - (1 - self._product(tower)) * bool(ends_in_activations)

    def _product(self, tower: Tower) -> float:
        """The last linear layer's share of a layer."""
        return tower.hidden * tower.neurons / tower.weights

    def _layer(self, tower: Tower, positions: int, context: int = 0) -> float:
        """Operations of one layer for a row's positions: products with weights, and attention."""
        seen = max(positions, context)
        return 2.0 * positions * tower.weights + 4.0 * positions * seen * tower.heads_width

    def traffic(self, one: Pass) -> float:
        """Bytes that have to be read at least: the weights, once a pass; all that matters in generating."""
        return float(one.count * self.weights)
