"""Colours of a person, pixel by pixel, from where the pixel lies on the average head.

Because the position is the average head's (metres, not the posed one), brows, beards, freckles and necklines stay on
the skin through every face shape, expression and turn. Colours are sRGB, 0..1.
"""
import numpy as np

from iy.studio.hair import inside_beard, inside_hairline
from iy.studio.mesh import BEARD, CLOTH, EYE, FRAME, HAIR, LASH, SKIN, TEETH, TONGUE, Floats, Ints, Template, noise, sample, smoothstep
from iy.studio.people import Person
from iy.studio.shots import Shot

EYE_X, EYE_Z, EYE_FRONT = .0313, .7363, -.1334   # of the average head, metres
IRIS, PUPIL = .0074, .0031                       # radius, metres
CLOTHS = {"white": (.92, .92, .90), "black": (.07, .07, .08), "red": (.80, .08, .10), "yellow": (.95, .78, .10), "green": (.10, .52, .22),
          "blue": (.12, .28, .78), "pink": (.96, .52, .70)}


def mix(colour: Floats, tint: object, weight: Floats) -> Floats:
    """Blend (n, 3) towards a tint, (3,) or (n, 3), by weight (n,)."""
    w = weight[:, None]
    return (colour * (1 - w) + np.asarray(tint, np.float32) * w).astype(np.float32)


def paint(template: Template, person: Person, shot: Shot, point: Floats, uv: Floats, region: Ints) -> tuple[Floats, Floats]:
    """Colour (n, 3) and shininess (n,), 0..1, at average-head points (n, 3), texture uv (n, 2), region (n,)."""
    colour = np.zeros((len(point), 3), np.float32)
    shine = np.full(len(point), .10, np.float32)
    on = region == SKIN
    colour[on] = _skin(template, person, point[on], uv[on])
    cloth = np.zeros(len(point), bool)
    cloth[on], dressed = _clothes(shot, point[on])
    colour[cloth] = dressed
    worn = region == CLOTH
    colour[worn] = _collar(shot, point[worn])
    shine[cloth | worn] = .03
    for kind, tint, gloss in ((TEETH, (.93, .92, .88), .25), (TONGUE, (.80, .34, .36), .2), (LASH, (.06, .05, .05), 0.), (FRAME, person.frame_rgb, .5)):
        colour[region == kind], shine[region == kind] = tint, gloss
    hair, beard, eye = region == HAIR, region == BEARD, region == EYE
    colour[hair], shine[hair] = _strands(person, point[hair]), .22
    colour[beard], shine[beard] = _whiskers(person, point[beard]), .05
    colour[eye], shine[eye] = _eyes(person, point[eye]), .55
    return colour, shine


def _skin(template: Template, person: Person, point: Floats, uv: Floats) -> Floats:
    skin = np.asarray(person.skin, np.float32)
    colour = np.tile(skin, (len(point), 1)) * (1 + .05 * (noise(point, .008, person.seed % 997) - .5)[:, None])
    colour = mix(colour, skin * [1.02, .68, .66], _blush(point) * (.22 + .5 * person.blush))
    colour = _marks(person, point, colour)
    colour = _age(person, point, colour)
    masks = {name: sample(mask, uv) for name, mask in template.masks.items()}
    colour = mix(colour, person.lips, smoothstep(.15, .7, masks["lips"]))
    lid = masks["eyelids"] * (.45 if person.gender == "woman" else .22)
    colour = mix(colour, skin * .45, lid)
    colour = mix(colour, (.22, .04, .05), smoothstep(.3, .8, masks["inside-mouth"]))
    colour = _brows(person, point, colour)
    face = (masks["lips"] < .3) & (masks["inside-mouth"] < .3)
    growth = inside_beard(point, person.beard) * face * (.55 if person.beard == "stubble" else .9)
    speckle = .65 + .35 * noise(point, .0022, 21) if person.beard == "stubble" else 1.
    colour = mix(colour, _beard_rgb(person), (growth * speckle).astype(np.float32))
    inside = inside_hairline(point, person.hair, person.hairline) + .004 * (noise(point, .004, 4) - .5)
    grown = smoothstep(-.002, .004, inside) * (masks["ears"] < .5) * (.6 if person.hair == "receding" else .95)
    return mix(colour, _strands(person, point) * .85, grown.astype(np.float32))


def _blush(point: Floats) -> Floats:
    x, z = abs(point[:, 0]), point[:, 2]
    cheek = np.exp(-((x - .042) / .018) ** 2 - ((z - .695) / .016) ** 2)
    nose = np.exp(-(x / .014) ** 2 - ((z - .698) / .012) ** 2) * (point[:, 1] < -.13)
    return (np.maximum(cheek, .6 * nose) * (point[:, 1] < -.08)).astype(np.float32)


def _marks(person: Person, point: Floats, colour: Floats) -> Floats:
    """Freckles over nose and cheeks, and moles."""
    dark = np.asarray(person.skin) * [.66, .50, .42]
    if person.freckles:
        where = np.exp(-(point[:, 0] / .06) ** 2 - ((point[:, 2] - .71) / .028) ** 2)
        spots = smoothstep(.60, .74, noise(point, .0034, person.seed % 991)) * where
        colour = mix(colour, dark, (spots * person.freckles * .8 * (point[:, 1] < -.08)).astype(np.float32))
    for x, z, radius in person.moles:
        far = np.hypot(point[:, 0] - x, point[:, 2] - z)
        colour = mix(colour, dark * .5, (smoothstep(radius, radius * .7, far) * (point[:, 1] < -.08)).astype(np.float32))
    return colour


def _age(person: Person, point: Floats, colour: Floats) -> Floats:
    """Forehead lines, crow's feet, bags under the eyes, folds from nose to mouth."""
    if person.wrinkles < .05:
        return colour
    x, y, z = abs(point[:, 0]), point[:, 1], point[:, 2]
    wave = z + .003 * np.cos(x * 60) + .002 * noise(point, .02, person.seed % 983)
    lines = np.clip(np.cos(wave * 2 * np.pi / .0105) - .55, 0, 1) * 2 * smoothstep(.768, .774, z) * smoothstep(.803, .795, z) * smoothstep(.05, .035, x)
    fold_x = np.interp(z, [.650, .668, .690, .700], [.036, .034, .023, .018])
    fold = np.exp(-((x - fold_x) / .0026) ** 2) * smoothstep(.648, .66, z) * smoothstep(.703, .695, z)
    feet = np.clip(np.cos(np.arctan2(z - EYE_Z, x - .045) * 9) - .4, 0, 1) * smoothstep(.052, .056, x) * smoothstep(.069, .062, x) * (abs(z - EYE_Z) < .014)
    bag = np.exp(-((x - EYE_X) / .016) ** 2 - ((z - (EYE_Z - .0185)) / .004) ** 2)
    dark = np.clip(np.maximum.reduce([.55 * lines, .6 * fold, .7 * feet, .55 * bag]) * (y < -.07) * person.wrinkles, 0, .75)
    return mix(colour, np.asarray(person.skin) * [.62, .50, .45], dark.astype(np.float32))


def _brows(person: Person, point: Floats, colour: Floats) -> Floats:
    out = abs(point[:, 0]) - .0115                         # metres from the inner end
    t = out / person.brow_length                           # 0 inner end .. 1 outer end
    middle = EYE_Z + .0185 + person.brow_height + person.brow_slant * out + person.brow_arch * (1 - (2.2 * (t - .55)) ** 2)
    half = .0036 * person.brow_thickness * np.interp(t, [0, .15, .6, 1], [.75, 1, .8, .25])
    inside = smoothstep(half + .0012, half - .0008, abs(point[:, 2] - middle)) * smoothstep(-.03, .04, t) * smoothstep(1.03, .95, t)
    return mix(colour, person.brow_rgb, (inside * .9 * (point[:, 1] < -.085)).astype(np.float32))


def _beard_rgb(person: Person) -> Floats:
    dark = .75 if person.hair_colour in ("blond", "red", "grey", "white") else .9
    return np.asarray(person.hair_rgb, np.float32) * dark


def _whiskers(person: Person, point: Floats) -> Floats:
    return _beard_rgb(person) * (.7 + .6 * noise(point * [1, 1, .4], .003, 31))[:, None]


def _strands(person: Person, point: Floats) -> Floats:
    """Hair colour with streaks along the fall of the hair (or curls)."""
    if person.hair == "afro":
        streak = .45 + .9 * noise(point, .0065, 5)
    else:
        around = np.stack([np.arctan2(point[:, 0], -.035 - point[:, 1]), 0 * point[:, 0], point[:, 2] * .6], 1)
        streak = .72 + .55 * noise(around, .055, person.seed % 977)
    line = np.exp(-((point[:, 0] - person.parting) / .0022) ** 2) * (point[:, 1] < -.02) * (point[:, 2] > .78) * (person.hair in ("short", "bob", "long", "bun"))
    return (np.asarray(person.hair_rgb) * streak[:, None] * (1 - .35 * line[:, None])).astype(np.float32)


def _eyes(person: Person, point: Floats) -> Floats:
    far = np.sqrt((abs(point[:, 0]) - EYE_X) ** 2 + (point[:, 2] - EYE_Z) ** 2)
    front = point[:, 1] < -.117
    colour = np.tile(np.array([.93, .92, .90], np.float32), (len(point), 1))
    colour = mix(colour, np.asarray(person.iris), smoothstep(IRIS, IRIS - .0008, far) * front)
    colour = mix(colour, np.asarray(person.iris) * .3, np.exp(-((far - IRIS) / .0009) ** 2).astype(np.float32) * front)
    return mix(colour, (.02, .02, .02), smoothstep(PUPIL, PUPIL - .0008, far) * front)


def _clothes(shot: Shot, point: Floats) -> tuple[np.ndarray, Floats]:
    """Which body points (n,) are covered, and the colour (m, 3) of those m that are."""
    x, y, z = abs(point[:, 0]), point[:, 1], point[:, 2]
    front = y < -.02
    low = {"t-shirt": .567 - .030 * front * smoothstep(.075, .0, x), "shirt": .575 - .05 * 0 * x, "turtleneck": .606 + 0 * x,
           "tank top": np.where(x > .095, .40 + 1.2 * np.clip(.150 - x, -.1, .1), .53 - .045 * front * smoothstep(.09, .03, x) + 9 * (x > .098)),
           "hoodie": .560 + 0 * x, "suit": .575 + 0 * x}[shot.garment]
    if shot.garment in ("shirt", "suit"):
        opening = .55 * np.clip(x, 0, .05) if shot.garment == "shirt" else 0 * x
        low = np.where(front, np.minimum(low, (.520 if shot.garment == "shirt" else .565) + 2.2 * opening), low)
    if shot.garment == "tank top":
        strap = (x > .062) & (x < .098)
        low = np.where(strap, .62, np.where(x <= .062, .505 + .35 * np.clip(x - .03, 0, 1) - .02 * ~front, .43))
    covered = z < low
    colour = np.tile(np.asarray(CLOTHS[shot.garment_colour], np.float32), (int(covered.sum()), 1))
    x, z, low = x[covered], z[covered], low[covered]
    if shot.garment == "suit":
        bib = front[covered] & (x < .008 + .50 * np.clip(z - .43, 0, 1))
        tie = bib & (x < .011)
        lapel = front[covered] & ~bib & (x < .034 + .5 * np.clip(z - .43, 0, 1))
        colour[lapel] *= .72
        colour[bib], colour[tie] = (.93, .93, .93), (.16, .06, .10)
    if shot.garment == "shirt":
        colour[(x < .0035) & front[covered]] *= .6
    if shot.garment == "hoodie":
        colour[(abs(x - .030) < .0035) & front[covered] & (z < .53)] = (.95, .95, .93)
    colour = mix(colour, colour * .7, (smoothstep(.010, .004, low - z)).astype(np.float32)) if shot.garment in ("t-shirt", "tank top") else colour
    return covered, colour


def _collar(shot: Shot, point: Floats) -> Floats:
    tint = (.95, .95, .95) if shot.garment == "suit" else CLOTHS[shot.garment_colour]
    shade = 1.0 if shot.garment == "shirt" else .9
    return np.asarray(tint, np.float32) * shade * (.92 + .16 * noise(point, .01, 8))[:, None]
