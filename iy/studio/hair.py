"""Hair and beards as patches on the average head; they follow every face shape.

The hairline is a curve seen from the side: at depth y (metres, face at -.15), hair grows above the height `line(y)`.
"""

from functools import cache, lru_cache

import numpy as np
from scipy.ndimage import uniform_filter

from iy.studio.mesh import BEARD, HAIR, LOCK, Floats, Ints, Patch, Template, noise, smoothstep
from iy.studio.patches import follow, grid_triangles, shell

LINE_Y = np.array([-0.16, -0.135, -0.118, -0.10, -0.082, -0.070, -0.05, -0.015, 0, 0.02, 0.05, 0.08])
LINE_Z = np.array([0.812, 0.808, 0.800, 0.783, 0.752, 0.722, 0.708, 0.706, 0.690, 0.668, 0.655, 0.650])
NAPE = -0.02  # depth behind which the hairline does not move with the forehead
THICKNESS = {
    "receding": 0.007,
    "short": 0.013,
    "quiff": 0.013,
    "afro": 0.044,
    "bob": 0.019,
    "long": 0.019,
    "bun": 0.009,
}
REACH = {
    "receding": 0.018,
    "short": 0.022,
    "quiff": 0.02,
    "afro": 0.030,
    "bob": 0.020,
    "long": 0.020,
    "bun": 0.022,
}  # to full thickness
CURTAIN = {"bob": 0.622, "long": 0.47}  # height of the lower end


def inside_hairline(point: Floats, style: str, shift: float) -> Floats:
    """Metres above the hairline (n,), positive where hair grows, at points (n, 3) of the average head."""
    x, y, z = point.T
    front = smoothstep(NAPE, -0.08, y)
    line = np.interp(y, LINE_Y, LINE_Z) + shift * front * smoothstep(0.74, 0.79, z)
    if style == "receding":
        line = line + front * (0.016 + 0.022 * np.exp(-(((abs(x) - 0.042) / 0.018) ** 2)))
    elif style == "bald":
        line = line + 1
    elif style != "bob":  # a peak in the middle, bays above the temples
        line = line + front * 0.009 * np.exp(-(((abs(x) - 0.044) / 0.018) ** 2))
    return (z - line).astype(np.float32)


def frayed(side: int, seen: Ints, region: Ints, point: Floats) -> Floats:
    """How much each seen pixel (n,) of a picture hides what is behind the person: 1, but less where hair ends.

    Loose strands: along the outline a hair pixel stays where the noise at its place on the head is high.
    """
    person = np.zeros((side, side), np.float32)
    person.reshape(-1)[seen] = 1
    around = uniform_filter(person, max(3, side // 28), mode="nearest").reshape(-1)[seen]
    hide = np.ones(len(seen), np.float32)
    edge = np.flatnonzero(((region == HAIR) | (region == LOCK)) & (around < 0.85))
    strand = noise(point[edge] * np.float32([1, 1, 0.5]), 0.0030, 17)
    hide[edge] = smoothstep(0.42, 0.80, around[edge] + 0.42 * (strand - 0.35))
    return hide


def inside_beard(point: Floats, style: str) -> Floats:
    """How strongly a beard grows (n,), 0..1, at points (n, 3) of the average head; the lips are masked elsewhere."""
    x, y, z = abs(point[:, 0]), point[:, 1], point[:, 2]
    over = np.interp(x, [0, 0.012, 0.030, 0.038], [0.688, 0.687, 0.677, 0.664])  # upper and lower edge of a moustache
    under = np.interp(x, [0, 0.015, 0.024, 0.034], [0.6705, 0.671, 0.664, 0.652])
    moustache = (
        smoothstep(0.036, 0.027, x)
        * smoothstep(0.002, -0.003, z - over)
        * smoothstep(-0.001, 0.002, z - under)
        * (y < -0.10)
    )
    chin = smoothstep(0.026, 0.018, x) * smoothstep(0.652, 0.646, z) * smoothstep(0.594, 0.602, z) * (y < -0.09)
    corner = (
        smoothstep(0.004, 0.001, abs(x - 0.0295))
        * smoothstep(0.675, 0.668, z)
        * smoothstep(0.625, 0.635, z)
        * (y < -0.10)
    )
    sides = np.maximum.reduce([moustache, chin, corner])
    edge = np.interp(
        y,
        [-0.155, -0.144, -0.135, -0.11, -0.09, -0.075, -0.06, -0.04],
        [0.645, 0.650, 0.668, 0.677, 0.690, 0.714, 0.720, 0.70],
    )
    jaw = (
        smoothstep(0.003, -0.003, z - edge)
        * smoothstep(0.588, 0.600, z + 0.4 * np.clip(y + 0.08, -1, 0))
        * smoothstep(-0.035, -0.05, y)
    )
    grown = {
        "none": 0 * x,
        "moustache": moustache,
        "goatee": np.maximum(chin, moustache),
        "stubble": np.maximum(jaw, sides),
        "full beard": np.maximum(jaw, sides),
    }
    return grown[style].astype(np.float32)


@lru_cache(maxsize=64)  # nearly every person has their own
def hair_patches(template: Template, style: str, hairline: float, volume: float, parting: float) -> tuple[Patch, ...]:
    """The patches of a hair style; `hairline` metres, `volume` 1 on average, `parting` metres to the viewer's right."""
    if style == "bald":
        return ()
    full, reach = THICKNESS[style] * volume ** (0.5 if style == "afro" else 1), REACH[style]

    def thickness(point: Floats) -> Floats:
        inside = inside_hairline(point, style, hairline)
        lift = full * smoothstep(-0.002, reach, inside)
        if style == "quiff":
            lift = lift + 0.030 * volume * np.exp(
                -(((point[:, 1] + 0.105) / 0.030) ** 2) - (point[:, 0] / 0.045) ** 2
            ) * smoothstep(0.0, 0.018, inside)
        if style == "afro":
            lift = lift * (1 + 0.22 * (noise(point, 0.011, 5) - 0.5)) * (1 - 0.35 * smoothstep(0.74, 0.69, point[:, 2]))
        elif style != "bun":
            lift = lift * (
                1 - 0.25 * np.exp(-(((point[:, 0] - parting) / 0.006) ** 2)) * (point[:, 1] < 0.0)
            ) + 0.0018 * (noise(point * [1, 0.3, 0.6], 0.006, 9) - 0.5)
        return (lift - 0.003 * (inside < 0) - 0.0005).astype(np.float32)

    patches = [shell(template, thickness, HAIR)]
    if style in CURTAIN:
        patches.append(_curtain(template, CURTAIN[style], volume))
    if style == "bun":
        patches.append(_ball(template, np.array([0, -0.035, 0.868 + 0.006 * volume]), 0.030 * volume**0.5))
    return tuple(patches)


def _curtain(template: Template, low: float, volume: float) -> Patch:
    """Hair hanging from the temples round the back of the head down to height `low`."""
    rows, columns = 18, 72
    angle = np.linspace(np.radians(62), np.radians(298), columns)  # from the face's middle, round the back
    height = np.linspace(0.815, low, rows)
    fall = np.linspace(0, 1, rows)[:, None]
    thick = 0.012 * volume
    top = smoothstep(0.83, 0.77, height)[:, None]
    wide = (0.070 + 0.016 * top + thick + 0.012 * fall * (low < 0.6)) + 0.0016 * np.sin(17 * angle)[None]
    deep = (0.088 + 0.018 * top + thick - 0.02 * fall * (low < 0.6)) + 0.0016 * np.sin(23 * angle + 1)[None]
    tuck = 1 - (0.16 if low > 0.6 else 0.0) * smoothstep(0.66, 0.62, height)[:, None]  # a bob curls in
    swing = np.pi + (angle - np.pi)[None] * (1 + 0.10 * smoothstep(0.0, 0.4, fall))  # falls forward beside the face
    x, y = wide * tuck * np.sin(swing), -0.040 - deep * tuck * np.cos(swing)
    place = np.stack([x, y, np.repeat(height[:, None], columns, 1)], 2).reshape(-1, 3).astype(np.float32)
    place[:, 2] += 0.006 * noise(place * [1, 1, 0], 0.008, 2) * np.repeat(fall, columns, 1).ravel() * 2
    near = place.copy()
    near[:, 2] = np.clip(near[:, 2], 0.74, 0.82)
    return follow(template, place, grid_triangles(rows, columns), LOCK, near, 40, smoothstep(0.46, 0.60, place[:, 2]))


def _ball(template: Template, centre: Floats, radius: float) -> Patch:
    rows, columns = 12, 20
    up, round_ = np.meshgrid(np.linspace(0, np.pi, rows), np.linspace(0, 2 * np.pi, columns), indexing="ij")
    ball = np.stack([np.sin(up) * np.cos(round_), np.sin(up) * np.sin(round_), 0.85 * np.cos(up)], 2).reshape(-1, 3)
    place = (centre + radius * ball * (1 + 0.05 * np.sin(6 * round_.ravel() + 4 * up.ravel()))[:, None]).astype(
        np.float32
    )
    near = np.repeat(centre[None], len(place), 0)
    return follow(template, place, grid_triangles(rows, columns), LOCK, near, 40, np.ones(len(place)))


@cache
def beard_patches(template: Template, style: str) -> tuple[Patch, ...]:
    """The layer of a beard that changes the outline; stubble is only painted."""
    lift = {"full beard": 0.008, "goatee": 0.005, "moustache": 0.0034}.get(style)
    if lift is None:
        return ()
    lips = template.mask_at_vertices("lips")

    def thickness(point: Floats) -> Floats:
        grown = inside_beard(point, style)
        if len(point) == len(lips):
            grown = grown * (lips < 0.3)
        return (lift * grown * (0.85 + 0.3 * noise(point, 0.005, 3)) - 0.0016).astype(np.float32)

    return (shell(template, thickness, BEARD, 2),)
