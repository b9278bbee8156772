"""Turning heads and eyes, and casting rays through pixels with NVIDIA Warp (its CPU device)."""

from functools import cache
from typing import Any

import numpy as np

from iy.studio.mesh import Floats, Ints

DISTANCE = 1.4  # metres from the camera to the face
WIDTH = 0.295  # metres seen at that distance across the picture


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
        self.wp, self.kernel = _warp()
        self.mesh = self.wp.Mesh(
            self.wp.array(vertices, dtype=self.wp.vec3, device="cpu"),
            self.wp.array(triangles.reshape(-1), dtype=int, device="cpu"),
        )

    def hit(self, origin: Floats, direction: Floats) -> tuple[Ints, Floats]:
        """First triangle (n,) or -1 and barycentric weights (n, 3) for rays (n, 3), (n, 3)."""
        wp, n = self.wp, len(direction)
        face, where = wp.empty(n, dtype=int, device="cpu"), wp.empty(n, dtype=wp.vec3, device="cpu")
        wp.launch(
            self.kernel,
            dim=n,
            device="cpu",
            inputs=[
                self.mesh.id,
                wp.array(origin, dtype=wp.vec3, device="cpu"),
                wp.array(direction, dtype=wp.vec3, device="cpu"),
                face,
                where,
            ],
        )
        return face.numpy(), where.numpy()


@cache
def _warp() -> tuple[Any, Any]:
    import warp

    wp: Any = warp  # Warp's types leave out its settings and what a query has found
    wp.config.quiet = True
    wp.init()

    @wp.kernel
    def cast(
        mesh: warp.uint64,
        origin: warp.array[warp.vec3],
        direction: warp.array[warp.vec3],
        face: warp.array[int],
        where: warp.array[warp.vec3],
    ):
        i = wp.tid()
        hit = wp.mesh_query_ray(mesh, origin[i], direction[i], 10.0)
        if hit.result:
            face[i] = hit.face  # pyright: ignore[reportIndexIssue]  # Warp types reads of an array, not writes
            where[i] = wp.vec3(hit.u, hit.v, 1.0 - hit.u - hit.v)  # pyright: ignore[reportIndexIssue]  # as above
        else:
            face[i] = -1  # pyright: ignore[reportIndexIssue]  # as above

    return wp, cast


def pixel_rays(side: int, centre: Floats, width: float) -> tuple[Floats, Floats]:
    """Camera position (3,) and unit rays (side * side, 3), rows from the top, of a square `width` metres wide."""
    step = ((np.arange(side) + 0.5) / side - 0.5) * width
    x, z = np.meshgrid(step, -step)
    ray = np.stack([x.ravel(), np.full(side * side, DISTANCE), z.ravel()], 1)
    origin = centre - np.array([0, DISTANCE, 0])
    return origin.astype(np.float32), (ray / np.linalg.norm(ray, axis=1, keepdims=True)).astype(np.float32)
