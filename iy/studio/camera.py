"""Turning heads and eyes, and casting rays through pixels with NVIDIA Warp (its CPU device).

Shadows of a wide lamp and ambient occlusion cost two rays a pixel: each pixel of a 4 x 4 block sends them elsewhere,
and `Rays.soften` averages over the block wherever the depth is alike, so that a pixel sees 16 directions of each kind.
"""

from functools import cache
from typing import Any

import numpy as np

from iy.studio.mesh import Floats, Ints

DISTANCE = 1.4  # metres from the camera to the face
WIDTH = 0.295  # metres seen at that distance across the picture
LAMP = 0.34  # half width of the lamp for each metre that it is away


def rotation(yaw: float, pitch: float, roll: float = 0.0) -> Floats:
    """Head-to-world matrix (3, 3) from degrees; yaw > 0 faces the viewer's right, pitch > 0 up."""
    a, b, c = np.radians([yaw, -pitch, roll])
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    tilt = np.array([[np.cos(c), 0, np.sin(c)], [0, 1, 0], [-np.sin(c), 0, np.cos(c)]])
    return (tilt @ turn @ nod).astype(np.float32)


def turn(vertices: Floats, share: Floats, pivot: Floats, yaw: float, pitch: float, roll: float) -> Floats:
    """Rotate each vertex (n, 3) about the pivot by its share (n,) of the angles, in nine steps of the share."""
    turned = vertices.copy()
    step = np.round(share * 8).astype(int)
    for k in range(1, 9):
        here = step == k
        if here.any():
            turned[here] = (vertices[here] - pivot) @ rotation(yaw * k / 8, pitch * k / 8, roll * k / 8).T + pivot
    return turned


class Rays:
    """A mesh ready to be hit by rays."""

    def __init__(self, vertices: Floats, triangles: Ints) -> None:
        self.wp, self.kernels = _warp()
        self.mesh = self.wp.Mesh(self._vectors(vertices), self._numbers(triangles.reshape(-1)))

    def hit(self, origin: Floats, direction: Floats) -> tuple[Ints, Floats]:
        """First triangle (n,) or -1 and barycentric weights (n, 3) for rays from (3,) along (n, 3)."""
        wp, n = self.wp, len(direction)
        face, where = wp.empty(n, dtype=int, device="cpu"), wp.empty(n, dtype=wp.vec3, device="cpu")
        self._launch("cast", n, self.mesh.id, wp.vec3(*map(float, origin)), self._vectors(direction), face, where)
        return face.numpy(), where.numpy()

    def soften(self, side: int, seen: Ints, place: Floats, normal: Floats, lamp: Floats) -> tuple[Floats, Floats]:
        """How much of a wide lamp and of the open sky the `seen` pixels (n,) of a picture get, each (n,) in 0..1.

        place, normal (n, 3) where their rays hit; lamp the unit direction (3,) towards the lamp's middle.
        """
        wp, n = self.wp, len(seen)
        slot = np.full(side * side, -1, np.int32)
        slot[seen] = np.arange(n, dtype=np.int32)
        block = ((seen // side) % 4 * 4 + seen % 4).astype(np.int32)
        points, normals = self._vectors(place), self._vectors(normal)
        rough, smooth = (wp.empty(n, dtype=wp.vec2, device="cpu") for _ in range(2))
        self._launch(
            "open", n, self.mesh.id, points, normals, self._numbers(block),
            self._vectors(lamp_directions(lamp)), self._vectors(dome_directions()), rough,
        )  # fmt: skip
        at = self._numbers(seen.astype(np.int32))
        self._launch("average", n, side, at, self._numbers(slot), points, rough, smooth)
        both = smooth.numpy()
        return both[:, 0], both[:, 1]

    def _vectors(self, values: Floats) -> Any:
        return self.wp.array(np.ascontiguousarray(values, np.float32), dtype=self.wp.vec3, device="cpu")

    def _numbers(self, values: Ints) -> Any:
        return self.wp.array(values, dtype=int, device="cpu")

    def _launch(self, kernel: str, count: int, *inputs: Any) -> None:
        self.wp.launch(self.kernels[kernel], dim=count, device="cpu", inputs=list(inputs))


def lamp_directions(lamp: Floats) -> Floats:
    """Unit directions (16, 3) spread evenly over a round lamp."""
    side = np.cross(lamp, [0, 0, 1])
    side /= np.linalg.norm(side)
    across, up = _disc()
    spread = LAMP * (across[:, None] * side + up[:, None] * np.cross(side, lamp))
    return _unit(lamp + spread)


@cache
def dome_directions() -> Floats:
    """Directions (16, 3) over the half sphere above (0, 0, 1), dense towards it as light counts there."""
    x, y = _disc()
    return np.stack([x, y, np.sqrt(np.clip(1 - x * x - y * y, 0.01, 1))], 1).astype(np.float32)


@cache
def _disc() -> tuple[Floats, Floats]:
    """A sunflower's 16 points in the unit circle."""
    k = np.arange(16)
    radius, angle = np.sqrt((k + 0.5) / 16), k * np.pi * (3 - 5**0.5)
    return (radius * np.cos(angle)).astype(np.float32), (radius * np.sin(angle)).astype(np.float32)


def _unit(vectors: Floats) -> Floats:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@cache
def _warp() -> tuple[Any, dict[str, Any]]:
    import warp

    wp: Any = warp  # Warp's types leave out its settings and what a query has found
    wp.config.quiet = True
    wp.init()
    NEAR = wp.constant(0.05)  # metres within which things take each other's light from the sky

    @wp.kernel
    def cast(
        mesh: warp.uint64,
        origin: warp.vec3,
        direction: warp.array[warp.vec3],
        face: warp.array[int],
        where: warp.array[warp.vec3],
    ):
        i = wp.tid()
        hit = wp.mesh_query_ray(mesh, origin, direction[i], 10.0)
        if hit.result:
            face[i] = hit.face  # pyright: ignore[reportIndexIssue]  # Warp types reads of an array, not writes
            where[i] = wp.vec3(hit.u, hit.v, 1.0 - hit.u - hit.v)  # pyright: ignore[reportIndexIssue]  # as above
        else:
            face[i] = -1  # pyright: ignore[reportIndexIssue]  # as above

    @wp.kernel
    def open_to(
        mesh: warp.uint64,
        place: warp.array[warp.vec3],
        normal: warp.array[warp.vec3],
        block: warp.array[int],
        lamp: warp.array[warp.vec3],
        dome: warp.array[warp.vec3],
        out: warp.array[warp.vec2],
    ):
        i = wp.tid()
        n = normal[i]
        start = place[i] + n * 0.002
        s = wp.where(n[2] < 0.0, -1.0, 1.0)  # a tangent frame without a branch
        a = -1.0 / (s + n[2])
        b = n[0] * n[1] * a
        first = wp.vec3(1.0 + s * n[0] * n[0] * a, s * b, -s * n[0])
        second = wp.vec3(b, s + n[1] * n[1] * a, -n[1])
        lit = wp.float32(0.0)
        free = wp.float32(1.0)
        d = lamp[block[i]]
        if wp.dot(n, d) > -0.5:
            d = wp.normalize(d + n * wp.max(0.15 - wp.dot(n, d), 0.0))  # past the terminator the lamp is only skimmed
            if not wp.mesh_query_ray_anyhit(mesh, start + d * 0.002, d, 0.4):
                lit = 1.0
        e = dome[block[i]]
        near = wp.mesh_query_ray(mesh, start, first * e[0] + second * e[1] + n * e[2], NEAR)
        if near.result:
            free = near.t / NEAR
        out[i] = wp.vec2(lit, free)

    @wp.kernel
    def average(
        side: int,
        seen: warp.array[int],
        slot: warp.array[int],
        place: warp.array[warp.vec3],
        rough: warp.array[warp.vec2],
        out: warp.array[warp.vec2],
    ):
        i = wp.tid()
        row = seen[i] / side
        column = seen[i] % side
        depth = place[i][1]
        total = wp.vec2(0.0, 0.0)
        count = wp.float32(0.0)
        for dy in range(-2, 2):
            for dx in range(-2, 2):
                y = row + dy
                x = column + dx
                if y >= 0 and x >= 0 and y < side and x < side:
                    j = slot[y * side + x]
                    if j >= 0:
                        if wp.abs(place[j][1] - depth) < 0.012:
                            total += rough[j]
                            count += 1.0
        out[i] = total / count

    return wp, {"cast": cast, "open": open_to, "average": average}


def pixel_rays(side: int, centre: Floats, width: float) -> tuple[Floats, Floats]:
    """Camera position (3,) and unit rays (side * side, 3), rows from the top, of a square `width` metres wide."""
    step = ((np.arange(side) + 0.5) / side - 0.5) * width
    x, z = np.meshgrid(step, -step)
    ray = np.stack([x.ravel(), np.full(side * side, DISTANCE), z.ravel()], 1)
    origin = centre - np.array([0, DISTANCE, 0])
    return origin.astype(np.float32), (ray / np.linalg.norm(ray, axis=1, keepdims=True)).astype(np.float32)
