"""Colours of skin, hair and eyes, pixel by pixel, from where the pixel lies on the average head. sRGB, 0..1."""

import numpy as np

from iy.studio.hair import inside_beard, inside_hairline
from iy.studio.mesh import Floats, Template, mix, noise, sample, smoothstep
from iy.studio.people import Person

EYE_X, EYE_Z, EYE_FRONT = 0.0313, 0.7363, -0.1334  # of the average head, metres
IRIS, PUPIL = 0.0071, 0.0028  # radius, metres
SKIN_SHINE, HAIR_SHINE = 0.10, 0.20


def skin(template: Template, person: Person, point: Floats, uv: Floats) -> Floats:
    base = np.asarray(person.skin, np.float32)
    colour = _complexion(person, point, base)
    colour = _marks(person, point, colour)
    colour = _age(person, point, colour)
    masks = {name: sample(mask, uv) for name, mask in template.masks.items()}
    colour = mix(colour, person.lips, 0.88 * smoothstep(0.10, 0.80, masks["lips"]))
    lid = masks["eyelids"] * (0.42 if person.gender == "woman" else 0.25)
    colour = mix(colour, base * [0.52, 0.42, 0.40], lid)
    nostril = (point[:, 2] > 0.679)[:, None]  # as skin, and dark by itself; some noses show a little of it outside
    inner = np.where(nostril, base * [0.86, 0.72, 0.68], (0.25, 0.07, 0.07))
    colour = mix(colour, inner, smoothstep(0.3, 0.8, masks["inside-mouth"]))
    colour = _brows(person, point, colour)
    face = (masks["lips"] < 0.3) & (masks["inside-mouth"] < 0.3)
    growth = _whiskered(person, point) * face * (0.52 if person.beard == "stubble" else 0.8)
    colour = mix(colour, _beard_rgb(person), growth.astype(np.float32))
    grown = _growth(person, point) * (masks["ears"] < 0.5) * (0.55 if person.hair == "receding" else 0.92)
    return mix(colour, strands(person, point) * 0.9, grown)


def _complexion(person: Person, point: Floats, base: Floats) -> Floats:
    """Bare skin: pores, blotches, redder cheeks, nose and ears, yellower forehead, darker under the eyes."""
    fine, blotch = noise(point, 0.0024, person.seed % 997), noise(point, 0.011, person.seed % 859)
    colour = base * (1 + 0.09 * (fine - 0.5) + 0.06 * (blotch - 0.5))[:, None]
    colour = mix(colour, base * [1.02, 0.86, 0.84], 0.5 * smoothstep(0.45, 0.9, blotch))
    colour = mix(colour, base * [1.02, 0.72, 0.68], _blush(point) * (0.22 + 0.40 * person.blush))
    x, z = abs(point[:, 0]), point[:, 2]
    socket = np.exp(-(((x - EYE_X) / 0.020) ** 2) - ((z - EYE_Z + 0.004) / 0.015) ** 2) * (point[:, 1] < -0.09)
    return mix(colour, base * [0.74, 0.64, 0.62], (0.38 * socket).astype(np.float32))


def _growth(person: Person, point: Floats) -> Floats:
    """How much hair stands there (n,), 0..1: strands of uneven length make the hairline."""
    inside = inside_hairline(point, person.hair, person.hairline)
    uneven = 0.007 * (noise(point * [1, 0.5, 0.25], 0.0020, 4) - 0.5) + 0.005 * (noise(point, 0.009, 14) - 0.5)
    return smoothstep(-0.003, 0.006, inside + uneven * (0.3 + 0.7 * smoothstep(0.765, 0.80, point[:, 2])))


def rooted(person: Person, point: Floats) -> tuple[Floats, Floats]:
    """Colour (n, 3) and shine (n,) of hair on the head, which thins out to skin at the hairline."""
    grown = _growth(person, point)
    scalp = np.tile(np.asarray(person.skin, np.float32) * np.float32([0.92, 0.88, 0.86]), (len(point), 1))
    hair, shine = locks(person, point)
    return mix(scalp, hair, grown), shine * grown


def locks(person: Person, point: Floats) -> tuple[Floats, Floats]:
    """Colour (n, 3) and shine (n,) of hair: the light strands shine, those between them do not."""
    hair = strands(person, point)
    light = hair.sum(1) / (sum(person.hair_rgb) + 1e-6)
    return hair, (HAIR_SHINE * np.clip(2.2 * light - 1.4, 0.05, 2)).astype(np.float32)


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
        colour = mix(colour, dark, (spots * person.freckles * 0.55 * (point[:, 1] < -0.08)).astype(np.float32))
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
        np.clip(np.cos(wave * 2 * np.pi / 0.0105), 0, 1)
        * noise(point * [0.4, 1, 1], 0.012, person.seed % 971)
        * 1.6
        * smoothstep(0.768, 0.774, z)
        * smoothstep(0.803, 0.795, z)
        * smoothstep(0.05, 0.035, x)
    )
    fold_x = np.interp(z, [0.650, 0.668, 0.690, 0.700], [0.036, 0.034, 0.023, 0.018])
    fold = np.exp(-(((x - fold_x) / 0.0036) ** 2)) * smoothstep(0.648, 0.66, z) * smoothstep(0.703, 0.695, z)
    feet = (
        np.clip(np.cos(np.arctan2(z - EYE_Z, x - 0.045) * 9) - 0.4, 0, 1)
        * smoothstep(0.052, 0.056, x)
        * smoothstep(0.069, 0.062, x)
        * (abs(z - EYE_Z) < 0.014)
    )
    bag = np.exp(-(((x - EYE_X) / 0.016) ** 2) - ((z - (EYE_Z - 0.0185)) / 0.004) ** 2)
    deep = np.maximum.reduce([0.26 * lines, 0.42 * fold, 0.30 * feet, 0.42 * bag])
    dark = np.clip(deep * (y < -0.07) * person.wrinkles, 0, 0.5)
    return mix(colour, np.asarray(person.skin) * [0.70, 0.56, 0.50], dark.astype(np.float32))


def _brows(person: Person, point: Floats, colour: Floats) -> Floats:
    out = abs(point[:, 0]) - 0.0115  # metres from the inner end
    t = out / person.brow_length  # 0 inner end .. 1 outer end
    middle = (
        EYE_Z + 0.0185 + person.brow_height + person.brow_slant * out + person.brow_arch * (1 - (2.2 * (t - 0.55)) ** 2)
    )
    half = 0.0036 * person.brow_thickness * np.interp(t, [0, 0.15, 0.6, 1], [0.75, 1, 0.8, 0.25])
    lean = np.stack([point[:, 0] * 1.6 + np.sign(point[:, 0]) * point[:, 2], 0.15 * point[:, 1], 0.15 * point[:, 2]], 1)
    hairs = noise(lean, 0.0016, person.seed % 967)
    inside = (
        smoothstep(half + 0.0022, half - 0.0022, abs(point[:, 2] - middle) + 0.0022 * (hairs - 0.5))
        * smoothstep(-0.08, 0.16, t)
        * smoothstep(1.06, 0.86, t)
        * (0.62 + 0.38 * hairs)
    )
    return mix(colour, person.brow_rgb, (inside * 0.95 * (point[:, 1] < -0.085)).astype(np.float32))


def _beard_rgb(person: Person) -> Floats:
    dark = 0.75 if person.hair_colour in ("blond", "red", "grey", "white") else 0.9
    return np.asarray(person.hair_rgb, np.float32) * dark


def _whiskered(person: Person, point: Floats) -> Floats:
    """How much of the skin whiskers hide (n,), 0..1: sparse towards the edge."""
    if person.beard == "none":
        return np.zeros(len(point), np.float32)
    grown = inside_beard(point, person.beard)
    return smoothstep(0.15, 0.95, grown * (0.65 + 0.7 * noise(point * [1, 0.5, 0.5], 0.0020, 21)))


def whiskers(person: Person, point: Floats) -> Floats:
    """Colour (n, 3) of a beard that stands off the skin, which shows between the hairs at its edge."""
    hair = _beard_rgb(person) * (0.65 + 0.8 * noise(point * [1, 1, 0.35], 0.0026, 31))[:, None]
    skin = np.tile(np.asarray(person.skin, np.float32) * np.float32(0.85), (len(point), 1))
    return mix(skin, hair, _whiskered(person, point))


def strands(person: Person, point: Floats) -> Floats:
    """Hair colour with streaks along the fall of the hair (or curls), coarse locks and fine strands."""
    if person.hair == "afro":
        streak = 0.50 + 0.5 * noise(point, 0.0075, 5) + 0.45 * noise(point, 0.0034, 6)
        return np.asarray(person.hair_rgb, np.float32) * streak[:, None]
    angle = np.arctan2(point[:, 0], -0.035 - point[:, 1])
    along = np.stack([angle + 0.10 * np.sin(9 * point[:, 2] + 40 * person.parting), 0 * angle, point[:, 2]], 1)
    lock, strand = noise(along, 0.075, person.seed % 977), noise(along * [1, 1, 0.5], 0.024, person.seed % 953)
    streak = 0.66 + 0.42 * lock + 0.42 * strand * (0.5 + lock)
    line = (
        np.exp(-(((point[:, 0] - person.parting) / 0.0022) ** 2))
        * (point[:, 1] < -0.02)
        * (point[:, 2] > 0.78)
        * (person.hair in ("short", "bob", "long", "bun"))
    )
    tint = np.asarray(person.hair_rgb, np.float32)
    depth = float(np.clip(1.6 * (tint.max() - tint.min()) / tint.max(), 0, 1))  # grey hair has grey strands
    warm = mix(np.tile(tint, (len(point), 1)), tint * [1.18, 1.02, 0.86], depth * smoothstep(0.4, 0.9, strand))
    return (warm * (streak * (1 - 0.35 * line))[:, None]).astype(np.float32)


def eyes(person: Person, point: Floats) -> tuple[Floats, Floats]:
    """Colour (n, 3) and shine (n,); the cornea mirrors the lamp, the white hardly."""
    across, up = abs(point[:, 0]) - EYE_X, point[:, 2] - EYE_Z
    far, angle = np.hypot(across, up), np.arctan2(up, across)
    front = (point[:, 1] < -0.117).astype(np.float32)
    white = np.float32([0.74, 0.71, 0.69]) * (1 - 0.25 * smoothstep(0.001, 0.007, up))[:, None]  # the lid shades it
    colour = mix(white, white * [0.98, 0.80, 0.76], smoothstep(0.008, 0.0135, far))
    iris = np.asarray(person.iris, np.float32) * 1.15
    fibre = 0.85 + 0.3 * noise(np.stack([np.cos(angle), np.sin(angle), 60 * far], 1), 0.25, person.seed % 947)
    ring = fibre * (0.75 + 0.65 * np.exp(-(((far - 0.0040) / 0.0014) ** 2)))  # lighter between pupil and rim
    ring = ring * (1 - 0.55 * smoothstep(IRIS - 0.0017, IRIS - 0.0002, far))
    colour = mix(colour, np.clip(iris * ring[:, None], 0, 1), smoothstep(IRIS + 0.0002, IRIS - 0.0007, far) * front)
    cornea = smoothstep(IRIS + 0.001, IRIS - 0.001, far) * front
    colour = mix(colour, (0.02, 0.02, 0.02), smoothstep(PUPIL + 0.0002, PUPIL - 0.0006, far) * front)
    return colour, 0.06 + 0.19 * cornea
