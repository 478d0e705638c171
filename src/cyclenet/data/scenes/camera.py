"""The canvas of a drawn scene, its pinhole camera, and the photograph that is made of it.

Everything is placed in metres: x to the right, y up from the ground, z away from the camera.
"""

import math
from functools import cache

import cv2
import numpy as np

from cyclenet.data.cityscapes import CLASSES
from cyclenet.labels import IGNORE

ID = {name: index for index, name in enumerate(CLASSES)}
FAR = 90.0  # Depth at which the street ends, metres.

LIMIT = 1 << 20  # Largest coordinate, in 1/16 pixel, that OpenCV draws without an overflow.

Color = tuple[float, ...]
Outline = list[tuple[float, float]]  # Corners (dx, dy), metres, of a plate that faces the camera.

# Strength of the texture of a class, by train id, in grey levels: (fine, coarse).
TEXTURE = np.zeros((256, 2), np.float32)
for _name, _fine, _coarse in [
    ("road", 5, 7),
    ("sidewalk", 7, 7),
    ("building", 5, 6),
    ("wall", 5, 6),
    ("fence", 3, 3),
    ("vegetation", 20, 16),
    ("terrain", 14, 13),
]:
    TEXTURE[ID[_name]] = _fine, _coarse


def rect(left: float, bottom: float, right: float, top: float) -> Outline:
    """Return the outline of an upright rectangle."""
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


@cache
def _tiles() -> tuple[np.ndarray, np.ndarray]:
    # Fine and coarse noise with unit variance, of which scenes take windows. It is the same in
    # every process.
    rng = np.random.default_rng(0)
    fine = rng.standard_normal((1024, 2048), np.float32)
    coarse = cv2.GaussianBlur(rng.standard_normal((1024, 2048), np.float32), (0, 0), 3)
    return fine, coarse / coarse.std()


class Camera:
    """A canvas with a camera that looks down a street."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng, self.height, self.width = rng, height, width
        # Red, green, blue and train id: one stroke draws image and mask.
        self.canvas = np.full((height, width, 4), ID["sky"], np.uint8)
        self.shade = np.full((height, width), 255, np.uint8)
        self.focal = width * rng.uniform(0.65, 0.9)
        self.center = width * rng.uniform(0.42, 0.58)
        self.horizon = height * rng.uniform(0.36, 0.5)
        self.camera = rng.uniform(1.25, 1.9)
        # Half-width of the road, and where its middle is seen from the camera's lane, metres.
        self.road = rng.uniform(3.6, 6.5)
        self.middle = -rng.uniform(0.2, 0.5) * self.road
        self.left, self.right = self.middle - self.road, self.middle + self.road
        self.walk = rng.uniform(1.8, 4.0, 2)
        self.verge = rng.uniform(0.8, 6.0, 2) * (rng.random(2) < 0.6)
        overcast = rng.random()
        self.haze: Color = tuple(
            (np.array([205, 214, 224]) - 30 * overcast + rng.normal(0, 6, 3)).tolist()
        )
        self.haze_depth = rng.uniform(110, 400)
        self.sun = rng.choice([-1, 1])
        self.shadow = int(255 * (0.5 + 0.45 * overcast))

    def project(self, points: np.ndarray) -> np.ndarray:
        """Map points (..., 3), metres, to pixels (..., 2)."""
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
        mixed = [c * light * keep + h * (1 - keep) for c, h in zip(color, self.haze, strict=True)]
        return tuple([min(max(int(value), 0), 255) for value in mixed])

    def fill(self, polygons: np.ndarray, name: str, color: tuple[int, ...]) -> None:
        """Fill polygons (n, corners, 2), pixels."""
        # Things close by reach far beyond the image, where OpenCV's integers would overflow.
        fixed = np.minimum(np.maximum(polygons * 16, -LIMIT), LIMIT).astype(np.int32)
        cv2.fillPoly(self.canvas, list(fixed), (*color, ID[name]), shift=4)

    def stamp(self, polygon: np.ndarray, train_id: int) -> None:
        """Fill a polygon (corners, 2), pixels, in the mask only: one sees through the thing."""
        stencil = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(stencil, [np.rint(np.clip(polygon, -10000, 10000)).astype(np.int32)], 1)
        self.canvas[..., 3][stencil > 0] = train_id

    def quad(
        self, corners: list[tuple[float, float, float]], name: str, color: Color, light: float = 1.0
    ) -> None:
        # This is `fill(project(...))` for one polygon in plain Python. It takes a third of NumPy's
        # time on so few numbers, and a scene has two hundred of these.
        fixed, depth = [], 0.0
        for x, y, z in np.array(corners, float).tolist():
            scale = self.focal / z
            u, v = self.center + scale * x, self.horizon + scale * (self.camera - y)
            fixed.append([min(max(int(p * 16), -LIMIT), LIMIT) for p in (u, v)])
            depth += z
        color_id = (*self.lit(color, depth / len(corners), light), ID[name])
        cv2.fillPoly(self.canvas, [np.array(fixed, np.int32)], color_id, shift=4)

    def ground(self, x0: float, x1: float, z0: float, z1: float, name: str, color: Color) -> None:
        self.quad([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], name, color)

    def beside(self, side: int, across: float) -> float:
        """Return x on the pavement of a side: 0 is at the kerb and 1 at its far edge."""
        return float(
            self.left - across * self.walk[0] if side < 0 else self.right + across * self.walk[1]
        )

    def drop_shadow(self, x: float, z: float, half: float, length: float) -> None:
        corners = np.array(
            [
                (x - half, 0, z),
                (x + half, 0, z),
                (x + half - self.sun * 0.7, 0, z + length),
                (x - half - self.sun * 0.7, 0, z + length),
            ]
        )
        cv2.fillPoly(
            self.shade,
            [np.rint(self.project(corners)).astype(np.int32)],
            min(self.shadow + 10, 255),
        )

    def plate(
        self,
        name: str,
        x: float,
        y: float,
        z: float,
        outline: list[tuple[float, float]],
        color: Color,
    ) -> None:
        """Draw an outline (dx, dy), metres, that faces the camera."""
        self.quad([(x + dx, y + dy, z) for dx, dy in outline], name, color)

    def box(
        self,
        name: str,
        x: float,
        z: float,
        half: float,
        y0: float,
        y1: float,
        length: float,
        color: Color,
    ) -> None:
        """Draw the two visible faces of a box."""
        side = x - half if x > 0 else x + half
        if abs(x) > half:
            self.quad(
                [(side, y0, z), (side, y0, z + length), (side, y1, z + length), (side, y1, z)],
                name,
                color,
                0.8,
            )
        self.quad(
            [(x - half, y0, z), (x + half, y0, z), (x + half, y1, z), (x - half, y1, z)],
            name,
            color,
        )

    def develop(self) -> tuple[np.ndarray, np.ndarray]:
        """Add texture, shadow, exposure, blur and noise; ignore the border."""
        rng = self.rng
        fine, coarse = _tiles()
        row = rng.integers(0, 1024 - self.height + 1)
        column = rng.integers(0, 2048 - self.width + 1)
        window = np.s_[row : row + self.height, column : column + self.width]
        *planes, mask = (np.ascontiguousarray(plane) for plane in cv2.split(self.canvas))
        strength = cv2.LUT(mask, TEXTURE[:, 0]), cv2.LUT(mask, TEXTURE[:, 1])
        texture = strength[0] * fine[window] + strength[1] * coarse[window]
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
            photo = (
                cv2.GaussianBlur((plane + texture) * (light * np.float32(gain)), (0, 0), blur)
                + noise
            )
            photos.append(np.clip(photo, 0, 255).astype(np.uint8))
        return cv2.merge(photos), mask
