"""Hair, beards, glasses and collars as patches on the average head; they follow every face shape.

The hairline is a curve seen from the side: at depth y (metres, face at -.15), hair grows above the height `line(y)`.
"""
from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.spatial import cKDTree

from iy.studio.mesh import BEARD, BODY, CLOTH, FRAME, HAIR, SKIN, Floats, Ints, Patch, Template, noise, smoothstep, subdivide

LINE_Y = np.array([-.16, -.135, -.118, -.10, -.082, -.070, -.05, -.015, 0, .02, .05, .08])
LINE_Z = np.array([.812, .808, .800, .783, .752, .722, .708, .706, .690, .668, .655, .650])
EYES = np.array([[.0313, -.1334, .7363], [-.0313, -.1334, .7363]], np.float32)
NAPE = -.02               # depth behind which the hairline does not move with the forehead
THICKNESS = {"receding": .007, "short": .013, "quiff": .013, "afro": .044, "bob": .019, "long": .019, "bun": .009}
REACH = {"receding": .018, "short": .022, "quiff": .02, "afro": .030, "bob": .020, "long": .020, "bun": .022}   # to full thickness
CURTAIN = {"bob": .622, "long": .47}   # height of the lower end


def inside_hairline(point: Floats, style: str, shift: float) -> Floats:
    """Metres above the hairline (n,), positive where hair grows, at points (n, 3) of the average head."""
    x, y, z = point.T
    front = smoothstep(NAPE, -.08, y)
    line = np.interp(y, LINE_Y, LINE_Z) + shift * front * smoothstep(.74, .79, z)
    if style == "receding":
        line = line + front * (.016 + .022 * np.exp(-((abs(x) - .042) / .018) ** 2))
    elif style == "bald":
        line = line + 1
    return (z - line).astype(np.float32)


def inside_beard(point: Floats, style: str) -> Floats:
    """How strongly a beard grows (n,), 0..1, at points (n, 3) of the average head; the lips are masked elsewhere."""
    x, y, z = abs(point[:, 0]), point[:, 1], point[:, 2]
    over = np.interp(x, [0, .012, .030, .038], [.688, .687, .677, .664])      # upper and lower edge of a moustache
    under = np.interp(x, [0, .015, .024, .034], [.6705, .671, .664, .652])
    moustache = smoothstep(.037, .033, x) * smoothstep(.001, -.002, z - over) * smoothstep(-.001, .002, z - under) * (y < -.10)
    chin = smoothstep(.025, .020, x) * smoothstep(.651, .647, z) * smoothstep(.594, .602, z) * (y < -.09)
    corner = smoothstep(.004, .001, abs(x - .0295)) * smoothstep(.675, .668, z) * smoothstep(.625, .635, z) * (y < -.10)
    sides = np.maximum.reduce([moustache, chin, corner])
    edge = np.interp(y, [-.155, -.144, -.135, -.11, -.09, -.075, -.06, -.04], [.645, .650, .668, .677, .690, .714, .720, .70])
    jaw = smoothstep(.003, -.003, z - edge) * smoothstep(.588, .600, z + .4 * np.clip(y + .08, -1, 0)) * smoothstep(-.035, -.05, y)
    grown = {"none": 0 * x, "moustache": moustache, "goatee": np.maximum(chin, sides), "stubble": np.maximum(jaw, sides),
             "full beard": np.maximum(jaw, sides)}
    return grown[style].astype(np.float32)


def shell(template: Template, thickness: Callable[[Floats], Floats], region: int, splits: int = 2) -> Patch:
    """A layer lifted off the skin by thickness(point) metres; where that is negative it hides under the skin."""
    skin = template.triangles[template.region == SKIN]
    ear = template.mask_at_vertices("ears") > .5
    height = thickness(template.vertices)
    keep = (height[skin] > -.0015).any(1) & ~ear[skin].any(1) & (template.vertices[skin][:, :, 2].min(1) > .57)
    corners, triangles = np.unique(skin[keep], return_inverse=True)
    triangles, weights = triangles.reshape(-1, 3).astype(np.int32), np.eye(len(corners), dtype=np.float32)
    for _ in range(splits):
        triangles, weights = subdivide(triangles, weights)
    place = weights @ template.vertices[corners]
    normal = weights @ template.normals[corners]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    lift = thickness(place)
    low = lift[triangles].max(1) > -.0012
    anchor, share = _sparse(weights, corners)
    return Patch(anchor, share, (normal * lift[:, None]).astype(np.float32), triangles[low], np.ones(len(place), np.float32), region)


def _sparse(weights: Floats, corners: Ints) -> tuple[Ints, Floats]:
    """The largest six weights of each row as indices and values."""
    order = np.argsort(-weights, axis=1)[:, :6]
    share = np.take_along_axis(weights, order, 1)
    return corners[order].astype(np.int32), (share / share.sum(1, keepdims=True)).astype(np.float32)


def follow(template: Template, place: Floats, triangles: Ints, region: int, near: Floats, count: int, neck: Floats) -> Patch:
    """Free geometry at `place` (n, 3) that moves as the `count` skin vertices nearest to `near` (n, 3) do on average."""
    used = np.unique(template.triangles[template.region == SKIN])
    _, index = cKDTree(template.vertices[used]).query(near, k=count)
    anchor = used[index].astype(np.int32)
    weights = np.full(anchor.shape, 1 / count, np.float32)
    offset = place - np.einsum("nk,nkc->nc", weights, template.vertices[anchor])
    return Patch(anchor, weights, offset.astype(np.float32), triangles, neck.astype(np.float32), region)


@cache
def hair_patches(template: Template, style: str, hairline: float, volume: float, parting: float) -> tuple[Patch, ...]:
    """The patches of a hair style; `hairline` metres, `volume` 1 on average, `parting` metres to the viewer's right."""
    if style == "bald":
        return ()
    full, reach = THICKNESS[style] * volume ** (.5 if style == "afro" else 1), REACH[style]

    def thickness(point: Floats) -> Floats:
        inside = inside_hairline(point, style, hairline)
        lift = full * smoothstep(-.002, reach, inside)
        if style == "quiff":
            lift = lift + .030 * volume * np.exp(-((point[:, 1] + .105) / .030) ** 2 - (point[:, 0] / .045) ** 2) * smoothstep(.0, .018, inside)
        if style == "afro":
            lift = lift * (1 + .22 * (noise(point, .011, 5) - .5)) * (1 - .35 * smoothstep(.74, .69, point[:, 2]))
        elif style != "bun":
            lift = lift * (1 - .25 * np.exp(-((point[:, 0] - parting) / .006) ** 2) * (point[:, 1] < .0)) + .0018 * (noise(point * [1, .3, .6], .006, 9) - .5)
        return (lift - .003 * (inside < 0) - .0005).astype(np.float32)

    patches = [shell(template, thickness, HAIR)]
    if style in CURTAIN:
        patches.append(_curtain(template, CURTAIN[style], volume))
    if style == "bun":
        patches.append(_ball(template, np.array([0, -.035, .868 + .006 * volume]), .030 * volume ** .5))
    return tuple(patches)


def _curtain(template: Template, low: float, volume: float) -> Patch:
    """Hair hanging from the temples round the back of the head down to height `low`."""
    rows, columns = 18, 72
    angle = np.linspace(np.radians(62), np.radians(298), columns)      # from the face's middle, round the back
    height = np.linspace(.815, low, rows)
    fall = np.linspace(0, 1, rows)[:, None]
    thick = .012 * volume
    top = smoothstep(.83, .77, height)[:, None]
    wide = (.070 + .016 * top + thick + .012 * fall * (low < .6)) + .0016 * np.sin(17 * angle)[None]
    deep = (.088 + .018 * top + thick - .02 * fall * (low < .6)) + .0016 * np.sin(23 * angle + 1)[None]
    tuck = 1 - (.16 if low > .6 else 0.) * smoothstep(.66, .62, height)[:, None]   # a bob curls in
    x, y = wide * tuck * np.sin(angle)[None], -.040 - deep * tuck * np.cos(angle)[None]
    place = np.stack([x, y, np.repeat(height[:, None], columns, 1)], 2).reshape(-1, 3).astype(np.float32)
    place[:, 2] += .006 * noise(place * [1, 1, 0], .008, 2) * np.repeat(fall, columns, 1).ravel() * 2
    near = place.copy()
    near[:, 2] = np.clip(near[:, 2], .74, .82)
    return follow(template, place, grid_triangles(rows, columns), HAIR, near, 40, smoothstep(.46, .60, place[:, 2]))


def _ball(template: Template, centre: Floats, radius: float) -> Patch:
    rows, columns = 12, 20
    up, round_ = np.meshgrid(np.linspace(0, np.pi, rows), np.linspace(0, 2 * np.pi, columns), indexing="ij")
    ball = np.stack([np.sin(up) * np.cos(round_), np.sin(up) * np.sin(round_), .85 * np.cos(up)], 2).reshape(-1, 3)
    place = (centre + radius * ball * (1 + .05 * np.sin(6 * round_.ravel() + 4 * up.ravel()))[:, None]).astype(np.float32)
    near = np.repeat(centre[None], len(place), 0)
    return follow(template, place, grid_triangles(rows, columns), HAIR, near, 40, np.ones(len(place)))


@cache
def beard_patches(template: Template, style: str) -> tuple[Patch, ...]:
    """The layer of a beard that changes the outline; stubble is only painted."""
    lift = {"full beard": .009, "goatee": .006, "moustache": .004}.get(style)
    if lift is None:
        return ()
    lips = template.mask_at_vertices("lips")

    def thickness(point: Floats) -> Floats:
        grown = inside_beard(point, style)
        if len(point) == len(lips):
            grown = grown * (lips < .3)
        return (lift * grown * (.85 + .3 * noise(point, .005, 3)) - .0016).astype(np.float32)

    return (shell(template, thickness, BEARD, 2),)


@cache
def glasses_patches(template: Template, shape: tuple[float, float, float]) -> tuple[Patch, ...]:
    """Two rims, a bridge and two temples; shape: half width, half height (metres), squareness."""
    half, high, square = shape
    t = np.linspace(0, 2 * np.pi, 41)
    ring = np.stack([half * np.sign(np.cos(t)) * abs(np.cos(t)) ** (2 / square), 0 * t, high * np.sign(np.sin(t)) * abs(np.sin(t)) ** (2 / square)], 1)
    patches = []
    for eye in EYES:
        side = np.sign(eye[0])
        middle = np.array([side * (half + .0085), -.1505, eye[2] - .003])
        rim = middle + ring + np.outer(abs(ring[:, 0] + side * half) ** 2 * 3.0, [0, 1, 0])
        temple = np.array([middle + [side * half, .010, .006], [side * .073, -.10, .742], [side * .078, -.045, .740], [side * .078, -.03, .734]])
        patches += [_tube(template, rim, .0019, eye), _tube(template, temple, .0017, eye)]
    bridge = np.array([[-.0095, -.1510, .738], [0, -.1535, .7415], [.0095, -.1510, .738]])
    return (*patches, _tube(template, bridge, .0019, np.array([0, -.145, .735])))


def _tube(template: Template, path: Floats, radius: float, near: Floats, region: int = FRAME, count: int = 60, neck: float = 1.) -> Patch:
    """A tube of `radius` metres along a path (n, 3)."""
    sides = 6
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    first = np.cross(along, [0, 1, .01])
    first = np.where(np.linalg.norm(first, axis=1, keepdims=True) < .3, np.cross(along, [0, 0, 1]), first)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(along, first)
    t = np.linspace(0, 2 * np.pi, sides + 1)
    circle = first[:, None] * np.cos(t)[None, :, None] + second[:, None] * np.sin(t)[None, :, None]
    place = (path[:, None] + radius * circle).reshape(-1, 3).astype(np.float32)
    return follow(template, place, grid_triangles(len(path), sides + 1), region, np.repeat(near[None], len(place), 0), count, np.full(len(place), neck))


@cache
def garment_patches(template: Template, garment: str) -> tuple[Patch, ...]:
    """What stands off the body: a hood, a rolled collar, the wings of a shirt collar. The rest is painted."""
    skin = template.triangles[template.region == SKIN]
    t = np.linspace(0, 2 * np.pi, 49)
    if garment == "turtleneck":
        ring = np.stack([.064 * np.sin(t), -.022 - .062 * np.cos(t), .592 - .012 * np.cos(t)], 1)
        return (_collar(template, ring, .013, .55),)
    if garment == "hoodie":
        ring = np.stack([.088 * np.sin(t), -.008 - .088 * np.cos(t), .560 - .042 * np.cos(t)], 1)
        return (_collar(template, ring, .024, .1),)
    if garment in ("shirt", "suit"):
        ring = np.stack([.066 * np.sin(t), -.020 - .064 * np.cos(t), .575 - .020 * np.cos(t)], 1)
        return (_collar(template, ring[3:-3], .010, .15),)
    return ()


def _collar(template: Template, path: Floats, radius: float, neck: float) -> Patch:
    tube = _tube(template, path, radius, path[0], CLOTH, 8, neck)
    place = tube.place(template.vertices)
    return follow(template, place, tube.triangles, CLOTH, place, 30, np.full(len(place), neck))


def grid_triangles(rows: int, columns: int) -> Ints:
    """Triangles (2 (rows - 1) (columns - 1), 3) of a row-major grid."""
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    return np.concatenate([np.stack([a, a + 1, a + columns], 1), np.stack([a + 1, a + columns + 1, a + columns], 1)]).astype(np.int32)
