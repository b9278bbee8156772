"""Colours of a person, pixel by pixel, from where the pixel lies on the average head.

Because the position is the average head's (metres, not the posed one), brows, beards, freckles and necklines stay on
the skin through every face shape, expression and turn. Colours are sRGB, 0..1.
"""

import numpy as np

from iy.studio.cloth import clothes, collar
from iy.studio.mesh import BEARD, CLOTH, EYE, FRAME, HAIR, LASH, LOCK, SKIN, TEETH, TONGUE, Floats, Ints, Template
from iy.studio.people import Person
from iy.studio.shots import Shot
from iy.studio.skin import SKIN_SHINE, eyes, locks, rooted, skin, whiskers


def paint(
    template: Template, person: Person, shot: Shot, point: Floats, uv: Floats, region: Ints
) -> tuple[Floats, Floats]:
    """Colour (n, 3) and shininess (n,), 0..1, at average-head points (n, 3), texture uv (n, 2), region (n,)."""
    colour = np.zeros((len(point), 3), np.float32)
    shine = np.full(len(point), SKIN_SHINE, np.float32)
    on = region == SKIN
    colour[on] = skin(template, person, point[on], uv[on])
    cloth = np.zeros(len(point), bool)
    cloth[on], dressed = clothes(shot, point[on])
    colour[cloth] = dressed
    worn = region == CLOTH
    colour[worn] = collar(shot, point[worn])
    shine[cloth | worn] = 0.02
    for kind, tint, gloss in (
        (TEETH, (0.80, 0.77, 0.71), 0.25),
        (TONGUE, (0.74, 0.36, 0.36), 0.2),
        (LASH, 0.30 * np.asarray(person.skin), 0.0),
        (FRAME, person.frame_rgb, 0.5),
    ):
        colour[region == kind], shine[region == kind] = tint, gloss
    hair, lock, beard, eye = region == HAIR, region == LOCK, region == BEARD, region == EYE
    colour[hair], shine[hair] = rooted(person, point[hair])
    colour[lock], shine[lock] = locks(person, point[lock])
    colour[beard], shine[beard] = whiskers(person, point[beard]), 0.04
    colour[eye], shine[eye] = eyes(person, point[eye])
    return colour, shine
