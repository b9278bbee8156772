"""Light and backdrops. Colours are sRGB on the way in; light is added up in linear values and tone-mapped at the end."""
from dataclasses import dataclass

import numpy as np

from iy.studio.mesh import Floats, noise, smoothstep
from iy.studio.shots import LIGHT_ANGLES, Shot

GAMMA = 2.2
PLAIN = {"white": (.93, .93, .92), "black": (.07, .07, .08), "red": (.78, .10, .12), "yellow": (.96, .80, .16), "green": (.16, .56, .26),
         "blue": (.16, .38, .82), "purple": (.50, .22, .66)}


@dataclass(frozen=True)
class Light:
    """Key and fill light: unit direction towards the key (3,), linear colours (3,)."""
    direction: Floats
    key: Floats
    fill: Floats
    ambient: Floats
    backdrop: float   # how much of it the backdrop gets


PRESETS: dict[str, tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float]] = {
    "soft": ((.62, .61, .60), (.30, .30, .30), (.30, .30, .31), 1.),
    "left": ((1.05, 1.03, 1.0), (.12, .12, .13), (.15, .15, .16), .8),
    "right": ((1.05, 1.03, 1.0), (.12, .12, .13), (.15, .15, .16), .8),
    "dim": ((.30, .29, .29), (.12, .12, .125), (.10, .10, .11), .30),
    "warm": ((1.05, .70, .34), (.34, .20, .11), (.26, .18, .12), .75),
    "cold": ((.36, .58, 1.0), (.14, .23, .40), (.14, .20, .32), .65),
}


def light(shot: Shot) -> Light:
    """The shot's light preset with its jitter."""
    yaw, pitch = LIGHT_ANGLES[shot.light]
    a, b = np.radians([yaw + shot.light_yaw, pitch + shot.light_pitch])
    direction = np.array([np.cos(b) * np.sin(a), -np.cos(b) * np.cos(a), np.sin(b)], np.float32)
    key, fill, ambient, behind = PRESETS[shot.light]
    return Light(direction, *(np.array(part, np.float32) * shot.brightness for part in (key, fill, ambient)), behind)


def shade(colour: Floats, shine: Floats, normal: Floats, view: Floats, lit: Floats, lamp: Light) -> Floats:
    """Linear light (n, 3) from sRGB colour (n, 3), shine (n,), unit normal and view (n, 3), lit (n,) 0 in shadow."""
    facing = normal @ lamp.direction
    soft = np.clip((facing + .12) / 1.12, 0, 1) * lit
    half = lamp.direction + view
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    gloss = np.clip((normal * half).sum(1), 0, 1) ** 28 * shine * lit
    front = np.clip(-normal[:, 1], 0, 1)
    sky = .7 + .3 * normal[:, 2]
    total = soft[:, None] * lamp.key + front[:, None] * lamp.fill + sky[:, None] * lamp.ambient
    return colour ** GAMMA * total + gloss[:, None] * lamp.key * .55


def tone(linear: Floats) -> Floats:
    """Linear light to sRGB 0..1 with a soft shoulder."""
    x = np.clip(linear, 0, None)
    return np.clip(np.where(x < .7, x, .7 + .3 * (1 - np.exp(-(x - .7) / .3))), 0, 1) ** (1 / GAMMA)


def backdrop(shot: Shot, side: int, lamp: Light) -> Floats:
    """Linear backdrop (side, side, 3), a little blurred by nature: details are larger than a 32nd of the side."""
    step = (np.arange(side, dtype=np.float32) + .5) / side
    x, y = np.meshgrid(step, step)
    shift = (shot.seed % 1000) / 1000
    scene = SCENES.get(shot.backdrop)
    if scene:
        colour = scene(x, y, shift, shot.seed % 4093)
    else:
        glow = 1.06 - .34 * np.hypot(x - .3 - .4 * shift, y - .25)
        colour = np.asarray(PLAIN[shot.backdrop], np.float32) * glow[:, :, None]
    tint = lamp.key + lamp.fill + lamp.ambient
    return np.clip(colour, 0, 1) ** GAMMA * lamp.backdrop * (.5 + .5 * tint / tint.max()) * .8


def _layers(y: Floats, stops: list[tuple[float, tuple[float, float, float]]]) -> Floats:
    """A vertical gradient through (height, colour) stops."""
    at = [stop for stop, _ in stops]
    return np.stack([np.interp(y, at, [colour[k] for _, colour in stops]) for k in range(3)], 2).astype(np.float32)


def _field(x: Floats, y: Floats, step: float, seed: int) -> Floats:
    point = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    return noise(point, step, seed).reshape(x.shape)


def _beach(x: Floats, y: Floats, shift: float, seed: int) -> Floats:
    line = .46 + .08 * shift
    sand = line + .18 + .03 * np.sin(7 * x + 6 * shift)
    base = _layers(y, [(0, (.36, .66, .96)), (line - .01, (.80, .92, 1.)), (line, (.06, .42, .66)), (line + .18, (.22, .72, .78)), (1, (.22, .72, .78))])
    beach = np.array([.93, .82, .58], np.float32) * (.92 + .16 * _field(x, y, .04, seed))[:, :, None]
    foam = smoothstep(.02, .0, abs(y - sand))[:, :, None]
    base = np.where((y > sand)[:, :, None], beach, base)
    return base * (1 - foam) + foam * np.float32(.97)


def _forest(x: Floats, y: Floats, shift: float, seed: int) -> Floats:
    leaves = _field(x, y, .09, seed) * .6 + _field(x, y, .04, seed + 1) * .4
    colour = np.array([.16, .40, .12]) + (leaves[:, :, None] - .5) * np.array([.5, .75, .25])
    trunk = abs((x * 4 + shift + .04 * np.sin(5 * y)) % 1 - .5) < .10
    colour[trunk & (y > .1)] = np.array([.27, .17, .10])
    return (colour * (1.25 - .5 * y[:, :, None])).astype(np.float32)


def _city(x: Floats, y: Floats, shift: float, seed: int) -> Floats:
    colour = _layers(y, [(0, (.03, .03, .12)), (.6, (.20, .10, .30)), (1, (.25, .14, .30))])
    columns = 7
    column = np.floor(x * columns + shift).astype(int)
    roof = .12 + .5 * np.random.default_rng(seed).random(columns + 2)[column]
    house = y > roof
    colour[house] = (.05, .05, .08)
    row, inner = np.floor(y * 14).astype(int), (x * columns + shift) % 1
    lamps = np.random.default_rng(seed + 1).random((columns + 2, 16, 2))
    window = np.floor(inner * 2).astype(int)
    lit = house & (lamps[column, row, window] > .45) & (abs((inner * 2) % 1 - .5) < .30) & (abs((y * 14) % 1 - .5) < .32)
    colour[lit] = (1., .82, .35)
    return colour


def _bricks(x: Floats, y: Floats, shift: float, seed: int) -> Floats:
    row = np.floor(y * 11 + shift)
    along = x * 5 + shift + .5 * (row % 2)
    tint = np.random.default_rng(seed).random((24, 16))[row.astype(int) % 24, np.floor(along).astype(int) % 16]
    colour = np.array([.62, .27, .18], np.float32) * (.8 + .4 * tint)[:, :, None]
    mortar = (abs((y * 11 + shift) % 1 - .5) > .41) | (abs(along % 1 - .5) > .455)
    return np.where(mortar[:, :, None], np.float32([.82, .79, .74]), colour).astype(np.float32)


def _stripes(x: Floats, y: Floats, shift: float, seed: int) -> Floats:
    band = smoothstep(.20, .30, abs((x * 6 + shift) % 1 - .5))
    return (np.array([.95, .92, .84]) * (1 - band[:, :, None]) + np.array([.10, .52, .56]) * band[:, :, None]).astype(np.float32)


SCENES = {"beach": _beach, "forest": _forest, "city": _city, "bricks": _bricks, "stripes": _stripes}
