"""Drawing portraits: identity is a combination of eight shape traits; everything else is redrawn for every view.

Many people share each trait value and any two people differ in at least three, so a portrait is told apart only by reading
several shapes together. Colours, polarity of the ink, light, background, clothes, position, scale and tilt vary by view and
identify nobody. Points are in a unit square; all trigonometry is Python's own, so files do not depend on the processor.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from random import Random

from PIL import Image, ImageDraw

SIZE = 84  # pixels a side: 6 x 6 patches of 14, 3 x 3 image tokens
_OVERSAMPLE = 3
Point = tuple[float, float]

#: trait -> its values, as the describing task words them
TRAITS: dict[str, tuple[str, ...]] = {
    "face": ("round", "long", "square", "pointed"),
    "hair": ("bald", "short", "spiky", "curly", "bob", "bun"),
    "glasses": ("no", "round", "square", "dark"),
    "brow": ("flat", "raised", "stern"),
    "mouth": ("smiling", "straight", "sad", "open"),
    "beard": ("no", "full", "goatee", "moustache"),
    "ear": ("plain", "pierced", "large"),
    "neck": ("bare", "scarf", "tie", "beads"),
}
Traits = tuple[int, ...]


def draw_traits(random: Random) -> Traits:
    """Trait values (one index a trait) drawn independently and uniformly."""
    return tuple(random.randrange(len(values)) for values in TRAITS.values())


def distinct_traits(count: int, random: Random, apart: int = 3) -> list[Traits]:
    """`count` trait combinations, any two of which differ in at least `apart` traits."""
    chosen: list[Traits] = []
    while len(chosen) < count:
        candidate = draw_traits(random)
        if all(sum(a != b for a, b in zip(candidate, other, strict=True)) >= apart for other in chosen):
            chosen.append(candidate)
    return chosen


def describe(traits: Traits) -> str:
    """The traits in words, for the describing task of the base model."""
    words = {name: values[index] for (name, values), index in zip(TRAITS.items(), traits, strict=True)}
    return (
        f"A {words['face']} face, {words['hair']} hair, {words['glasses']} glasses, {words['brow']} brows, "
        f"a {words['mouth']} mouth, {words['beard']} beard, {words['ear']} ears and a neck with {words['neck']}."
    )


def portrait(traits: Traits, random: Random) -> Image.Image:
    """One view of a person: an RGB picture of SIZE x SIZE pixels; `random` draws all that is not identity."""
    colours = _colours(random)
    pen = _Pen(random, colours["ground"], colours["light"])
    value = {name: values[index] for (name, values), index in zip(TRAITS.items(), traits, strict=True)}
    for name, part in _PARTS:
        part(pen, value[name], colours)
    return pen.finish()


def encode_jpeg(picture: Image.Image) -> bytes:
    """The picture's bytes as a benchmark file holds them."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _colours(random: Random) -> dict:
    dark_ink = random.random() < 0.5
    low, high = ((150, 250), (0, 70)) if dark_ink else ((20, 110), (190, 255))

    def draw(bounds: tuple[int, int]) -> tuple[int, int, int]:
        return tuple(random.randint(*bounds) for _ in range(3))

    return {
        "ground": draw((0, 255)),
        "light": draw((0, 255)),
        "skin": draw(low),
        "shirt": draw((0, 255)),
        "ink": draw(high),
        "hair": draw(high),
    }


class _Pen:
    """Draws polygons and strokes given in the unit square, moved, scaled and tilted as one view is."""

    def __init__(self, random: Random, ground, light):
        side = SIZE * _OVERSAMPLE
        ramp = Image.linear_gradient("L").rotate(random.randrange(0, 360, 90)).resize((side, side))
        self.image = Image.composite(
            Image.new("RGB", (side, side), ground), Image.new("RGB", (side, side), light), ramp
        )
        self.draw, self.side = ImageDraw.Draw(self.image), side
        self.scale = random.uniform(0.92, 1.04)
        self.shift = (random.uniform(-0.036, 0.036), random.uniform(-0.036, 0.036))
        angle = math.radians(random.uniform(-4, 4))
        self.cos, self.sin = math.cos(angle), math.sin(angle)
        self.brightness = random.uniform(0.8, 1.2)

    def _move(self, points: Sequence[Point]) -> list[tuple[int, int]]:
        moved = []
        for x, y in points:
            x, y = (x - 0.5) * self.scale, (y - 0.5) * self.scale
            u, v = x * self.cos - y * self.sin, x * self.sin + y * self.cos
            moved.append(
                (round((u + 0.5 + self.shift[0]) * self.side), round((v + 0.5 + self.shift[1]) * self.side))
            )
        return moved

    def fill(self, points: Sequence[Point], colour) -> None:
        self.draw.polygon(self._move(points), fill=colour)

    def stroke(self, points: Sequence[Point], colour, width: float = 0.028) -> None:
        self.draw.line(self._move(points), fill=colour, width=round(width * self.side), joint="curve")

    def finish(self) -> Image.Image:
        small = self.image.resize((SIZE, SIZE), Image.Resampling.BOX)
        return small.point(lambda level: min(255, round(level * self.brightness)))


def _oval(x: float, y: float, a: float, b: float, start: float = 0, stop: float = 360) -> list[Point]:
    steps = 28
    angles = [math.radians(start + (stop - start) * step / steps) for step in range(steps + 1)]
    return [(x + a * math.cos(angle), y + b * math.sin(angle)) for angle in angles]


def _both(points: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """The points and their mirror image about the middle of the face."""
    return list(points), [(1 - x, y) for x, y in points]


def _neck(pen: _Pen, value: str, c: dict) -> None:
    pen.fill([(0.42, 0.72), (0.58, 0.72), (0.6, 0.9), (0.4, 0.9)], c["skin"])
    pen.fill([(0.12, 1.1), (0.2, 0.92), (0.4, 0.86), (0.6, 0.86), (0.8, 0.92), (0.88, 1.1)], c["shirt"])
    if value == "scarf":
        pen.fill([(0.34, 0.8), (0.66, 0.8), (0.68, 0.9), (0.32, 0.9)], c["ink"])
    elif value == "tie":
        pen.fill([(0.46, 0.86), (0.54, 0.86), (0.57, 1.05), (0.43, 1.05)], c["ink"])
    elif value == "beads":
        for step in range(5):
            pen.fill(_oval(0.36 + 0.07 * step, 0.88 + 0.012 * (4 - (step - 2) ** 2), 0.022, 0.022), c["ink"])


def _ear(pen: _Pen, value: str, c: dict) -> None:
    radius = 0.075 if value == "large" else 0.045
    for ear in _both(_oval(0.245 - 0.3 * (radius - 0.045), 0.5, radius, radius * 1.3)):
        pen.fill(ear, c["skin"])
    if value == "pierced":
        for drop in _both(_oval(0.225, 0.6, 0.028, 0.035)):
            pen.fill(drop, c["ink"])


def _face(pen: _Pen, value: str, c: dict) -> None:
    outline = {
        "round": _oval(0.5, 0.5, 0.27, 0.27),
        "long": _oval(0.5, 0.5, 0.22, 0.33),
        "square": [(0.25, 0.24), (0.75, 0.24), (0.75, 0.7), (0.68, 0.77), (0.32, 0.77), (0.25, 0.7)],
        "pointed": [(0.26, 0.28), (0.74, 0.28), (0.74, 0.5), (0.5, 0.84), (0.26, 0.5)],
    }[value]
    pen.fill(outline, c["skin"])


def _hair(pen: _Pen, value: str, c: dict) -> None:
    cap = [*_oval(0.5, 0.33, 0.27, 0.16, 180, 360), (0.7, 0.3), (0.3, 0.3)]
    if value in ("short", "bob", "bun"):
        pen.fill(cap, c["hair"])
    if value == "bob":
        for side in _both([(0.2, 0.3), (0.29, 0.28), (0.28, 0.66), (0.18, 0.68)]):
            pen.fill(side, c["hair"])
    elif value == "bun":
        pen.fill(_oval(0.5, 0.12, 0.1, 0.08), c["hair"])
    elif value == "spiky":
        tips = [(0.23 + 0.054 * step, 0.3 if step % 2 == 0 else 0.08) for step in range(11)]
        pen.fill(tips, c["hair"])
    elif value == "curly":
        for step in range(6):
            pen.fill(_oval(0.25 + 0.1 * step, 0.25 - 0.02 * (2.5 - abs(step - 2.5)), 0.075, 0.075), c["hair"])


def _brow(pen: _Pen, value: str, c: dict) -> None:
    inner, outer = {"flat": (0.4, 0.4), "raised": (0.35, 0.39), "stern": (0.43, 0.36)}[value]
    for brow in _both([(0.32, outer), (0.44, inner)]):
        pen.stroke(brow, c["ink"])


def _eyes(pen: _Pen, value: str, c: dict) -> None:
    for eye in _both(_oval(0.39, 0.475, 0.028, 0.028)):
        pen.fill(eye, c["ink"])
    ring = _oval(0.385, 0.475, 0.085, 0.075)
    box = [(0.3, 0.415), (0.47, 0.415), (0.47, 0.54), (0.3, 0.54), (0.3, 0.415)]
    if value == "no":
        return
    for glass in _both(box if value == "square" else ring):
        (pen.fill if value == "dark" else pen.stroke)(glass, c["ink"])
    pen.stroke([(0.46, 0.465), (0.54, 0.465)], c["ink"])


def _mouth(pen: _Pen, value: str, c: dict) -> None:
    shapes = {
        "smiling": _oval(0.5, 0.635, 0.09, 0.045, 0, 180),
        "straight": [(0.41, 0.66), (0.59, 0.66)],
        "sad": _oval(0.5, 0.69, 0.09, 0.045, 180, 360),
    }
    if value == "open":
        pen.fill(_oval(0.5, 0.66, 0.05, 0.04), c["ink"])
    else:
        pen.stroke(shapes[value], c["ink"])


def _beard(pen: _Pen, value: str, c: dict) -> None:
    if value == "full":
        for side in _both(
            [(0.27, 0.55), (0.32, 0.55), (0.36, 0.7), (0.5, 0.74), (0.5, 0.82), (0.38, 0.8), (0.29, 0.7)]
        ):
            pen.fill(side, c["hair"])
    elif value == "goatee":
        pen.fill([(0.45, 0.72), (0.55, 0.72), (0.5, 0.84)], c["hair"])
    elif value == "moustache":
        pen.fill([(0.5, 0.575), (0.62, 0.625), (0.5, 0.61), (0.38, 0.625)], c["hair"])


_PARTS = (
    ("neck", _neck),
    ("ear", _ear),
    ("face", _face),
    ("hair", _hair),
    ("beard", _beard),
    ("brow", _brow),
    ("glasses", _eyes),
    ("mouth", _mouth),
)
