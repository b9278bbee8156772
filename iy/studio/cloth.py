"""Colours of garments, pixel by pixel, from where the pixel lies on the average body. Colours are sRGB, 0..1."""

import numpy as np

from iy.studio.mesh import Floats, mix, noise, smoothstep
from iy.studio.shots import Shot

CLOTHS = {
    "white": (0.92, 0.92, 0.90),
    "black": (0.07, 0.07, 0.08),
    "red": (0.80, 0.08, 0.10),
    "yellow": (0.95, 0.78, 0.10),
    "green": (0.10, 0.52, 0.22),
    "blue": (0.12, 0.28, 0.78),
    "pink": (0.96, 0.52, 0.70),
}


def clothes(shot: Shot, point: Floats) -> tuple[np.ndarray, Floats]:
    """Which body points (n,) are covered, and the colour (m, 3) of those m that are."""
    front = point[:, 1] < -0.02
    low = _neckline(shot.garment, abs(point[:, 0]), front)
    covered = point[:, 2] < low
    x, z, front, edge = abs(point[covered, 0]), point[covered, 2], front[covered], (low - point[:, 2])[covered]
    colour = np.tile(np.asarray(CLOTHS[shot.garment_colour], np.float32), (len(x), 1))
    if shot.garment == "suit":
        open_to = 0.50 * np.clip(z - 0.43, 0, 1)
        bib = front & (x < 0.008 + open_to)
        colour[front & ~bib & (x < 0.034 + open_to)] *= 0.72  # lapels
        colour[bib] = (0.93, 0.93, 0.93)
        colour[bib & (x < 0.011)] = (0.16, 0.06, 0.10)  # tie
    elif shot.garment == "shirt":
        colour[(x < 0.0035) & front] *= 0.6  # button placket
    elif shot.garment == "hoodie":
        colour[(abs(x - 0.030) < 0.0035) & front & (z < 0.53)] = (0.95, 0.95, 0.93)  # strings
    else:
        hem = smoothstep(0.010, 0.004, edge) * (shot.garment != "turtleneck")
        colour = mix(colour, colour * 0.7, hem.astype(np.float32))
    return covered, colour


def _neckline(garment: str, x: Floats, front: np.ndarray) -> Floats:
    """Height (n,) below which cloth covers the body, by distance x (n,) from the middle and side of the body."""
    if garment == "t-shirt":
        return 0.567 - 0.030 * front * smoothstep(0.075, 0.0, x)
    if garment == "shirt":
        return np.where(front, np.minimum(0.575, 0.520 + 2.2 * 0.55 * np.clip(x, 0, 0.05)), 0.575)
    if garment == "suit":
        return np.where(front, 0.565, 0.575)
    if garment == "tank top":
        middle = 0.505 + 0.35 * np.clip(x - 0.03, 0, 1) - 0.02 * ~front
        return np.where(x > 0.098, 0.43, np.where(x > 0.062, 0.62, middle))  # arm, strap, middle
    return np.full(len(x), {"turtleneck": 0.606, "hoodie": 0.560}[garment], np.float32)


def collar(shot: Shot, point: Floats) -> Floats:
    tint = (0.95, 0.95, 0.95) if shot.garment == "suit" else CLOTHS[shot.garment_colour]
    shade = 1.0 if shot.garment == "shirt" else 0.9
    return np.asarray(tint, np.float32) * shade * (0.92 + 0.16 * noise(point, 0.01, 8))[:, None]
