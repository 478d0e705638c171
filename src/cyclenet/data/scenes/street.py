"""The street of a drawn scene: ground, houses, walls, fences, and where things stand."""

import math
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from cyclenet.data.scenes.camera import FAR, ID, Color
from cyclenet.data.scenes.things import LIVERIES, PAINTS, Things
from cyclenet.labels import IGNORE

# Buildings and walls share their materials.
FACADES = [
    (158, 98, 78),
    (196, 184, 160),
    (142, 138, 134),
    (176, 150, 116),
    (120, 108, 104),
    (204, 200, 194),
    (150, 120, 110),
]


class Street(Things):
    """A scene is drawn from far to near: background, sides, things, and the car's own bonnet."""

    def draw_background(self) -> None:
        rng, near = self.rng, 1.6
        top = np.array(self.haze) - rng.uniform(0, 1) * np.array([95, 55, 10])
        ramp = np.linspace(0, 1, self.height)[:, None] * self.height / self.horizon
        self.canvas[..., :3] = np.clip(top + (np.array(self.haze) - top) * ramp, 0, 255)[:, None]
        earth = self.pick([(98, 112, 60), (122, 116, 74), (84, 104, 56), (134, 122, 92)])
        self.ground(-200, 200, near, FAR * 3, "terrain", earth)
        # Far end: houses or trees close the street.
        kind = rng.choice(["building", "vegetation", "sky"], p=[0.45, 0.4, 0.15])
        if kind != "sky":
            base = FACADES if kind == "building" else [(62, 84, 48), (78, 92, 52)]
            for x in np.arange(-72, 72, 12.0):
                top_y = rng.uniform(5, 18)
                color = self.pick(base, 8)
                self.quad(
                    [(x, 0, FAR), (x + 12, 0, FAR), (x + 12, top_y, FAR), (x, top_y, FAR)],
                    kind,
                    color,
                )
        grey = rng.uniform(72, 132)
        asphalt: Color = tuple(grey + rng.normal(0, 4, 3))
        # Pavement of almost the road's grey, lighter or darker: its place tells it.
        slabs: Color = tuple(grey + rng.uniform(-16, 34) + rng.normal(0, 5, 3))
        self.ground(self.left, self.right, near, FAR, "road", asphalt)
        for edge, sign, walk in ((self.left, -1, self.walk[0]), (self.right, 1, self.walk[1])):
            curb, end = edge + sign * 0.18, edge + sign * walk
            self.ground(edge, end, near, FAR, "sidewalk", slabs)
            self.ground(edge, curb, near, FAR, "sidewalk", tuple(c * 1.2 for c in slabs))
            joints = np.array(
                [
                    [(curb, 0, z), (end, 0, z), (end, 0, z + 0.04), (curb, 0, z + 0.04)]
                    for z in np.arange(2, 20, 1.5)
                ]
            )
            self.fill(self.project(joints), "sidewalk", self.lit(tuple(c * 0.86 for c in slabs), 8))
        paint: Color = (214, 212, 204)
        for lane in np.linspace(self.left, self.right, rng.integers(2, 5))[1:-1]:
            for z in np.arange(rng.uniform(2, 6), 40, 6.0):
                self.ground(lane - 0.07, lane + 0.07, z, z + 3.0, "road", paint)
        if rng.random() < 0.35:
            z = rng.uniform(7, 22)
            for x in np.arange(self.left + 0.4, self.right - 0.4, 1.0):
                self.ground(x, x + 0.5, z, z + 2.5, "road", paint)
        # Large shadows across the ground.
        for _ in range(rng.integers(0, 4)):
            z, depth, x = (
                rng.uniform(3, 25),
                rng.uniform(1.5, 8),
                self.left if self.sun < 0 else self.right,
            )
            reach = self.sun * -rng.uniform(2, 2.2 * self.road)
            shadow = self.project(
                np.array(
                    [
                        (x, 0, z),
                        (x + reach, 0, z + 1.5),
                        (x + reach, 0, z + depth),
                        (x, 0, z + depth),
                    ]
                )
            )
            cv2.fillPoly(self.shade, [np.rint(shadow).astype(np.int32)], self.shadow)

    def draw_sides(self) -> None:
        for side in (-1, 1):
            edge = self.left - self.walk[0] if side < 0 else self.right + self.walk[1]
            line = edge + side * self.verge[0 if side < 0 else 1]
            z = FAR
            # Nearer than where the line of houses leaves the view, there is nothing to see.
            while z > 2.5 and abs(self.focal * line / z) < 0.6 * self.width:
                length = self.rng.uniform(6, 18)
                z0 = max(z - length, 1.6)
                kind = self.rng.choice(
                    ["building", "wall", "fence", "trees", "open"], p=[0.4, 0.2, 0.18, 0.17, 0.05]
                )
                if kind == "building":
                    self.building(line, side, z0, z)
                elif kind == "trees":
                    for tree in np.arange(z, z0, -self.rng.uniform(4, 6)):
                        self.tree(
                            self.rng.uniform(4, 9),
                            line + side * self.rng.uniform(0.5, 3),
                            max(tree, 2.5),
                        )
                elif kind == "fence":
                    if self.rng.random() < 0.6:
                        self.tree(self.rng.uniform(4, 8), line + side * 4, z0 + 2)
                    self.fence(line, z0, z)
                elif kind == "wall":
                    if self.rng.random() < 0.7:
                        self.tree(self.rng.uniform(4, 8), line + side * 5, z0 + 3)
                    top, color = self.rng.uniform(2.0, 3.4), self.pick(FACADES)
                    self.facade("wall", line, z0, z, top, color, side)
                    coping = [
                        (line, top - 0.3, z0),
                        (line, top - 0.3, z),
                        (line, top, z),
                        (line, top, z0),
                    ]
                    self.quad(coping, "wall", color, 1.2)
                z = z0

    def facade(
        self, name: str, x: float, z0: float, z1: float, top: float, color: Color, side: int
    ) -> float:
        light = 1.08 if side == self.sun else 0.78
        # Strips, so that haze and light change along the street.
        ratio = (z0 / z1) ** 0.5
        for b in (z1, z1 * ratio):
            a = b * ratio
            self.quad([(x, 0, a), (x, 0, b), (x, top, b), (x, top, a)], name, color, light)
        return light

    def building(self, x: float, side: int, z0: float, z1: float) -> None:
        rng = self.rng
        floors, color = int(rng.integers(2, 6)), self.pick(FACADES)
        top = 3.2 * floors + rng.uniform(0.5, 1.5)
        light = self.facade("building", x, z0, z1, top, color, side)
        # The face that looks up the street.
        depth = x + side * 10
        self.quad(
            [(x, 0, z0), (depth, 0, z0), (depth, top, z0), (x, top, z0)], "building", color, 0.9
        )
        glass = self.pick([(54, 62, 74), (84, 96, 110), (40, 42, 48), (150, 160, 170)])
        pitch, first = rng.uniform(2.0, 3.4), 1 if rng.random() < 0.5 else 0
        z, y = np.meshgrid(
            np.arange(z0 + 0.8, z1 - 1.4, pitch), 3.2 * np.arange(first, floors) + 1.0
        )
        z, y = z.ravel(), y.ravel()
        keep = z > 2
        corners = [(z, y), (z + 1.2, y), (z + 1.2, y + 1.5), (z, y + 1.5)]
        windows = np.stack([np.stack([np.full_like(a, x), b, a], -1) for a, b in corners], 1)[keep]
        for half in np.array_split(np.argsort(-z[keep]), 3):
            if len(half):
                self.fill(
                    self.project(windows[half]),
                    "building",
                    self.lit(glass, z[keep][half].mean(), light),
                )
        if rng.random() < 0.35:
            self.quad(
                [(x, 2.8, z0), (x, 2.8, z1), (x, 3.3, z1), (x, 3.3, z0)],
                "building",
                self.pick(LIVERIES),
                light,
            )

    def fence(self, x: float, z0: float, z1: float) -> None:
        top, color = (
            self.rng.uniform(1.0, 1.9),
            self.pick([(70, 74, 70), (130, 126, 118), (98, 76, 54)]),
        )
        corners = np.array([(x, 0, z0), (x, 0, z1), (x, top, z1), (x, top, z0)])
        self.stamp(self.project(corners), ID["fence"])
        for y in np.linspace(0.15, top, 4):
            self.quad(
                [(x, y, z0), (x, y, z1), (x, y - 0.09, z1), (x, y - 0.09, z0)], "fence", color
            )
        posts = np.arange(z0, z1, 0.55)
        rods = np.array(
            [[(x, 0, z), (x, top, z), (x, top, z + 0.14), (x, 0, z + 0.14)] for z in posts]
        )
        self.fill(self.project(rods), "fence", self.lit(color, (z0 + z1) / 2))

    def draw_things(self) -> None:
        rng = self.rng
        things: list[tuple[float, Callable[[], object]]] = []

        def add(
            count: int,
            near: float,
            far: float,
            place: Callable[[], float],
            draw: Callable[..., object],
            *kind: object,
        ) -> None:
            for _ in range(count):
                z = math.exp(rng.uniform(math.log(near), math.log(far)))
                things.append((z, partial(draw, *kind, place(), z)))

        def maybe(probability: float) -> int:
            return int(rng.random() < probability)

        lanes = [self.left + 1.6, self.middle - 1.5, self.middle + 1.7, self.right - 1.6]

        def on_road() -> float:
            return float(rng.choice(lanes) + rng.normal(0, 0.3))

        def on_walk() -> float:
            return self.beside(either_side(), rng.uniform(0.2, 0.9))

        def either_side() -> int:
            return -1 if rng.random() < 0.5 else 1

        add(int(rng.integers(1, 5)), 5, 45, on_road, self.vehicle, "car")
        for name in ("truck", "bus", "train"):
            add(maybe(0.45), 7, 28, on_road, self.vehicle, name)
        add(int(rng.integers(1, 7)), 3, 14, on_walk, self.person, "person", 0.0)
        add(maybe(0.25), 5, 15, on_road, self.person, "person", 0.0)
        for name in ("bicycle", "motorcycle"):
            add(maybe(0.7), 3.5, 11, on_road, self.cycle, name, True)
            add(maybe(0.5), 3.5, 9, on_walk, self.cycle, name, False)
        add(int(rng.integers(0, 4)), 4.5, 18, either_side, self.sign)
        add(int(rng.integers(0, 4)), 5, 18, either_side, self.light)
        add(int(rng.integers(0, 3)), 6, 30, on_walk, self.tree, rng.uniform(3.5, 6))
        for side in (-1, 1):
            top, pitch = rng.uniform(4.5, 8), rng.uniform(9, 18)
            things += [
                (z, partial(self.pole, top, side, z))
                for z in np.arange(rng.uniform(4, 12), 48, pitch).tolist()
            ]
        for _, draw in sorted(things, key=lambda thing: -thing[0]):
            draw()

    def draw_bonnet(self) -> None:
        rng = self.rng
        if rng.random() < 0.4:
            return
        middle, rise = self.width * rng.uniform(0.4, 0.6), self.height * rng.uniform(0.04, 0.1)
        u = np.linspace(0, self.width, 24)
        v = self.height - rise * np.clip(1 - ((u - middle) / (0.62 * self.width)) ** 2, 0, 1)
        polygon = np.concatenate(
            [np.stack([u, v], 1), [(self.width, self.height), (0, self.height)]]
        )
        self.fill(polygon[None], "car", self.lit(self.pick(PAINTS), 0))
        self.stamp(polygon, IGNORE)
