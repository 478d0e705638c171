"""Things in a drawn scene: trees, vehicles, people, cycles, poles, signs, lights."""

import cv2
import numpy as np

from cyclenet.data.scenes.camera import ID, Camera, Color, rect

ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)

PAINTS = [
    (30, 30, 34),
    (210, 210, 212),
    (128, 132, 138),
    (150, 28, 30),
    (28, 52, 110),
    (62, 76, 60),
    (190, 186, 170),
]
# Pedestrians and riders share their clothes.
CLOTHES = [
    (36, 38, 52),
    (110, 40, 44),
    (58, 84, 120),
    (160, 152, 140),
    (70, 70, 64),
    (190, 120, 50),
    (28, 60, 48),
]
LIVERIES = [(206, 172, 36), (186, 42, 38), (36, 78, 150), (222, 220, 214), (70, 130, 70)]
BUSES = [(214, 176, 34), (222, 150, 30), (206, 186, 70)]
TRAINS = [(186, 42, 38), (36, 78, 150), (60, 128, 70)]
CARGO = [(222, 222, 222), (196, 198, 202), (150, 156, 164), (120, 126, 136)]
LEAVES = [(70, 98, 50), (92, 108, 58), (54, 78, 44), (110, 116, 62)]

# Half-width, height and length of vehicles, metres.
SIZES = {
    "car": (0.9, 1.45, 4.2),
    "truck": (1.2, 3.3, 7.5),
    "bus": (1.25, 3.1, 11.0),
    "train": (1.3, 3.6, 22.0),
}
COLORS = {"car": PAINTS, "truck": CARGO, "bus": BUSES, "train": TRAINS}
GLASS: Color = (46, 54, 64)
RUBBER: Color = (22, 22, 24)


class Things(Camera):
    """A canvas on which things can be drawn."""

    def tree(self, top: float, x: float, z: float) -> None:
        rng = self.rng
        trunk, color = 0.16 + 0.02 * top, self.pick(LEAVES, 10)
        corners = [(x + dx, y, z) for dx, y in rect(-trunk, 0, trunk, top * 0.6)]
        self.quad(corners, "vegetation", (84, 68, 52))
        bare = rng.uniform(0.15, 0.4)
        # Clumps of leaves are (3 lights, 3 clumps, 12 corners, 2); the sunny ones come last.
        lights = np.array([0.72, 0.95, 1.18])[:, None]
        middle = np.empty((3, 3, 1, 3))
        middle[..., 0, 0] = x + rng.normal(0, 0.16 * top, (3, 3)) + self.sun * (lights - 0.9)
        middle[..., 0, 1] = top * rng.uniform(bare + 0.12, 0.86, (3, 3)) + lights - 0.9
        middle[..., 2] = z
        size = rng.uniform(0.11, 0.23, (3, 3, 1, 2))
        ragged = 1 + 0.16 * rng.standard_normal((3, 3, len(CIRCLE), 1))
        clumps = CIRCLE * size * ragged
        clumps = self.project(middle) + self.focal / z * top * clumps
        for light, group in zip((0.72, 0.95, 1.18), clumps, strict=True):
            self.fill(group, "vegetation", self.lit(color, z, light))

    def vehicle(self, name: str, x: float, z: float) -> None:
        half, top, length = SIZES[name]
        top *= self.rng.uniform(0.93, 1.08)
        paint = self.pick(COLORS[name], 8)
        self.drop_shadow(x, z, half + 0.15, length)
        if name != "train":
            self._wheels(name, x, z, half, length)
        if name == "car":
            self._car(x, z, half, top, length, paint)
        elif name == "truck":
            self._truck(x, z, half, top, length, paint)
        else:
            self._coach(name, x, z, half, top, length, paint)

    def _wheels(self, name: str, x: float, z: float, half: float, length: float) -> None:
        side, r = self._side(x, half), 0.34
        for wheel_z in (z + 0.18 * length, z + 0.82 * length) if abs(x) > half else ():
            ring = [(side, r + r * np.sin(a), wheel_z + r * np.cos(a)) for a in ANGLES]
            self.quad(ring, name, RUBBER)
        for dx in (-0.75 * half, 0.75 * half):
            self.plate(name, x + dx, 0.0, z, rect(-0.13, 0, 0.13, 0.5), RUBBER)

    def _side(self, x: float, half: float) -> float:
        """Return x of the side that the camera sees."""
        return x - half if x > 0 else x + half

    def _car(
        self, x: float, z: float, half: float, top: float, length: float, paint: Color
    ) -> None:
        waist, roof = 0.56 * top, 0.74 * half
        self.box("car", x, z, half, 0.28, waist, length, paint)
        # The cabin is narrower than the body, with glass all round.
        if abs(x) > half:
            side, low = self._side(x, half), waist - 0.05
            cabin = [(side, low, z + 0.1), (side, low, z + 3.0)]
            cabin += [(side, top, z + 2.3), (side, top, z + 0.7)]
            self.quad(cabin, "car", paint, 0.8)
            panes = [(a, max(waist, waist + (b - waist) * 0.85), c) for a, b, c in cabin]
            self.quad(panes, "car", GLASS)
        wide, low = 0.95 * half, waist - 0.05
        back = [(-wide, low), (wide, low), (roof, top), (-roof, top)]
        self.plate("car", x, 0, z + 0.25, back, paint)
        wide, low, narrow, high = 0.82 * half, waist + 0.03, 0.88 * roof, top - 0.1
        pane = [(-wide, low), (wide, low), (narrow, high), (-narrow, high)]
        self.plate("car", x, 0, z + 0.2, pane, GLASS)
        lamp: Color = (190, 36, 30) if self.rng.random() < 0.6 else (236, 232, 210)
        for dx in (-0.78 * half, 0.78 * half):
            self.plate("car", x + dx, waist - 0.22, z, rect(-0.14, 0, 0.14, 0.16), lamp)
        self.plate("car", x, 0.42, z, rect(-0.26, 0, 0.26, 0.12), (226, 224, 214))

    def _truck(
        self, x: float, z: float, half: float, top: float, length: float, paint: Color
    ) -> None:
        self.box("truck", x, z, half, 0.75, top, length * 0.74, paint)
        self.box("truck", x, z, half, 0.28 + 0.2, 0.75, length * 0.74, (52, 52, 54))
        dark: Color = tuple(c * 0.7 for c in paint)
        self.plate("truck", x, 0, z, rect(-0.03, 0.8, 0.03, top), dark)
        self.plate("truck", x, 0.5, z, rect(-half, 0, half, 0.16), (170, 40, 34))

    def _coach(
        self, name: str, x: float, z: float, half: float, top: float, length: float, paint: Color
    ) -> None:
        """Draw a bus, or a train, which has a light band at its top and none of the bus's lamps."""
        is_train = name == "train"
        self.box(name, x, z, half, 0.12 if is_train else 0.28, top, length, paint)
        if abs(x) > half:
            side, high = self._side(x, half), 0.8 * top
            for a in np.arange(z + 0.8, z + length - 1.0, 2.0):
                b = a + 1.6
                pane = [(side, 1.35, a), (side, 1.35, b), (side, high, b), (side, high, a)]
                self.quad(pane, name, GLASS)
        wide, low, narrow, high = 0.85 * half, 1.2 if is_train else 1.55, 0.75 * half, 0.84 * top
        pane_outline = [(-wide, low), (wide, low), (narrow, high), (-narrow, high)]
        self.plate(name, x, 0, z, pane_outline, GLASS)
        if is_train:
            band = rect(-0.5 * half, 0.9 * top, 0.5 * half, 0.97 * top)
            self.plate(name, x, 0, z, band, (250, 240, 180))
            self.plate(name, x, 0, z, rect(-half, 0.55, half, 0.8), (240, 240, 240))
        else:
            for dx in (-0.8 * half, 0.8 * half):
                self.plate(name, x + dx, 0.6, z, rect(-0.12, 0, 0.12, 0.3), (196, 40, 34))

    def person(self, name: str, seat: float, x: float, z: float) -> None:
        """Draw a pedestrian, or with a ``seat`` (metres) the upper body of a rider."""
        rng = self.rng
        size = rng.uniform(0.88, 1.08)
        coat, legs = self.pick(CLOTHES), self.pick(CLOTHES)
        skin = self.pick([(206, 160, 134), (150, 108, 84), (98, 70, 56)], 8)
        hip, shoulder, crown = 0.85 * size, 1.45 * size, 1.74 * size
        if seat:
            hip, shoulder, crown = seat, seat + 0.6, seat + 0.92
        if not seat:
            self.drop_shadow(x, z, 0.22, 0.4)
            stride = rng.uniform(0.02, 0.3)
            for foot in (-stride, stride):
                leg = [(foot - 0.08, 0), (foot + 0.08, 0), (0.14, hip), (-0.14, hip)]
                self.plate(name, x, 0, z, leg, legs)
        body = [(-0.19, hip), (0.19, hip), (0.25, shoulder), (-0.25, shoulder)]
        self.plate(name, x, 0, z, body, coat)
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
        head = [(0.11 * np.cos(a), middle + 0.15 * np.sin(a)) for a in ANGLES]
        self.plate(name, x, 0, z, head, skin)
        hat: Color = (40, 32, 28)
        if seat:
            hat = self.pick([(30, 26, 24), (96, 66, 40), (200, 200, 196)], 8)
        low, high = middle + 0.03, middle + 0.16
        self.plate(name, x, 0, z, [(-0.11, low), (0.11, low), (0.07, high), (-0.07, high)], hat)

    def cycle(self, name: str, ridden: bool, x: float, z: float) -> None:
        rng = self.rng
        across, heavy = rng.random() < 0.5, name == "motorcycle"
        color = self.pick(PAINTS[:1] + PAINTS[3:5] if heavy else LIVERIES, 8)
        self.drop_shadow(x, z, 0.8 if across else 0.3, 0.4)
        if across:
            self._cycle_across(name, heavy, color, x, z)
        else:
            half, tyre = (0.32, 0.09) if heavy else (0.09, 0.06)
            wheel = [(-tyre, 0), (tyre, 0), (0.06, 0.7), (-0.06, 0.7)]
            self.plate(name, x, 0, z, wheel, (26, 26, 28))
            body = [(-half * 0.7, 0.4), (half * 0.7, 0.4), (half, 0.9), (-half, 0.9)]
            self.plate(name, x, 0, z, body, color)
            bar = 0.4 if heavy else 0.3
            self.plate(name, x, 0, z, rect(-bar, 0.95, bar, 1.03), (40, 40, 42))
        if ridden:
            for foot in (-0.18, 0.18):
                leg = [(foot - 0.07, 0.3), (foot + 0.07, 0.3), (0.16, 0.95), (-0.16, 0.95)]
                self.plate("rider", x, 0, z, leg, self.pick(CLOTHES))
            self.person("rider", 0.9, x, z)

    def _cycle_across(self, name: str, heavy: bool, color: Color, x: float, z: float) -> None:
        r = 0.31 if heavy else 0.34
        front, back = x - 0.55, x + 0.55
        hull = [(-0.55 - r, r), (-0.55, 0), (0.55, 0), (0.55 + r, r)]
        hull += [(0.6, 1.0), (0.2, 0.95), (-0.3, 0.95), (-0.55, 2 * r)]
        self.stamp(self.project(np.array([(x + dx, y, z) for dx, y in hull])), ID[name])
        thick = max(1, int(self.focal / z * (0.12 if heavy else 0.05)))
        tyre, radius = (*self.lit((26, 26, 28), z), ID[name]), round(self.focal / z * r) + 1
        for hub in (front, back):
            u, v = self.project(np.array([hub, r, z]))
            cv2.circle(self.canvas, (round(u), round(v)), radius, tyre, thick)
        frame = [(front, r), (x - 0.15, 0.85), (x + 0.4, 0.8), (x, r), (front, r)]
        frame += [(x + 0.4, 0.8), (back, r), (x + 0.45, 1.05)]
        line = np.rint(self.project(np.array([(a, b, z) for a, b in frame]))).astype(np.int32)
        cv2.polylines(self.canvas, [line], False, (*self.lit(color, z), ID[name]), thick)
        if heavy:
            tank = [(-0.45, 0.4), (0.4, 0.35), (0.5, 0.85), (0.1, 0.95), (-0.5, 0.8)]
            self.plate(name, x, 0, z, tank, color)

    def pole(self, top: float, side: int, z: float) -> float:
        x = self.beside(side, 0.15)
        color = self.pick([(86, 90, 92), (120, 122, 120), (58, 66, 60)], 6)
        # A pole is at least a pixel wide however far it is.
        width = max(0.085, 0.55 * z / self.focal)
        self.plate("pole", x, 0, z, rect(-width, 0, width, top), color)
        if top > 4.4:
            arm = x - side * 1.3
            corners = [(x, top, z), (arm, top + 0.1, z), (arm, top - 0.08, z), (x, top - 0.15, z)]
            self.quad(corners, "pole", color)
        return x

    def sign(self, side: int, z: float) -> None:
        x, y, r = self.pole(2.9, side, z), 2.6, self.rng.uniform(0.36, 0.55)
        kind = self.rng.integers(3)
        triangle = np.array([np.pi / 2, 7 * np.pi / 6, 11 * np.pi / 6])
        square = np.pi / 4 + np.pi / 2 * np.arange(4)
        corners = [ANGLES, triangle, square][kind]
        warning: tuple[Color, Color] = ((190, 32, 36), (236, 234, 228))
        notice: tuple[Color, Color] = ((26, 70, 150), (40, 90, 170))
        rim, field = [warning, warning, notice][kind]
        for size, color in ((r, rim), (0.66 * r, field)):
            outline = [(size * np.cos(a), size * np.sin(a)) for a in corners]
            self.plate("traffic sign", x, y, z - 0.05, outline, color)

    def light(self, side: int, z: float) -> None:
        x = self.pole(3.6, side, z)
        x, y = x - side * 0.1, 2.9
        self.plate("traffic light", x, y, z - 0.05, rect(-0.24, -0.6, 0.24, 0.6), (34, 36, 34))
        lit = self.rng.integers(3)
        lamp_outline = [(0.13 * np.cos(a), 0.13 * np.sin(a)) for a in ANGLES]
        for lamp, color in enumerate([(240, 50, 40), (244, 190, 40), (60, 220, 110)]):
            shown: Color = color if lamp == lit else tuple(0.3 * c for c in color)
            height = y + 0.35 * (1 - lamp)
            self.plate("traffic light", x, height, z - 0.05, lamp_outline, shown)
