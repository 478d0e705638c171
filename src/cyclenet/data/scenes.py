"""Street scenes drawn by the project, in Cityscapes' 19 classes: data that needs no download.

An image and its mask are a pure function of (seed, split, index). A pinhole camera looks down a street; everything is
placed in metres and drawn from far to near. What makes it hard is meant to: walls share the materials of buildings,
pavements the greys of roads, riders the clothes of pedestrians, so that only context tells them apart; poles, signs and
bicycles are a few pixels wide; things occlude each other; light, haze, shadow, texture, blur and noise vary.
"""

import hashlib
import math
from collections.abc import Callable
from functools import cache, lru_cache, partial

import cv2
import numpy as np

from cyclenet.config import DatasetConfig
from cyclenet.data.base import Source
from cyclenet.data.cityscapes import CLASSES, PALETTE
from cyclenet.data.images import IGNORE, DataError

ID = {name: index for index, name in enumerate(CLASSES)}
FAR = 90.0
"""Depth at which the street ends, metres."""

_LIMIT = 1 << 20
_ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)

Color = tuple[float, ...]

# Materials that buildings and walls share, and clothes that pedestrians and riders share.
_FACADES = [(158, 98, 78), (196, 184, 160), (142, 138, 134), (176, 150, 116), (120, 108, 104), (204, 200, 194), (150, 120, 110)]
_PAINTS = [(30, 30, 34), (210, 210, 212), (128, 132, 138), (150, 28, 30), (28, 52, 110), (62, 76, 60), (190, 186, 170)]
_CLOTHES = [(36, 38, 52), (110, 40, 44), (58, 84, 120), (160, 152, 140), (70, 70, 64), (190, 120, 50), (28, 60, 48)]
_LIVERIES = [(206, 172, 36), (186, 42, 38), (36, 78, 150), (222, 220, 214), (70, 130, 70)]
_BUSES = [(214, 176, 34), (222, 150, 30), (206, 186, 70)]
_TRAINS = [(186, 42, 38), (36, 78, 150), (60, 128, 70)]
_CARGO = [(222, 222, 222), (196, 198, 202), (150, 156, 164), (120, 126, 136)]

# Strength of the texture of a class, by train id, in grey levels: (fine, coarse).
_TEXTURE = np.zeros((256, 2), np.float32)
for _name, _fine, _coarse in [
    ("road", 5, 7), ("sidewalk", 7, 7), ("building", 5, 6), ("wall", 5, 6),
    ("fence", 3, 3), ("vegetation", 20, 16), ("terrain", 14, 13),
]:  # fmt: skip
    _TEXTURE[ID[_name]] = _fine, _coarse


class Scenes(Source):
    """Drawn street scenes. Splits: ``train`` and ``val``, which share no scene.

    Raises:
        DataError: the split has another name.
    """

    classes = CLASSES
    palette = PALETTE

    def __init__(self, cfg: DatasetConfig, split: str) -> None:
        lengths = {"train": cfg.scenes_train, "val": cfg.scenes_val}
        if split not in lengths:
            raise DataError(f"Scenes has the splits train and val, not {split!r}.")
        self.seed, self.split, self.length = cfg.scenes_seed, split, lengths[split]
        self.size = (cfg.scenes_size[0], cfg.scenes_size[1])

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"{self.split}_{index:05d}"

    def image(self, index: int) -> np.ndarray:
        return self._draw(index)[0]

    def mask(self, index: int) -> np.ndarray:
        return self._draw(index)[1]

    def _draw(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return _draw_once(self.seed, self.split, index, *self.size)


@cache
def _tiles() -> tuple[np.ndarray, np.ndarray]:
    # (fine, coarse) noise with unit variance that scenes take windows of; the same in every process.
    rng = np.random.default_rng(0)
    fine = rng.standard_normal((1024, 2048), np.float32)
    coarse = cv2.GaussianBlur(rng.standard_normal((1024, 2048), np.float32), (0, 0), 3)
    return fine, coarse / coarse.std()


def draw_scene(seed: int, split: str, index: int, height: int = 256, width: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene.

    Returns:
        Image (height, width, 3) uint8 RGB and mask (height, width) uint8 train ids with 255 ignored.
    """
    digest = hashlib.blake2b(f"{seed}/{split}/{index}".encode(), digest_size=8).digest()
    street = _Street(np.random.default_rng(int.from_bytes(digest, "little")), height, width)
    street.draw_background()
    street.draw_sides()
    street.draw_things()
    street.draw_bonnet()
    return street.develop()


# An image and its mask are asked for one after the other, and come from one drawing.
_draw_once = lru_cache(maxsize=1)(draw_scene)


class _Street:
    """A canvas with a camera. Metres: x to the right, y up from the ground, z away from the camera."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng, self.height, self.width = rng, height, width
        # Red, green, blue and train id: one stroke draws image and mask.
        self.canvas = np.full((height, width, 4), ID["sky"], np.uint8)
        self.shade = np.full((height, width), 255, np.uint8)
        self.focal = width * rng.uniform(0.65, 0.9)
        self.center = width * rng.uniform(0.42, 0.58)
        self.horizon = height * rng.uniform(0.36, 0.5)
        self.camera = rng.uniform(1.25, 1.9)
        # Half-width of the road, metres, and where its middle is seen from the camera's lane.
        self.road = rng.uniform(3.6, 6.5)
        self.middle = -rng.uniform(0.2, 0.5) * self.road
        self.left, self.right = self.middle - self.road, self.middle + self.road
        self.walk = rng.uniform(1.8, 4.0, 2)
        self.verge = rng.uniform(0.8, 6.0, 2) * (rng.random(2) < 0.6)
        overcast = rng.random()
        self.haze: Color = tuple((np.array([205, 214, 224]) - 30 * overcast + rng.normal(0, 6, 3)).tolist())
        self.haze_depth = rng.uniform(110, 400)
        self.sun = rng.choice([-1, 1])
        self.shadow = int(255 * (0.5 + 0.45 * overcast))

    # --- camera and brush ---

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres to (..., 2) pixels."""
        pixels = np.empty((*points.shape[:-1], 2))
        scale = self.focal / points[..., 2]
        pixels[..., 0] = self.center + scale * points[..., 0]
        pixels[..., 1] = self.horizon + scale * (self.camera - points[..., 1])
        return pixels

    def pick(self, colors: list[tuple[int, int, int]], jitter: float = 12) -> Color:
        red, green, blue = colors[self.rng.integers(len(colors))]
        r, g, b, grey = (jitter * self.rng.standard_normal(4)).tolist()
        return red + r + grey, green + g + grey, blue + b + grey

    def lit(self, color: Color, depth: float, light: float = 1.0) -> tuple[int, ...]:
        keep = math.exp(-depth / self.haze_depth)
        return tuple([min(max(int(c * light * keep + h * (1 - keep)), 0), 255) for c, h in zip(color, self.haze, strict=True)])

    def fill(self, polygons: np.ndarray, name: str, color: tuple[int, ...]) -> None:
        """Fill polygons (n, corners, 2), pixels."""
        # 1/16 pixels; things close by reach far beyond the image, where OpenCV's integers would overflow.
        fixed = np.minimum(np.maximum(polygons * 16, -_LIMIT), _LIMIT).astype(np.int32)
        cv2.fillPoly(self.canvas, list(fixed), (*color, ID[name]), shift=4)

    def stamp(self, polygon: np.ndarray, train_id: int) -> None:
        """Fill a polygon (corners, 2), pixels, in the mask only: things one sees through."""
        stencil = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(stencil, [np.rint(np.clip(polygon, -10000, 10000)).astype(np.int32)], 1)
        self.canvas[..., 3][stencil > 0] = train_id

    def quad(self, corners: list[tuple[float, float, float]], name: str, color: Color, light: float = 1.0) -> None:
        # `fill(project(...))` for one polygon, in plain Python: a third of NumPy's time on so few numbers, and there are
        # two hundred of these in a scene.
        fixed, depth = [], 0.0
        for x, y, z in np.array(corners, float).tolist():
            scale = self.focal / z
            u, v = self.center + scale * x, self.horizon + scale * (self.camera - y)
            fixed.append((min(max(int(u * 16), -_LIMIT), _LIMIT), min(max(int(v * 16), -_LIMIT), _LIMIT)))
            depth += z
        color_id = (*self.lit(color, depth / len(corners), light), ID[name])
        cv2.fillPoly(self.canvas, [np.array(fixed, np.int32)], color_id, shift=4)

    def ground(self, x0: float, x1: float, z0: float, z1: float, name: str, color: Color) -> None:
        self.quad([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], name, color)

    # --- the street ---

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
            base = _FACADES if kind == "building" else [(62, 84, 48), (78, 92, 52)]
            for x in np.arange(-72, 72, 12.0):
                top_y = rng.uniform(5, 18)
                color = self.pick(base, 8)
                self.quad([(x, 0, FAR), (x + 12, 0, FAR), (x + 12, top_y, FAR), (x, top_y, FAR)], kind, color)
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
                [[(curb, 0, z), (end, 0, z), (end, 0, z + 0.04), (curb, 0, z + 0.04)] for z in np.arange(2, 20, 1.5)]
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
            z, depth, x = rng.uniform(3, 25), rng.uniform(1.5, 8), self.left if self.sun < 0 else self.right
            reach = self.sun * -rng.uniform(2, 2.2 * self.road)
            shadow = self.project(np.array([(x, 0, z), (x + reach, 0, z + 1.5), (x + reach, 0, z + depth), (x, 0, z + depth)]))
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
                kind = self.rng.choice(["building", "wall", "fence", "trees", "open"], p=[0.4, 0.2, 0.18, 0.17, 0.05])
                if kind == "building":
                    self.building(line, side, z0, z)
                elif kind == "trees":
                    for tree in np.arange(z, z0, -self.rng.uniform(4, 6)):
                        self.tree(self.rng.uniform(4, 9), line + side * self.rng.uniform(0.5, 3), max(tree, 2.5))
                elif kind == "fence":
                    if self.rng.random() < 0.6:
                        self.tree(self.rng.uniform(4, 8), line + side * 4, z0 + 2)
                    self.fence(line, z0, z)
                elif kind == "wall":
                    if self.rng.random() < 0.7:
                        self.tree(self.rng.uniform(4, 8), line + side * 5, z0 + 3)
                    top, color = self.rng.uniform(2.0, 3.4), self.pick(_FACADES)
                    self.facade("wall", line, z0, z, top, color, side)
                    coping = [(line, top - 0.3, z0), (line, top - 0.3, z), (line, top, z), (line, top, z0)]
                    self.quad(coping, "wall", color, 1.2)
                z = z0

    def facade(self, name: str, x: float, z0: float, z1: float, top: float, color: Color, side: int) -> float:
        light = 1.08 if side == self.sun else 0.78
        # Strips, so that haze and light change along the street.
        ratio = (z0 / z1) ** 0.5
        for b in (z1, z1 * ratio):
            a = b * ratio
            self.quad([(x, 0, a), (x, 0, b), (x, top, b), (x, top, a)], name, color, light)
        return light

    def building(self, x: float, side: int, z0: float, z1: float) -> None:
        rng = self.rng
        floors, color = int(rng.integers(2, 6)), self.pick(_FACADES)
        top = 3.2 * floors + rng.uniform(0.5, 1.5)
        light = self.facade("building", x, z0, z1, top, color, side)
        # The face that looks up the street.
        depth = x + side * 10
        self.quad([(x, 0, z0), (depth, 0, z0), (depth, top, z0), (x, top, z0)], "building", color, 0.9)
        glass = self.pick([(54, 62, 74), (84, 96, 110), (40, 42, 48), (150, 160, 170)])
        pitch, first = rng.uniform(2.0, 3.4), 1 if rng.random() < 0.5 else 0
        z, y = np.meshgrid(np.arange(z0 + 0.8, z1 - 1.4, pitch), 3.2 * np.arange(first, floors) + 1.0)
        z, y = z.ravel(), y.ravel()
        keep = z > 2
        corners = [(z, y), (z + 1.2, y), (z + 1.2, y + 1.5), (z, y + 1.5)]
        windows = np.stack([np.stack([np.full_like(a, x), b, a], -1) for a, b in corners], 1)[keep]
        for half in np.array_split(np.argsort(-z[keep]), 3):
            if len(half):
                self.fill(self.project(windows[half]), "building", self.lit(glass, z[keep][half].mean(), light))
        if rng.random() < 0.35:
            self.quad([(x, 2.8, z0), (x, 2.8, z1), (x, 3.3, z1), (x, 3.3, z0)], "building", self.pick(_LIVERIES), light)

    def fence(self, x: float, z0: float, z1: float) -> None:
        top, color = self.rng.uniform(1.0, 1.9), self.pick([(70, 74, 70), (130, 126, 118), (98, 76, 54)])
        corners = np.array([(x, 0, z0), (x, 0, z1), (x, top, z1), (x, top, z0)])
        self.stamp(self.project(corners), ID["fence"])
        for y in np.linspace(0.15, top, 4):
            self.quad([(x, y, z0), (x, y, z1), (x, y - 0.09, z1), (x, y - 0.09, z0)], "fence", color)
        posts = np.arange(z0, z1, 0.55)
        rods = np.array([[(x, 0, z), (x, top, z), (x, top, z + 0.14), (x, 0, z + 0.14)] for z in posts])
        self.fill(self.project(rods), "fence", self.lit(color, (z0 + z1) / 2))

    def tree(self, top: float, x: float, z: float) -> None:
        rng = self.rng
        trunk, color = 0.16 + 0.02 * top, self.pick([(70, 98, 50), (92, 108, 58), (54, 78, 44), (110, 116, 62)], 10)
        self.quad(
            [(x - trunk, 0, z), (x + trunk, 0, z), (x + trunk, top * 0.6, z), (x - trunk, top * 0.6, z)],
            "vegetation",
            (84, 68, 52),
        )
        bare = rng.uniform(0.15, 0.4)
        # Clumps of leaves (3 lights, 3 clumps, 12 corners, 2), the sunny ones last.
        lights = np.array([0.72, 0.95, 1.18])[:, None]
        middle = np.empty((3, 3, 1, 3))
        middle[..., 0, 0] = x + rng.normal(0, 0.16 * top, (3, 3)) + self.sun * (lights - 0.9)
        middle[..., 0, 1] = top * rng.uniform(bare + 0.12, 0.86, (3, 3)) + lights - 0.9
        middle[..., 2] = z
        clumps = _CIRCLE * rng.uniform(0.11, 0.23, (3, 3, 1, 2)) * (1 + 0.16 * rng.standard_normal((3, 3, len(_CIRCLE), 1)))
        clumps = self.project(middle) + self.focal / z * top * clumps
        for light, group in zip((0.72, 0.95, 1.18), clumps, strict=True):
            self.fill(group, "vegetation", self.lit(color, z, light))

    # --- things ---

    def draw_things(self) -> None:
        rng = self.rng
        things: list[tuple[float, Callable[[], object]]] = []

        def add(
            count: int, near: float, far: float, place: Callable[[], float], draw: Callable[..., object], *kind: object
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
            things += [(z, partial(self.pole, top, side, z)) for z in np.arange(rng.uniform(4, 12), 48, pitch).tolist()]
        for _, draw in sorted(things, key=lambda thing: -thing[0]):
            draw()

    def beside(self, side: int, across: float) -> float:
        """x on the pavement of a side, 0 at the kerb and 1 at its far edge."""
        return float(self.left - across * self.walk[0] if side < 0 else self.right + across * self.walk[1])

    def drop_shadow(self, x: float, z: float, half: float, length: float) -> None:
        corners = np.array(
            [
                (x - half, 0, z),
                (x + half, 0, z),
                (x + half - self.sun * 0.7, 0, z + length),
                (x - half - self.sun * 0.7, 0, z + length),
            ]
        )
        cv2.fillPoly(self.shade, [np.rint(self.project(corners)).astype(np.int32)], min(self.shadow + 10, 255))

    def plate(self, name: str, x: float, y: float, z: float, outline: list[tuple[float, float]], color: Color) -> None:
        """Draw an outline (dx, dy), metres, that faces the camera."""
        self.quad([(x + dx, y + dy, z) for dx, dy in outline], name, color)

    def box(self, name: str, x: float, z: float, half: float, y0: float, y1: float, length: float, color: Color) -> None:
        """Draw the two visible faces of a box."""
        side = x - half if x > 0 else x + half
        if abs(x) > half:
            self.quad([(side, y0, z), (side, y0, z + length), (side, y1, z + length), (side, y1, z)], name, color, 0.8)
        self.quad([(x - half, y0, z), (x + half, y0, z), (x + half, y1, z), (x - half, y1, z)], name, color)

    def vehicle(self, name: str, x: float, z: float) -> None:
        rng = self.rng
        half, top, length = {
            "car": (0.9, 1.45, 4.2),
            "truck": (1.2, 3.3, 7.5),
            "bus": (1.25, 3.1, 11.0),
            "train": (1.3, 3.6, 22.0),
        }[name]
        top *= rng.uniform(0.93, 1.08)
        paint = self.pick({"car": _PAINTS, "truck": _CARGO, "bus": _BUSES, "train": _TRAINS}[name], 8)
        glass, rubber = (46, 54, 64), (22, 22, 24)
        self.drop_shadow(x, z, half + 0.15, length)
        side = x - half if x > 0 else x + half
        if name != "train":
            wheels = [(z + 0.18 * length, 0.34), (z + 0.82 * length, 0.34)] if abs(x) > half else []
            for wheel_z, r in wheels:
                ring = [(side, r + r * np.sin(a), wheel_z + r * np.cos(a)) for a in _ANGLES]
                self.quad(ring, name, rubber)
            for dx in (-0.75 * half, 0.75 * half):
                self.plate(name, x + dx, 0.0, z, [(-0.13, 0), (0.13, 0), (0.13, 0.5), (-0.13, 0.5)], rubber)
        floor = 0.12 if name == "train" else 0.28
        if name == "car":
            waist = 0.56 * top
            self.box(name, x, z, half, floor, waist, length, paint)
            # The cabin, narrower than the body, with glass all round.
            roof = 0.74 * half
            if abs(x) > half:
                edge = side
                cabin = [
                    (edge, waist - 0.05, z + 0.1),
                    (edge, waist - 0.05, z + 3.0),
                    (edge, top, z + 2.3),
                    (edge, top, z + 0.7),
                ]
                self.quad(cabin, name, paint, 0.8)
                self.quad([(a, max(waist, waist + (b - waist) * 0.85), c) for a, b, c in cabin], name, glass)
            self.plate(
                name,
                x,
                0,
                z + 0.25,
                [(-0.95 * half, waist - 0.05), (0.95 * half, waist - 0.05), (roof, top), (-roof, top)],
                paint,
            )
            self.plate(
                name,
                x,
                0,
                z + 0.2,
                [
                    (-0.82 * half, waist + 0.03),
                    (0.82 * half, waist + 0.03),
                    (0.88 * roof, top - 0.1),
                    (-0.88 * roof, top - 0.1),
                ],
                glass,
            )
            lamp: Color = (190, 36, 30) if rng.random() < 0.6 else (236, 232, 210)
            for dx in (-0.78 * half, 0.78 * half):
                self.plate(name, x + dx, waist - 0.22, z, [(-0.14, 0), (0.14, 0), (0.14, 0.16), (-0.14, 0.16)], lamp)
            self.plate(name, x, 0.42, z, [(-0.26, 0), (0.26, 0), (0.26, 0.12), (-0.26, 0.12)], (226, 224, 214))
            return
        if name == "truck":
            self.box(name, x, z, half, 0.75, top, length * 0.74, paint)
            self.box(name, x, z, half, floor + 0.2, 0.75, length * 0.74, (52, 52, 54))
            dark: Color = tuple(c * 0.7 for c in paint)
            self.plate(name, x, 0, z, [(-0.03, 0.8), (0.03, 0.8), (0.03, top), (-0.03, top)], dark)
            self.plate(name, x, 0.5, z, [(-half, 0), (half, 0), (half, 0.16), (-half, 0.16)], (170, 40, 34))
            return
        self.box(name, x, z, half, floor, top, length, paint)
        # Windows along the side and at the end; the train has a light band at its top and none of the bus's lamps.
        if abs(x) > half:
            for a in np.arange(z + 0.8, z + length - 1.0, 2.0):
                self.quad(
                    [(side, 1.35, a), (side, 1.35, a + 1.6), (side, 0.8 * top, a + 1.6), (side, 0.8 * top, a)], name, glass
                )
        low = 1.2 if name == "train" else 1.55
        self.plate(
            name,
            x,
            0,
            z,
            [(-0.85 * half, low), (0.85 * half, low), (0.75 * half, 0.84 * top), (-0.75 * half, 0.84 * top)],
            glass,
        )
        if name == "train":
            self.plate(
                name,
                x,
                0,
                z,
                [(-0.5 * half, 0.9 * top), (0.5 * half, 0.9 * top), (0.5 * half, 0.97 * top), (-0.5 * half, 0.97 * top)],
                (250, 240, 180),
            )
            self.plate(name, x, 0, z, [(-half, 0.55), (half, 0.55), (half, 0.8), (-half, 0.8)], (240, 240, 240))
        else:
            for dx in (-0.8 * half, 0.8 * half):
                self.plate(name, x + dx, 0.6, z, [(-0.12, 0), (0.12, 0), (0.12, 0.3), (-0.12, 0.3)], (196, 40, 34))

    def person(self, name: str, seat: float, x: float, z: float) -> None:
        """Draw a pedestrian, or with a ``seat`` (metres) the upper body of a rider."""
        rng = self.rng
        size = rng.uniform(0.88, 1.08)
        coat, legs = self.pick(_CLOTHES), self.pick(_CLOTHES)
        skin = self.pick([(206, 160, 134), (150, 108, 84), (98, 70, 56)], 8)
        hip, shoulder, crown = (seat, seat + 0.6, seat + 0.92) if seat else (0.85 * size, 1.45 * size, 1.74 * size)
        if not seat:
            self.drop_shadow(x, z, 0.22, 0.4)
            stride = rng.uniform(0.02, 0.3)
            for foot in (-stride, stride):
                self.plate(name, x, 0, z, [(foot - 0.08, 0), (foot + 0.08, 0), (0.14, hip), (-0.14, hip)], legs)
        self.plate(name, x, 0, z, [(-0.19, hip), (0.19, hip), (0.25, shoulder), (-0.25, shoulder)], coat)
        swing = rng.uniform(0.05, 0.2)
        for sign in (-1, 1):
            arm = [
                (sign * 0.2, shoulder),
                (sign * 0.3, shoulder - 0.05),
                (sign * (0.26 + swing), hip),
                (sign * (0.16 + swing), hip),
            ]
            self.plate(name, x, 0, z, arm, tuple(c * 0.9 for c in coat))
        middle = (shoulder + crown) / 2 + 0.03
        head = [(0.11 * np.cos(a), middle + 0.15 * np.sin(a)) for a in _ANGLES]
        self.plate(name, x, 0, z, head, skin)
        hat: Color = self.pick([(30, 26, 24), (96, 66, 40), (200, 200, 196)], 8) if seat else (40, 32, 28)
        self.plate(
            name, x, 0, z, [(-0.11, middle + 0.03), (0.11, middle + 0.03), (0.07, middle + 0.16), (-0.07, middle + 0.16)], hat
        )

    def cycle(self, name: str, ridden: bool, x: float, z: float) -> None:
        rng = self.rng
        across = rng.random() < 0.5
        color = self.pick(_PAINTS[:1] + _PAINTS[3:5] if name == "motorcycle" else _LIVERIES, 8)
        self.drop_shadow(x, z, 0.8 if across else 0.3, 0.4)
        heavy = name == "motorcycle"
        r = 0.31 if heavy else 0.34
        if across:
            hubs = (x - 0.55, x + 0.55)
            hull = [(-0.55 - r, r), (-0.55, 0), (0.55, 0), (0.55 + r, r), (0.6, 1.0), (0.2, 0.95), (-0.3, 0.95), (-0.55, 2 * r)]
            hull_points = self.project(np.array([(x + dx, y, z) for dx, y in hull]))
            self.stamp(hull_points, ID[name])
            thick = max(1, int(self.focal / z * (0.12 if heavy else 0.05)))
            for hub in hubs:
                u, v = self.project(np.array([hub, r, z]))
                cv2.circle(
                    self.canvas,
                    (round(u), round(v)),
                    round(self.focal / z * r) + 1,
                    (*self.lit((26, 26, 28), z), ID[name]),
                    thick,
                )
            frame = [(hubs[0], r), (x - 0.15, 0.85), (x + 0.4, 0.8), (x, r), (hubs[0], r)]
            line = np.rint(
                self.project(np.array([(a, b, z) for a, b in [*frame, (x + 0.4, 0.8), (hubs[1], r), (x + 0.45, 1.05)]]))
            )
            cv2.polylines(self.canvas, [line.astype(np.int32)], False, (*self.lit(color, z), ID[name]), thick)
            if heavy:
                self.plate(name, x, 0, z, [(-0.45, 0.4), (0.4, 0.35), (0.5, 0.85), (0.1, 0.95), (-0.5, 0.8)], color)
        else:
            half = 0.32 if heavy else 0.09
            self.plate(
                name,
                x,
                0,
                z,
                [(-0.09 if heavy else -0.06, 0), (0.09 if heavy else 0.06, 0), (0.06, 0.7), (-0.06, 0.7)],
                (26, 26, 28),
            )
            self.plate(name, x, 0, z, [(-half * 0.7, 0.4), (half * 0.7, 0.4), (half, 0.9), (-half, 0.9)], color)
            bar = 0.4 if heavy else 0.3
            self.plate(name, x, 0, z, [(-bar, 0.95), (bar, 0.95), (bar, 1.03), (-bar, 1.03)], (40, 40, 42))
        if ridden:
            for foot in (-0.18, 0.18):
                self.plate(
                    "rider", x, 0, z, [(foot - 0.07, 0.3), (foot + 0.07, 0.3), (0.16, 0.95), (-0.16, 0.95)], self.pick(_CLOTHES)
                )
            self.person("rider", 0.9, x, z)

    def pole(self, top: float, side: int, z: float) -> float:
        x = self.beside(side, 0.15)
        width = 0.085
        color = self.pick([(86, 90, 92), (120, 122, 120), (58, 66, 60)], 6)
        # At least a pixel wide however far.
        width = max(width, 0.55 * z / self.focal)
        self.quad([(x - width, 0, z), (x + width, 0, z), (x + width, top, z), (x - width, top, z)], "pole", color)
        if top > 4.4:
            arm = x - side * 1.3
            self.quad([(x, top, z), (arm, top + 0.1, z), (arm, top - 0.08, z), (x, top - 0.15, z)], "pole", color)
        return x

    def sign(self, side: int, z: float) -> None:
        x, y, r = self.pole(2.9, side, z), 2.6, self.rng.uniform(0.36, 0.55)
        kind = self.rng.integers(3)
        corners = [_ANGLES, np.array([np.pi / 2, 7 * np.pi / 6, 11 * np.pi / 6]), np.pi / 4 + np.pi / 2 * np.arange(4)][kind]
        rim, field = [((190, 32, 36), (236, 234, 228)), ((190, 32, 36), (236, 234, 228)), ((26, 70, 150), (40, 90, 170))][kind]
        self.plate("traffic sign", x, y, z - 0.05, [(r * np.cos(a), r * np.sin(a)) for a in corners], rim)
        self.plate("traffic sign", x, y, z - 0.05, [(0.66 * r * np.cos(a), 0.66 * r * np.sin(a)) for a in corners], field)

    def light(self, side: int, z: float) -> None:
        x = self.pole(3.6, side, z)
        x, y = x - side * 0.1, 2.9
        self.plate("traffic light", x, y, z - 0.05, [(-0.24, -0.6), (0.24, -0.6), (0.24, 0.6), (-0.24, 0.6)], (34, 36, 34))
        lit = self.rng.integers(3)
        for lamp, color in enumerate([(240, 50, 40), (244, 190, 40), (60, 220, 110)]):
            dim: Color = color if lamp == lit else tuple(0.3 * c for c in color)
            self.plate(
                "traffic light",
                x,
                y + 0.35 * (1 - lamp),
                z - 0.05,
                [(0.13 * np.cos(a), 0.13 * np.sin(a)) for a in _ANGLES],
                dim,
            )

    def draw_bonnet(self) -> None:
        rng = self.rng
        if rng.random() < 0.4:
            return
        middle, rise = self.width * rng.uniform(0.4, 0.6), self.height * rng.uniform(0.04, 0.1)
        u = np.linspace(0, self.width, 24)
        v = self.height - rise * np.clip(1 - ((u - middle) / (0.62 * self.width)) ** 2, 0, 1)
        polygon = np.concatenate([np.stack([u, v], 1), [(self.width, self.height), (0, self.height)]])
        self.fill(polygon[None], "car", self.lit(self.pick(_PAINTS), 0))
        self.stamp(polygon, IGNORE)

    # --- the photograph ---

    def develop(self) -> tuple[np.ndarray, np.ndarray]:
        """Add texture, shadow, exposure, blur and noise; ignore the border."""
        rng = self.rng
        fine, coarse = _tiles()
        row, column = rng.integers(0, 1024 - self.height + 1), rng.integers(0, 2048 - self.width + 1)
        window = np.s_[row : row + self.height, column : column + self.width]
        *planes, mask = (np.ascontiguousarray(plane) for plane in cv2.split(self.canvas))
        texture = cv2.LUT(mask, _TEXTURE[:, 0]) * fine[window] + cv2.LUT(mask, _TEXTURE[:, 1]) * coarse[window]
        border = int(rng.integers(0, 4))
        if border:
            frame = np.ones_like(mask, bool)
            frame[border:-border, border:-border] = False
            mask[frame] = IGNORE
        shade = cv2.GaussianBlur(self.shade, (0, 0), 1.2)
        exposure = rng.uniform(0.72, 1.2) * (1 + rng.normal(0, 0.05, 3))
        light = np.float32(1 / 255) * shade
        noise = rng.uniform(1.5, 7) * fine[window[0], 2047 - column - np.arange(self.width)]
        # At half the width a lens blurs half as many pixels.
        blur = max(rng.uniform(0.45, 1.1) * self.width / 512, 0.3)
        photos = []
        for plane, gain in zip(planes, exposure, strict=True):
            photo = cv2.GaussianBlur((plane + texture) * (light * np.float32(gain)), (0, 0), blur) + noise
            photos.append(np.clip(photo, 0, 255).astype(np.uint8))
        return cv2.merge(photos), mask
