"""Colours of a person, pixel by pixel, from where the pixel lies on the average head.

Because the position is the average head's (metres, not the posed one), brows, beards, freckles and necklines stay on
the skin through every face shape, expression and turn. Colours are sRGB, 0..1.
"""

import numpy as np

from iy.studio.hair import inside_beard, inside_hairline
from iy.studio.mesh import (
    BEARD,
    CLOTH,
    EYE,
    FRAME,
    HAIR,
    LASH,
    SKIN,
    TEETH,
    TONGUE,
    Floats,
    Ints,
    Template,
    noise,
    sample,
    smoothstep,
)
from iy.studio.people import Person
from iy.studio.shots import Shot

EYE_X, EYE_Z, EYE_FRONT = 0.0313, 0.7363, -0.1334  # of the average head, metres
IRIS, PUPIL = 0.0074, 0.0031  # radius, metres
CLOTHS = {
    "white": (0.92, 0.92, 0.90),
    "black": (0.07, 0.07, 0.08),
    "red": (0.80, 0.08, 0.10),
    "yellow": (0.95, 0.78, 0.10),
    "green": (0.10, 0.52, 0.22),
    "blue": (0.12, 0.28, 0.78),
    "pink": (0.96, 0.52, 0.70),
}


def mix(colour: Floats, tint: object, weight: Floats) -> Floats:
    """Blend (n, 3) towards a tint, (3,) or (n, 3), by weight (n,)."""
    w = weight[:, None]
    return (colour * (1 - w) + np.asarray(tint, np.float32) * w).astype(np.float32)


def paint(
    template: Template, person: Person, shot: Shot, point: Floats, uv: Floats, region: Ints
) -> tuple[Floats, Floats]:
    """Colour (n, 3) and shininess (n,), 0..1, at average-head points (n, 3), texture uv (n, 2), region (n,)."""
    colour = np.zeros((len(point), 3), np.float32)
    shine = np.full(len(point), 0.10, np.float32)
    on = region == SKIN
    colour[on] = _skin(template, person, point[on], uv[on])
    cloth = np.zeros(len(point), bool)
    cloth[on], dressed = _clothes(shot, point[on])
    colour[cloth] = dressed
    worn = region == CLOTH
    colour[worn] = _collar(shot, point[worn])
    shine[cloth | worn] = 0.03
    for kind, tint, gloss in (
        (TEETH, (0.93, 0.92, 0.88), 0.25),
        (TONGUE, (0.80, 0.34, 0.36), 0.2),
        (LASH, (0.06, 0.05, 0.05), 0.0),
        (FRAME, person.frame_rgb, 0.5),
    ):
        colour[region == kind], shine[region == kind] = tint, gloss
    hair, beard, eye = region == HAIR, region == BEARD, region == EYE
    colour[hair], shine[hair] = _strands(person, point[hair]), 0.22
    colour[beard], shine[beard] = _whiskers(person, point[beard]), 0.05
    colour[eye], shine[eye] = _eyes(person, point[eye]), 0.55
    return colour, shine


def _skin(template: Template, person: Person, point: Floats, uv: Floats) -> Floats:
    skin = np.asarray(person.skin, np.float32)
    colour = np.tile(skin, (len(point), 1)) * (1 + 0.05 * (noise(point, 0.008, person.seed % 997) - 0.5)[:, None])
    colour = mix(colour, skin * [1.02, 0.68, 0.66], _blush(point) * (0.22 + 0.5 * person.blush))
    colour = _marks(person, point, colour)
    colour = _age(person, point, colour)
    masks = {name: sample(mask, uv) for name, mask in template.masks.items()}
    colour = mix(colour, person.lips, smoothstep(0.15, 0.7, masks["lips"]))
    lid = masks["eyelids"] * (0.45 if person.gender == "woman" else 0.22)
    colour = mix(colour, skin * 0.45, lid)
    colour = mix(colour, (0.22, 0.04, 0.05), smoothstep(0.3, 0.8, masks["inside-mouth"]))
    colour = _brows(person, point, colour)
    face = (masks["lips"] < 0.3) & (masks["inside-mouth"] < 0.3)
    growth = inside_beard(point, person.beard) * face * (0.55 if person.beard == "stubble" else 0.9)
    speckle = 0.65 + 0.35 * noise(point, 0.0022, 21) if person.beard == "stubble" else 1.0
    colour = mix(colour, _beard_rgb(person), (growth * speckle).astype(np.float32))
    inside = inside_hairline(point, person.hair, person.hairline) + 0.004 * (noise(point, 0.004, 4) - 0.5)
    grown = smoothstep(-0.002, 0.004, inside) * (masks["ears"] < 0.5) * (0.6 if person.hair == "receding" else 0.95)
    return mix(colour, _strands(person, point) * 0.85, grown.astype(np.float32))


def _blush(point: Floats) -> Floats:
    x, z = abs(point[:, 0]), point[:, 2]
    cheek = np.exp(-(((x - 0.042) / 0.018) ** 2) - ((z - 0.695) / 0.016) ** 2)
    nose = np.exp(-((x / 0.014) ** 2) - ((z - 0.698) / 0.012) ** 2) * (point[:, 1] < -0.13)
    return (np.maximum(cheek, 0.6 * nose) * (point[:, 1] < -0.08)).astype(np.float32)


def _marks(person: Person, point: Floats, colour: Floats) -> Floats:
    """Freckles over nose and cheeks, and moles."""
    dark = np.asarray(person.skin) * [0.66, 0.50, 0.42]
    if person.freckles:
        where = np.exp(-((point[:, 0] / 0.06) ** 2) - ((point[:, 2] - 0.71) / 0.028) ** 2)
        spots = smoothstep(0.60, 0.74, noise(point, 0.0034, person.seed % 991)) * where
        colour = mix(colour, dark, (spots * person.freckles * 0.8 * (point[:, 1] < -0.08)).astype(np.float32))
    for x, z, radius in person.moles:
        far = np.hypot(point[:, 0] - x, point[:, 2] - z)
        colour = mix(
            colour, dark * 0.5, (smoothstep(radius, radius * 0.7, far) * (point[:, 1] < -0.08)).astype(np.float32)
        )
    return colour


def _age(person: Person, point: Floats, colour: Floats) -> Floats:
    """Forehead lines, crow's feet, bags under the eyes, folds from nose to mouth."""
    if person.wrinkles < 0.05:
        return colour
    x, y, z = abs(point[:, 0]), point[:, 1], point[:, 2]
    wave = z + 0.003 * np.cos(x * 60) + 0.002 * noise(point, 0.02, person.seed % 983)
    lines = (
        np.clip(np.cos(wave * 2 * np.pi / 0.0105) - 0.55, 0, 1)
        * 2
        * smoothstep(0.768, 0.774, z)
        * smoothstep(0.803, 0.795, z)
        * smoothstep(0.05, 0.035, x)
    )
    fold_x = np.interp(z, [0.650, 0.668, 0.690, 0.700], [0.036, 0.034, 0.023, 0.018])
    fold = np.exp(-(((x - fold_x) / 0.0026) ** 2)) * smoothstep(0.648, 0.66, z) * smoothstep(0.703, 0.695, z)
    feet = (
        np.clip(np.cos(np.arctan2(z - EYE_Z, x - 0.045) * 9) - 0.4, 0, 1)
        * smoothstep(0.052, 0.056, x)
        * smoothstep(0.069, 0.062, x)
        * (abs(z - EYE_Z) < 0.014)
    )
    bag = np.exp(-(((x - EYE_X) / 0.016) ** 2) - ((z - (EYE_Z - 0.0185)) / 0.004) ** 2)
    dark = np.clip(
        np.maximum.reduce([0.55 * lines, 0.6 * fold, 0.7 * feet, 0.55 * bag]) * (y < -0.07) * person.wrinkles, 0, 0.75
    )
    return mix(colour, np.asarray(person.skin) * [0.62, 0.50, 0.45], dark.astype(np.float32))


def _brows(person: Person, point: Floats, colour: Floats) -> Floats:
    out = abs(point[:, 0]) - 0.0115  # metres from the inner end
    t = out / person.brow_length  # 0 inner end .. 1 outer end
    middle = (
        EYE_Z + 0.0185 + person.brow_height + person.brow_slant * out + person.brow_arch * (1 - (2.2 * (t - 0.55)) ** 2)
    )
    half = 0.0036 * person.brow_thickness * np.interp(t, [0, 0.15, 0.6, 1], [0.75, 1, 0.8, 0.25])
    inside = (
        smoothstep(half + 0.0012, half - 0.0008, abs(point[:, 2] - middle))
        * smoothstep(-0.03, 0.04, t)
        * smoothstep(1.03, 0.95, t)
    )
    return mix(colour, person.brow_rgb, (inside * 0.9 * (point[:, 1] < -0.085)).astype(np.float32))


def _beard_rgb(person: Person) -> Floats:
    dark = 0.75 if person.hair_colour in ("blond", "red", "grey", "white") else 0.9
    return np.asarray(person.hair_rgb, np.float32) * dark


def _whiskers(person: Person, point: Floats) -> Floats:
    return _beard_rgb(person) * (0.7 + 0.6 * noise(point * [1, 1, 0.4], 0.003, 31))[:, None]


def _strands(person: Person, point: Floats) -> Floats:
    """Hair colour with streaks along the fall of the hair (or curls)."""
    if person.hair == "afro":
        streak = 0.45 + 0.9 * noise(point, 0.0065, 5)
    else:
        around = np.stack([np.arctan2(point[:, 0], -0.035 - point[:, 1]), 0 * point[:, 0], point[:, 2] * 0.6], 1)
        streak = 0.72 + 0.55 * noise(around, 0.055, person.seed % 977)
    line = (
        np.exp(-(((point[:, 0] - person.parting) / 0.0022) ** 2))
        * (point[:, 1] < -0.02)
        * (point[:, 2] > 0.78)
        * (person.hair in ("short", "bob", "long", "bun"))
    )
    return (np.asarray(person.hair_rgb) * streak[:, None] * (1 - 0.35 * line[:, None])).astype(np.float32)


def _eyes(person: Person, point: Floats) -> Floats:
    far = np.sqrt((abs(point[:, 0]) - EYE_X) ** 2 + (point[:, 2] - EYE_Z) ** 2)
    front = point[:, 1] < -0.117
    colour = np.tile(np.array([0.93, 0.92, 0.90], np.float32), (len(point), 1))
    colour = mix(colour, np.asarray(person.iris), smoothstep(IRIS, IRIS - 0.0008, far) * front)
    colour = mix(
        colour, np.asarray(person.iris) * 0.3, np.exp(-(((far - IRIS) / 0.0009) ** 2)).astype(np.float32) * front
    )
    return mix(colour, (0.02, 0.02, 0.02), smoothstep(PUPIL, PUPIL - 0.0008, far) * front)


def _clothes(shot: Shot, point: Floats) -> tuple[np.ndarray, Floats]:
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


def _collar(shot: Shot, point: Floats) -> Floats:
    tint = (0.95, 0.95, 0.95) if shot.garment == "suit" else CLOTHS[shot.garment_colour]
    shade = 1.0 if shot.garment == "shirt" else 0.9
    return np.asarray(tint, np.float32) * shade * (0.92 + 0.16 * noise(point, 0.01, 8))[:, None]
