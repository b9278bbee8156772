"""Light on a person. Colours are sRGB on the way in; light adds up in linear values, tone-mapped at the end."""

from dataclasses import dataclass

import numpy as np

from iy.studio.mesh import CLOTH, EYE, HAIR, LOCK, SKIN, Floats, Ints, smoothstep
from iy.studio.shots import LIGHT_ANGLES, Shot

GAMMA = 2.2
# How far light creeps round an edge, by channel: red wanders furthest under the skin.
WRAP = {SKIN: (0.42, 0.26, 0.20), HAIR: (0.35, 0.35, 0.35), LOCK: (0.35, 0.35, 0.35), CLOTH: (0.2, 0.2, 0.2)}
UNDER = np.float32([0.78, 1.0, 1.12])  # exponent of a shadow on skin: its edge glows red
DARKEST = np.float32(0.10)  # what other things in the room throw into a shadow, as a share of the key light


@dataclass(frozen=True)
class Light:
    """Key and fill light: unit direction towards the key (3,), linear colours (3,)."""

    direction: Floats
    key: Floats
    fill: Floats
    ambient: Floats
    backdrop: float  # how much of it the backdrop gets


PRESETS: dict[str, tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float]] = {
    "soft": ((0.72, 0.71, 0.69), (0.22, 0.22, 0.22), (0.30, 0.30, 0.31), 1.0),
    "left": ((1.0, 0.98, 0.95), (0.16, 0.16, 0.17), (0.18, 0.18, 0.19), 0.8),
    "right": ((1.0, 0.98, 0.95), (0.16, 0.16, 0.17), (0.18, 0.18, 0.19), 0.8),
    "dim": ((0.38, 0.37, 0.37), (0.15, 0.15, 0.155), (0.13, 0.13, 0.14), 0.32),
    "warm": ((1.05, 0.76, 0.44), (0.34, 0.23, 0.15), (0.26, 0.20, 0.15), 0.75),
    "cold": ((0.50, 0.68, 1.0), (0.20, 0.27, 0.40), (0.18, 0.235, 0.32), 0.65),
}


def light(shot: Shot) -> Light:
    """The shot's light preset with its jitter."""
    yaw, pitch = LIGHT_ANGLES[shot.light]
    a, b = np.radians([yaw + shot.light_yaw, pitch + shot.light_pitch])
    direction = np.array([np.cos(b) * np.sin(a), -np.cos(b) * np.cos(a), np.sin(b)], np.float32)
    key, fill, ambient, behind = PRESETS[shot.light]
    return Light(direction, *(np.array(part, np.float32) * shot.brightness for part in (key, fill, ambient)), behind)


@dataclass(frozen=True)
class Surface:
    """What the camera sees, pixel by pixel: unit normal and view (n, 3), region (n,), and, 0..1 (n,), how much of the
    lamp and of the sky gets there."""

    normal: Floats
    view: Floats
    region: Ints
    lit: Floats
    open: Floats


def shade(colour: Floats, shine: Floats, on: Surface, lamp: Light) -> Floats:
    """Linear light (n, 3) from sRGB colour (n, 3) and shine (n,), 0..1."""
    skin = on.region == SKIN
    wrap = np.full((len(colour), 3), 0.15, np.float32)
    for kind, share in WRAP.items():
        wrap[on.region == kind] = share
    facing = on.normal @ lamp.direction
    soft = np.clip((facing[:, None] + wrap) / (1 + wrap), 0, 1)
    lit = np.repeat(on.lit[:, None], 3, 1)
    lit[skin] **= UNDER
    soft *= DARKEST + (1 - DARKEST) * lit
    front = (0.35 + 0.65 * np.clip(-on.normal[:, 1], 0, 1)) * (0.3 + 0.7 * on.open)
    sky = (0.72 + 0.28 * on.normal[:, 2]) * on.open
    total = soft * lamp.key + front[:, None] * lamp.fill + sky[:, None] * lamp.ambient
    crease = np.where(skin, 1 - on.open, 0)[:, None] * np.float32([0.10, 0.01, 0.0])  # blood in the folds
    return np.asarray(colour, np.float32) ** GAMMA * total * (1 + crease) + _gloss(shine, on, facing, lamp)


def _gloss(shine: Floats, on: Surface, facing: Floats, lamp: Light) -> Floats:
    """What is mirrored (n, 3): a broad sheen and a narrower one, stronger where the surface is seen from the side, a
    band along hair, and the lamp itself in the eyes."""
    half = lamp.direction + on.view
    half /= np.sqrt((half * half).sum(1, keepdims=True))
    along = np.clip((on.normal * half).sum(1), 0, 1)
    edge = (1 - np.clip((on.normal * on.view).sum(1), 0, 1)) ** 4
    lobe = (0.5 * along**9 + 0.5 * along**34) * (1 + 1.5 * edge)
    hair = (on.region == HAIR) | (on.region == LOCK)
    lobe[hair] = _band(on.normal[hair], half[hair])
    mirrored = (lobe * shine * np.clip(0.2 + facing, 0, 1) * (0.15 + 0.85 * on.lit))[:, None] * lamp.key * 0.5
    mirrored += (edge * (0.04 + 0.25 * shine) * on.open)[:, None] * (lamp.ambient + 0.5 * lamp.fill)
    eye = on.region == EYE
    at = on.view[eye] + 0.42 * lamp.direction
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    spark = smoothstep(0.979, 0.993, (on.normal[eye] * at).sum(1)) * (0.45 + 0.55 * on.lit[eye]) * 4 * shine[eye]
    mirrored[eye] += spark[:, None] * (0.25 + 0.75 * lamp.key)
    return mirrored


def _band(normal: Floats, half: Floats) -> Floats:
    """Sheen (n,) of strands that fall down and back: bright where the half vector is square to the strand."""
    fall = np.float32([0, 0.45, -1]) - normal * (normal @ np.float32([0, 0.45, -1]))[:, None]
    fall /= np.sqrt((fall * fall).sum(1, keepdims=True)) + 1e-6
    across = np.clip(1 - (fall * half).sum(1) ** 2, 0, 1)
    return 0.7 * across**24 + 0.3 * across**6


def tone(linear: Floats) -> Floats:
    """Linear light to sRGB 0..1 as film does: a long shoulder, so that nothing burns out, and a short toe."""
    x = np.clip(linear, 0, None)
    film = (1 - np.exp(-1.45 * x)) / (1 - np.exp(-1.45 * 1.6))
    return np.clip(film + 0.0005, 0, 1) ** (1 / GAMMA)
