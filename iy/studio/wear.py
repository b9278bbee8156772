"""Glasses and the parts of garments that stand off the body, as patches on the average head."""

from functools import cache, lru_cache

import numpy as np

from iy.studio.mesh import CLOTH, FRAME, Floats, Patch, Template
from iy.studio.patches import follow, grid_triangles

EYES = np.array([[0.0313, -0.1334, 0.7363], [-0.0313, -0.1334, 0.7363]], np.float32)


@lru_cache(maxsize=64)  # every person has their own
def glasses_patches(template: Template, shape: tuple[float, float, float]) -> tuple[Patch, ...]:
    """Two rims, a bridge and two temples; shape: half width, half height (metres), squareness."""
    half, high, square = shape
    t = np.linspace(0, 2 * np.pi, 41)
    ring = np.stack(
        [
            half * np.sign(np.cos(t)) * abs(np.cos(t)) ** (2 / square),
            0 * t,
            high * np.sign(np.sin(t)) * abs(np.sin(t)) ** (2 / square),
        ],
        1,
    )
    patches = []
    for eye in EYES:
        side = np.sign(eye[0])
        middle = np.array([side * (half + 0.0085), -0.1505, eye[2] - 0.003])
        rim = middle + ring + np.outer(abs(ring[:, 0] + side * half) ** 2 * 3.0, [0, 1, 0])
        temple = np.array(
            [
                middle + [side * half, 0.010, 0.006],
                [side * 0.073, -0.10, 0.742],
                [side * 0.078, -0.045, 0.740],
                [side * 0.078, -0.03, 0.734],
            ]
        )
        patches += [_tube(template, rim, 0.0019, eye), _tube(template, temple, 0.0017, eye)]
    bridge = np.array([[-0.0095, -0.1510, 0.738], [0, -0.1535, 0.7415], [0.0095, -0.1510, 0.738]])
    return (*patches, _tube(template, bridge, 0.0019, np.array([0, -0.145, 0.735])))


def _tube(
    template: Template,
    path: Floats,
    radius: float,
    near: Floats,
    region: int = FRAME,
    count: int = 60,
    neck: float = 1.0,
) -> Patch:
    """A tube of `radius` metres along a path (n, 3)."""
    sides = 6
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    first = np.cross(along, [0, 1, 0.01])
    first = np.where(np.linalg.norm(first, axis=1, keepdims=True) < 0.3, np.cross(along, [0, 0, 1]), first)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(along, first)
    t = np.linspace(0, 2 * np.pi, sides + 1)
    circle = first[:, None] * np.cos(t)[None, :, None] + second[:, None] * np.sin(t)[None, :, None]
    place = (path[:, None] + radius * circle).reshape(-1, 3).astype(np.float32)
    return follow(
        template,
        place,
        grid_triangles(len(path), sides + 1),
        region,
        np.repeat(near[None], len(place), 0),
        count,
        np.full(len(place), neck),
    )


@cache
def garment_patches(template: Template, garment: str) -> tuple[Patch, ...]:
    """What stands off the body: a hood, a rolled collar, the wings of a shirt collar. The rest is painted."""
    t = np.linspace(0, 2 * np.pi, 49)
    if garment == "turtleneck":
        ring = np.stack([0.064 * np.sin(t), -0.022 - 0.062 * np.cos(t), 0.592 - 0.012 * np.cos(t)], 1)
        return (_collar(template, ring, 0.013, 0.55),)
    if garment == "hoodie":
        ring = np.stack([0.088 * np.sin(t), -0.008 - 0.088 * np.cos(t), 0.560 - 0.042 * np.cos(t)], 1)
        return (_collar(template, ring, 0.024, 0.1),)
    if garment in ("shirt", "suit"):
        ring = np.stack([0.066 * np.sin(t), -0.020 - 0.064 * np.cos(t), 0.575 - 0.020 * np.cos(t)], 1)
        return (_collar(template, ring[3:-3], 0.010, 0.15),)
    return ()


def _collar(template: Template, path: Floats, radius: float, neck: float) -> Patch:
    tube = _tube(template, path, radius, path[0], CLOTH, 8, neck)
    place = tube.place(template.vertices)
    return follow(template, place, tube.triangles, CLOTH, place, 30, np.full(len(place), neck))
