"""Street scenes that a script draws, so that the truth of every label is known.

Four questions are asked of each scene, of which any may be answered by yes: is there a pedestrian, a car, a stop sign,
a traffic light? The things vary in size, place, colour and light, may hide each other, and stand among others that
look like them: trees, bins, bill-boards and street lamps.

In the scenes to train on answers are erased by chance, so that what unknown answers cost can be told from what it
would be without them. In those to test on all is known.
"""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

SCENES, TESTED = 10_000, 2_000
"""How many; the first of them are those to test on."""
SIDE, LARGE = 96, 2
"""Pixels; drawn so many times as large."""
KNOWN = 0.4
"""Share of the answers to train on that is not erased."""
CHANCES = {"pedestrian": 0.4, "car": 0.5, "stop_sign": 0.25, "traffic_light": 0.3}
FOLDER = Path(__file__).parent / "streets-2"
"""Another number, when they are drawn otherwise."""

Colour = tuple[int, int, int]


def manifest() -> pd.DataFrame:
    """Draw the scenes that are not there yet, and list them.

    Returns:
        `path`; `side`, "train" or "test"; and for each target, by its name what is true, with `_known` behind it what
        is left when answers are erased, and with `_no` behind it the same with no in the place of unknown.
    """
    FOLDER.mkdir(exist_ok=True)
    lots = np.random.default_rng(0).random(
        (SCENES, 2, len(CHANCES) + 1)
    )  # a scene's own, however many there are
    truth = pd.DataFrame(lots[:, 0, :-1] < np.array(list(CHANCES.values())), columns=list(CHANCES))
    truth["traffic_light"] |= truth["car"] & (lots[:, 0, -1] < 0.2)  # they come together
    side = np.where(np.arange(SCENES) < TESTED, "test", "train")
    erased = (lots[:, 1, :-1] >= KNOWN) & (side == "train")[:, None]
    table = pd.DataFrame({"path": [f"{FOLDER.name}/{number}.png" for number in range(SCENES)], "side": side})
    unfinished = FOLDER / f"unfinished-{os.getpid()}"
    places = {number: FOLDER.parent / path for number, path in enumerate(table.path)}
    lacking = [number for number, place in places.items() if not place.is_file()]
    if lacking:
        once = f"  streets: drawing {len(lacking):,} scenes, once; 10,000 take about half a minute"
        print(once, file=sys.stderr, flush=True)
    for number in lacking:
        holds = {name: bool(truth[name].iloc[number]) for name in CHANCES}
        draw_scene(holds, number).save(unfinished, "PNG")
        unfinished.replace(places[number])  # whole, or not there
    for column, name in enumerate(CHANCES):
        true = truth[name].astype(int).astype(str)
        table[name] = true
        table[f"{name}_known"] = true.where(~erased[:, column], "?")
        table[f"{name}_no"] = true.where(~erased[:, column], "0")
    return table


def draw_scene(holds: dict[str, bool], seed: int) -> Image.Image:
    """Draw a scene that holds some things, and others that nobody asks about.

    Args:
        holds: target -> whether it is there.
        seed: of all that is left to chance.

    Returns:
        RGB, `SIDE` pixels square.
    """
    scene = _Scene(np.random.default_rng([1, seed]))
    things: list[Callable[[], None]] = [
        getattr(scene, name) for name, there in holds.items() for _ in range(there * scene.few())
    ]
    others = [scene.tree, scene.bin, scene.board, scene.lamp]
    things += [others[int(scene.random.integers(4))] for _ in range(int(scene.random.integers(1, 5)))]
    for place in scene.random.permutation(len(things)):
        things[int(place)]()
    return scene.finished()


class _Scene:
    """A street, and a pen that puts things on it."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random, self.side = random, SIDE * LARGE
        self.light = random.uniform(0.45, 1.1)
        self.ground = int(random.uniform(0.45, 0.65) * self.side)
        self.image = Image.new("RGB", (self.side, self.side), self.shade((150, 180, 215), 40))
        self.pen = ImageDraw.Draw(self.image)
        for _ in range(int(random.integers(2, 7))):
            self.house()
        self.pen.rectangle((0, self.ground, self.side, self.side), fill=self.shade((105, 105, 108), 25))

    def few(self) -> int:
        """One thing, or two."""
        return int(self.random.integers(1, 3))

    def finished(self) -> Image.Image:
        """Make it small, a little blurred, with the camera's noise."""
        small = self.image.resize((SIDE, SIDE), Image.Resampling.BOX)
        blurred = small.filter(ImageFilter.GaussianBlur(float(self.random.uniform(0, 0.8))))
        noise = self.random.normal(0, self.random.uniform(2, 12), (SIDE, SIDE, 3))
        return Image.fromarray(np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8))

    def shade(self, colour: Colour, spread: float = 25) -> Colour:
        """A colour in this scene's light, and a little off."""
        off = self.random.normal(0, spread, 3)
        return tuple(int(np.clip((c + o) * self.light, 0, 255)) for c, o in zip(colour, off, strict=True))  # type: ignore[return-value]

    def any_colour(self) -> Colour:
        """Any colour."""
        return self.shade(tuple(int(c) for c in self.random.integers(20, 235, 3)), 0)  # type: ignore[arg-type]

    def spot(self, smallest: float, largest: float) -> tuple[float, float, float]:
        """Where something stands, and how tall it is: what is nearer is lower and larger."""
        near = float(self.random.uniform(0, 1))
        foot = self.ground + near * 0.8 * (self.side - self.ground) + 4
        height = self.side * (smallest + (largest - smallest) * near) * float(self.random.uniform(0.8, 1.2))
        return float(self.random.uniform(0.08, 0.92)) * self.side, foot, height

    def house(self) -> None:
        """A house with windows."""
        left, width = self.random.uniform(-0.1, 0.9) * self.side, self.random.uniform(0.15, 0.4) * self.side
        top = self.ground - self.random.uniform(0.15, 0.5) * self.side
        self.pen.rectangle((left, top, left + width, self.ground), fill=self.shade((150, 125, 110), 35))
        pane, gap = self.shade((70, 80, 100)), 0.09 * self.side
        for row in range(int((self.ground - top) / gap)):
            for column in range(int(width / gap)):
                x, y = left + (column + 0.3) * gap, top + (row + 0.3) * gap
                self.pen.rectangle((x, y, x + 0.45 * gap, y + 0.5 * gap), fill=pane)

    def pedestrian(self) -> None:
        """Head, coat and two legs in mid-step."""
        x, foot, height = self.spot(0.16, 0.42)
        head, stride = 0.09 * height, self.random.uniform(0.03, 0.16) * height
        hip = foot - 0.45 * height
        trousers, coat = self.any_colour(), self.any_colour()
        for side in (-1, 1):
            self.pen.line((x, hip, x + side * stride, foot), fill=trousers, width=max(2, int(0.1 * height)))
        self.pen.rounded_rectangle(
            (x - 0.12 * height, foot - 0.82 * height, x + 0.12 * height, hip), radius=0.06 * height, fill=coat
        )
        skin = self.shade((205, 160, 130), 40)
        self.pen.ellipse((x - head, foot - height, x + head, foot - height + 2 * head), fill=skin)

    def car(self) -> None:
        """A body, a cabin and two wheels."""
        x, foot, height = self.spot(0.1, 0.24)
        long, paint = self.random.uniform(2.1, 2.9) * height, self.any_colour()
        left, wheel = x - long / 2, 0.24 * height
        body = (left, foot - 0.6 * height, left + long, foot - 0.12 * height)
        self.pen.rounded_rectangle(body, radius=0.12 * height, fill=paint)
        roof = [
            (left + a * long, foot - b * height) for a, b in ((0.16, 0.58), (0.3, 1), (0.68, 1), (0.86, 0.58))
        ]
        self.pen.polygon(roof, fill=paint)
        glass = [
            (left + a * long, foot - b * height)
            for a, b in ((0.25, 0.6), (0.34, 0.92), (0.64, 0.92), (0.76, 0.6))
        ]
        self.pen.polygon(glass, fill=self.shade((60, 75, 90), 15))
        for share in (0.22, 0.78):
            hub = left + share * long
            self.pen.ellipse(
                (hub - wheel, foot - 2 * wheel, hub + wheel, foot), fill=self.shade((25, 25, 28), 8)
            )

    def stop_sign(self) -> None:
        """A red octagon with a white band on a post."""
        x, foot, height = self.spot(0.22, 0.5)
        radius = 0.2 * height
        self.post(x, foot, height - radius, 0.05)
        turn = [math.pi * (2 * k + 1) / 8 for k in range(8)]
        centre = foot - height + radius
        for size, colour in ((1, (235, 235, 235)), (0.88, (190, 25, 30))):
            corners = [(x + size * radius * math.cos(t), centre + size * radius * math.sin(t)) for t in turn]
            self.pen.polygon(corners, fill=self.shade(colour, 12))
        band = (x - 0.6 * radius, centre - 0.2 * radius, x + 0.6 * radius, centre + 0.2 * radius)
        self.pen.rectangle(band, fill=self.shade((235, 235, 235), 10))

    def traffic_light(self) -> None:
        """A dark box with three lamps, one of them lit, on a post."""
        x, foot, height = self.spot(0.25, 0.55)
        box, wide = 0.4 * height, 0.16 * height
        self.post(x, foot, height - box, 0.05)
        top = foot - height
        self.pen.rectangle((x - wide / 2, top, x + wide / 2, top + box), fill=self.shade((30, 32, 30), 8))
        lit = int(self.random.integers(3))
        for number, colour in enumerate(((235, 40, 35), (240, 190, 40), (60, 220, 110))):
            middle, radius = top + (number + 0.5) * box / 3, 0.36 * wide
            dim = colour if number == lit else tuple(c // 4 for c in colour)
            lamp = tuple(int(c) for c in dim) if number == lit else self.shade(dim, 5)  # type: ignore[arg-type]
            self.pen.ellipse((x - radius, middle - radius, x + radius, middle + radius), fill=lamp)

    def post(self, x: float, foot: float, height: float, thick: float) -> None:
        """A post that something hangs on."""
        wide = max(2, int(thick * height))
        self.pen.line((x, foot, x, foot - height), fill=self.shade((120, 120, 120), 15), width=wide)

    def tree(self) -> None:
        """A trunk and a crown."""
        x, foot, height = self.spot(0.25, 0.55)
        self.pen.line(
            (x, foot, x, foot - 0.5 * height), fill=self.shade((95, 70, 45)), width=max(2, int(0.09 * height))
        )
        for _ in range(6):
            off, up = self.random.normal(0, 0.1 * height), self.random.uniform(0.5, 0.9) * height
            size = self.random.uniform(0.12, 0.22) * height
            box = (x + off - size, foot - up - size, x + off + size, foot - up + size)
            self.pen.ellipse(box, fill=self.shade((60, 110, 50), 22))

    def bin(self) -> None:
        """A box that stands as tall as a person's coat."""
        x, foot, height = self.spot(0.08, 0.2)
        box = (x - 0.3 * height, foot - height, x + 0.3 * height, foot)
        self.pen.rounded_rectangle(box, radius=0.1 * height, fill=self.any_colour())

    def board(self) -> None:
        """A red or other board, square or round, with a pale band, on a post."""
        x, foot, height = self.spot(0.22, 0.5)
        size, face = 0.2 * height, (190, 25, 30) if self.random.random() < 0.5 else (40, 70, 170)
        self.post(x, foot, height - size, 0.05)
        box = (x - size, foot - height, x + size, foot - height + 2 * size)
        draw = self.pen.ellipse if self.random.random() < 0.5 else self.pen.rectangle
        draw(box, fill=self.shade(face, 12))
        if self.random.random() < 0.5:
            middle = foot - height + size
            band = (x - 0.5 * size, middle - 0.2 * size, x + 0.5 * size, middle + 0.2 * size)
            self.pen.rectangle(band, fill=self.shade((235, 235, 235), 10))

    def lamp(self) -> None:
        """A street lamp, lit or not."""
        x, foot, height = self.spot(0.3, 0.6)
        self.post(x, foot, height, 0.04)
        glow: Colour = (250, 235, 170) if self.random.random() < 0.5 else (110, 110, 110)
        size = 0.07 * height
        self.pen.ellipse((x - size, foot - height - size, x + size, foot - height + size), fill=glow)
