"""Two ways to attach geometry to every face: a shell lifted off the skin, and free shapes that follow the skin."""

from collections.abc import Callable

import numpy as np
from scipy.spatial import KDTree

from iy.studio.mesh import SKIN, Floats, Ints, Patch, Template, subdivide


def shell(template: Template, thickness: Callable[[Floats], Floats], region: int, splits: int = 2) -> Patch:
    """A layer lifted off the skin by thickness(point) metres; where that is negative it hides under the skin."""
    skin = template.triangles[template.region == SKIN]
    ear = template.mask_at_vertices("ears") > 0.5
    height = thickness(template.vertices)
    keep = (height[skin] > -0.0015).any(1) & ~ear[skin].any(1) & (template.vertices[skin][:, :, 2].min(1) > 0.57)
    corners, triangles = np.unique(skin[keep], return_inverse=True)
    triangles, weights = triangles.reshape(-1, 3).astype(np.int32), np.eye(len(corners), dtype=np.float32)
    for _ in range(splits):
        triangles, weights = subdivide(triangles, weights)
    place = weights @ template.vertices[corners]
    normal = weights @ template.normals[corners]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    lift = thickness(place)
    low = lift[triangles].max(1) > -0.0012
    anchor, share = _sparse(weights, corners)
    return Patch(
        anchor,
        share,
        (normal * lift[:, None]).astype(np.float32),
        triangles[low],
        np.ones(len(place), np.float32),
        region,
    )


def _sparse(weights: Floats, corners: Ints) -> tuple[Ints, Floats]:
    """The largest six weights of each row as indices and values."""
    order = np.argpartition(-weights, 6, axis=1)[:, :6]
    share = np.take_along_axis(weights, order, 1)
    return corners[order].astype(np.int32), (share / share.sum(1, keepdims=True)).astype(np.float32)


def follow(
    template: Template, place: Floats, triangles: Ints, region: int, near: Floats, count: int, neck: Floats
) -> Patch:
    """Free geometry at `place` (n, 3) that moves as the `count` skin vertices nearest to `near` (n, 3) on average."""
    used = np.unique(template.triangles[template.region == SKIN])
    _, index = KDTree(template.vertices[used]).query(near, k=count)
    anchor = used[index].astype(np.int32)
    weights = np.full(anchor.shape, 1 / count, np.float32)
    offset = place - np.einsum("nk,nkc->nc", weights, template.vertices[anchor])
    return Patch(anchor, weights, offset.astype(np.float32), triangles, neck.astype(np.float32), region)


def grid_triangles(rows: int, columns: int) -> Ints:
    """Triangles (2 (rows - 1) (columns - 1), 3) of a row-major grid."""
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    return np.concatenate(
        [np.stack([a, a + 1, a + columns], 1), np.stack([a + 1, a + columns + 1, a + columns], 1)]
    ).astype(np.int32)
