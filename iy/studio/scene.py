"""Backdrops: what is behind the person, out of focus."""

import numpy as np
from scipy.ndimage import uniform_filter

from iy.studio.light import GAMMA, Light
from iy.studio.mesh import Floats, noise, smoothstep
from iy.studio.shots import Shot

PLAIN = {
    "white": (0.93, 0.93, 0.92),
    "black": (0.07, 0.07, 0.08),
    "red": (0.78, 0.10, 0.12),
    "yellow": (0.96, 0.80, 0.16),
    "green": (0.16, 0.56, 0.26),
    "blue": (0.16, 0.38, 0.82),
    "purple": (0.50, 0.22, 0.66),
}


def backdrop(shot: Shot, side: int, lamp: Light) -> Floats:
    """Linear backdrop (side, side, 3), out of focus: made at half the size and blurred."""
    half = -(-side // 2)
    step = (np.arange(half, dtype=np.float32) + 0.5) / half
    x, y = np.meshgrid(step, step)
    shift = (shot.seed % 1000) / 1000
    scene = SCENES.get(shot.backdrop)
    if scene:
        colour = scene(x, y, shift, shot.seed % 4093)
    else:
        glow = 1.06 - 0.34 * np.hypot(x - 0.3 - 0.4 * shift, y - 0.25)
        colour = np.asarray(PLAIN[shot.backdrop], np.float32) * glow[:, :, None]
    tint = lamp.key + lamp.fill + lamp.ambient
    linear = np.clip(colour, 0, 1) ** GAMMA * lamp.backdrop * (0.5 + 0.5 * tint / tint.max()) * 0.8
    soft = uniform_filter(uniform_filter(linear, (3, 3, 1), mode="nearest"), (3, 3, 1), mode="nearest")
    return soft.repeat(2, 0).repeat(2, 1)[:side, :side]


def _layers(y: Floats, stops: list[tuple[float, tuple[float, float, float]]]) -> Floats:
    """A vertical gradient through (height, colour) stops."""
    at = [stop for stop, _ in stops]
    return np.stack([np.interp(y, at, [colour[k] for _, colour in stops]) for k in range(3)], 2).astype(np.float32)


def _field(x: Floats, y: Floats, step: float, seed: int) -> Floats:
    point = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    return noise(point, step, seed).reshape(x.shape)


def _beach(x: Floats, y: Floats, shift: float, seed: int) -> Floats:
    line = 0.46 + 0.08 * shift
    sand = line + 0.18 + 0.03 * np.sin(7 * x + 6 * shift)
    base = _layers(
        y,
        [
            (0, (0.36, 0.66, 0.96)),
            (line - 0.01, (0.80, 0.92, 1.0)),
            (line, (0.06, 0.42, 0.66)),
            (line + 0.18, (0.22, 0.72, 0.78)),
            (1, (0.22, 0.72, 0.78)),
        ],
    )
    beach = np.array([0.93, 0.82, 0.58], np.float32) * (0.92 + 0.16 * _field(x, y, 0.04, seed))[:, :, None]
    foam = smoothstep(0.02, 0.0, abs(y - sand))[:, :, None]
    base = np.where((y > sand)[:, :, None], beach, base)
    return base * (1 - foam) + foam * np.float32(0.97)


def _forest(x: Floats, y: Floats, shift: float, seed: int) -> Floats:
    leaves = _field(x, y, 0.09, seed) * 0.6 + _field(x, y, 0.04, seed + 1) * 0.4
    colour = np.array([0.16, 0.40, 0.12]) + (leaves[:, :, None] - 0.5) * np.array([0.5, 0.75, 0.25])
    trunk = abs((x * 4 + shift + 0.04 * np.sin(5 * y)) % 1 - 0.5) < 0.10
    colour[trunk & (y > 0.1)] = np.array([0.27, 0.17, 0.10])
    return (colour * (1.25 - 0.5 * y[:, :, None])).astype(np.float32)


def _city(x: Floats, y: Floats, shift: float, seed: int) -> Floats:
    colour = _layers(y, [(0, (0.03, 0.03, 0.12)), (0.6, (0.20, 0.10, 0.30)), (1, (0.25, 0.14, 0.30))])
    columns = 7
    column = np.floor(x * columns + shift).astype(int)
    roof = 0.12 + 0.5 * np.random.default_rng(seed).random(columns + 2)[column]
    house = y > roof
    colour[house] = (0.05, 0.05, 0.08)
    row, inner = np.floor(y * 14).astype(int), (x * columns + shift) % 1
    lamps = np.random.default_rng(seed + 1).random((columns + 2, 16, 2))
    window = np.floor(inner * 2).astype(int)
    lit = (
        house
        & (lamps[column, row, window] > 0.45)
        & (abs((inner * 2) % 1 - 0.5) < 0.30)
        & (abs((y * 14) % 1 - 0.5) < 0.32)
    )
    colour[lit] = (1.0, 0.82, 0.35)
    return colour


def _bricks(x: Floats, y: Floats, shift: float, seed: int) -> Floats:
    row = np.floor(y * 11 + shift)
    along = x * 5 + shift + 0.5 * (row % 2)
    tint = np.random.default_rng(seed).random((24, 16))[row.astype(int) % 24, np.floor(along).astype(int) % 16]
    colour = np.array([0.62, 0.27, 0.18], np.float32) * (0.8 + 0.4 * tint)[:, :, None]
    mortar = (abs((y * 11 + shift) % 1 - 0.5) > 0.41) | (abs(along % 1 - 0.5) > 0.455)
    return np.where(mortar[:, :, None], np.array([0.82, 0.79, 0.74], np.float32), colour).astype(np.float32)


def _stripes(x: Floats, y: Floats, shift: float, seed: int) -> Floats:
    band = smoothstep(0.20, 0.30, abs((x * 6 + shift) % 1 - 0.5))
    return (
        np.array([0.95, 0.92, 0.84]) * (1 - band[:, :, None]) + np.array([0.10, 0.52, 0.56]) * band[:, :, None]
    ).astype(np.float32)


SCENES = {"beach": _beach, "forest": _forest, "city": _city, "bricks": _bricks, "stripes": _stripes}
