"""A name badge at the bottom of the picture with one word of `iy.lexicon.WORDS`.

Letters are strokes on a grid four wide and six high, drawn by their distance from each pixel: no font is needed, and
the edges are as soft as the picture's.
"""

from functools import cache

import numpy as np

from iy.studio.light import GAMMA, Light
from iy.studio.mesh import Floats, smoothstep
from iy.studio.shots import Shot

# Pairs of digits are points, column 0..4 and row 0..6 from the top left; spaces lift the pen.
STROKES = {
    "A": "062046 1434",
    "B": "00063645443303 3342413000",
    "C": "4130100105163645",
    "D": "0020414526060000",
    "E": "40000646 0333",
    "F": "400006 0333",
    "G": "413010010516364543 4323",
    "H": "0006 4046 0343",
    "I": "2026",
    "J": "4045361605",
    "K": "0006 4003 1346",
    "L": "000646",
    "M": "0600244046",
    "N": "06004640",
    "O": "1030414536160501 0110",
    "P": "06003041423303",
    "Q": "1030414536160501 0110 2446",
    "R": "06003041423303 2346",
    "S": "413010010213334445361605",
    "T": "0040 2026",
    "U": "000516364540",
    "V": "002640",
    "W": "0016233640",
    "X": "0046 4006",
    "Y": "002340 2326",
    "Z": "00400646",
}
PLATES = ((0.93, 0.93, 0.90), (0.95, 0.86, 0.40), (0.55, 0.75, 0.92), (0.12, 0.13, 0.16), (0.66, 0.10, 0.12))
DARK = 3  # plates from here on carry white letters
HIGH, PITCH, PEN = 0.108, 0.086, 0.0105  # letter height, step and half a stroke, as shares of the picture's side
MARGIN = 0.026


def hold(picture: Floats, shot: Shot, lamp: Light) -> Floats:
    """The linear picture (side, side, 3) with the shot's badge, if it has a word, in the light of the room."""
    if not shot.word:
        return picture
    side = len(picture)
    rng = np.random.default_rng([shot.seed, 5])
    half_wide, half_high = (PITCH * len(shot.word) - 0.02) / 2 + MARGIN, HIGH / 2 + MARGIN
    right = rng.random() < 0.5
    x0 = 1 - half_wide - 0.012 if right else half_wide + 0.012
    y0, tilt = 1 - half_high - 0.014, np.radians(rng.uniform(-3, 3))
    step = (np.arange(side, dtype=np.float32) + 0.5) / side
    top = int(side * 0.76)
    x, y = np.meshgrid(step - x0, step[top:] - y0)
    x, y = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    kind = int(rng.integers(len(PLATES)))
    ink = (0.96, 0.96, 0.95) if kind >= DARK else (0.05, 0.05, 0.08)
    plate = smoothstep(0.004, -0.004, _outside(x, y, half_wide, half_high))[:, :, None]
    shadow = smoothstep(0.03, -0.01, _outside(x - 0.006, y - 0.010, half_wide, half_high))[:, :, None]
    drawn = smoothstep(PEN + 0.004, PEN - 0.003, _far(shot.word, x, y))[:, :, None]
    colour = np.float32(PLATES[kind]) * (1 - drawn) + np.float32(ink) * drawn
    light = 0.62 * lamp.key + lamp.fill + lamp.ambient
    card = colour**GAMMA * light * (0.92 + 0.10 * (x / half_wide) * (lamp.direction[0]))[:, :, None]
    below = picture[top:] * (1 - 0.55 * shadow)
    return np.concatenate([picture[:top], below * (1 - plate) + card * plate]).astype(np.float32)


def _outside(x: Floats, y: Floats, half_wide: float, half_high: float, corner: float = 0.014) -> Floats:
    """Distance from a rectangle with round corners, negative inside."""
    dx, dy = abs(x) - half_wide + corner, abs(y) - half_high + corner
    return np.hypot(np.clip(dx, 0, None), np.clip(dy, 0, None)) + np.minimum(np.maximum(dx, dy), 0) - corner


def _far(word: str, x: Floats, y: Floats) -> Floats:
    """Distance (h, w) of each place from the nearest stroke of the word, which is centred on (0, 0)."""
    far = np.full(x.shape, 1.0, np.float32)
    for k, letter in enumerate(word):
        left = (k - len(word) / 2) * PITCH + 0.01
        for a, b in segments(letter):
            (ax, ay), (bx, by) = (
                (left + p[0] / 4 * (PITCH - 0.02), p[1] / 6 * (HIGH - 2 * PEN) - HIGH / 2 + PEN) for p in (a, b)
            )
            far = np.minimum(far, _from_segment(x, y, ax, ay, bx, by))
    return far


def _from_segment(x: Floats, y: Floats, ax: float, ay: float, bx: float, by: float) -> Floats:
    long = max((bx - ax) ** 2 + (by - ay) ** 2, 1e-9)
    t = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / long, 0, 1)
    return np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay))


@cache
def segments(letter: str) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
    """The straight pieces of a letter, each from one grid point to another."""
    found = []
    for line in STROKES[letter].split():
        points = [(int(line[k]), int(line[k + 1])) for k in range(0, len(line), 2)]
        found += list(zip(points, points[1:], strict=False))
    return tuple(found)
