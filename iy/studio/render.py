"""Photographs of made-up people: `Studio().render(person, shot)`."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import parent_process

import numpy as np
from numpy.typing import NDArray

from iy import params
from iy.studio import hair, wear
from iy.studio.camera import WIDTH, Rays, pixel_rays, rotation, turn
from iy.studio.labels import PAIRED
from iy.studio.light import Light, Surface, light, shade, tone
from iy.studio.mesh import BODY, LEFT_EYE, RIGHT_EYE, TEETH_VERTICES, Floats, Ints, Patch, Template, vertex_normals
from iy.studio.paint import paint
from iy.studio.people import Person
from iy.studio.scene import backdrop
from iy.studio.shots import Shot
from iy.studio.sign import hold
from iy.workers import each

Image = NDArray[np.uint8]
Job = tuple[Person, Shot]
PIVOT_BELOW_EYES = 0.105  # metres from the eyes down to the joint a head turns on
PIVOT_BEHIND_EYES = 0.085
AVERAGE_FOREHEAD = 0.1154  # metres from the eyes to the top of the average head
AVERAGE_HALF_WIDTH = 0.077  # metres, above the eyes


@dataclass(frozen=True)
class Topology:
    """One mesh from body and patches: average-head position and neck share per vertex; triangles with uv and region."""

    patches: tuple[Patch, ...]
    point: Floats
    neck: Floats
    triangles: Ints
    uv: Floats
    region: Ints


class Studio:
    """Renders people. Loads anny once (seconds; a minute or two the very first time) and remembers recent people."""

    def __init__(self, remember: int = 64) -> None:
        self.template = Template()
        _ = self.template.actions  # read now, so that the first picture takes no longer than the others
        self.remember = remember
        self.bodies: OrderedDict[Person, Floats] = OrderedDict()
        self.topologies: OrderedDict[tuple, Topology] = OrderedDict()

    def render(self, person: Person, shot: Shot, size: int = 64, supersample: int = 2) -> Image:
        """The photograph (size, size, 3), sRGB. The same arguments give the same bytes on the same machine."""
        side = size * supersample
        neutral = self._body(person)
        topology = self._topology(person, shot)
        vertices = self._pose(neutral, topology, shot)
        centre, width = self._frame(neutral, shot)
        origin, ray = pixel_rays(side, centre, width)
        rays = Rays(vertices, topology.triangles)
        face, where = rays.hit(origin, ray)
        seen = np.flatnonzero(face >= 0)
        lamp = light(shot)
        picture = backdrop(shot, side, lamp).reshape(-1, 3)
        made, hides = self._shade(person, shot, topology, vertices, rays, seen, face[seen], where[seen], ray, lamp)
        picture[seen] += (made - picture[seen]) * hides[:, None]
        picture = hold(picture.reshape(side, side, 3), shot, lamp)
        small = tone(picture).reshape(size, supersample, size, supersample, 3).mean((1, 3))
        return (small * 255 + 0.5).astype(np.uint8)

    def _shade(
        self,
        person: Person,
        shot: Shot,
        topology: Topology,
        vertices: Floats,
        rays: Rays,
        seen: Ints,
        face: Ints,
        where: Floats,
        ray: Floats,
        lamp: Light,
    ) -> tuple[Floats, Floats]:
        """Linear light (n, 3) of the seen pixels, and how much each hides what is behind the person (n,)."""
        corners, region, view = topology.triangles[face], topology.region[face], -ray[seen]
        place, point = blend(vertices, corners, where), blend(topology.point, corners, where)
        normal = blend(vertex_normals(vertices, topology.triangles), corners, where)
        normal /= np.sqrt((normal * normal).sum(1, keepdims=True)) + 1e-9
        normal = np.where(((normal * view).sum(1) < 0)[:, None], -normal, normal)
        uv = np.einsum("nkc,nk->nc", topology.uv[face], where)
        colour, shine = paint(self.template, person, shot, point, uv, region)
        side = round(len(ray) ** 0.5)
        surface = Surface(normal, view, region, *rays.soften(side, seen, place, normal, lamp.direction))
        return shade(colour, shine, surface, lamp), hair.frayed(side, seen, region, point)

    def _body(self, person: Person) -> Floats:
        """Vertices (n, 3) of the person, neutral, looking ahead."""
        if person not in self.bodies:
            local = {}
            for name, value in person.local.items():
                local |= {f"l-{name}": value, f"r-{name}": value} if name in PAIRED else {name: value}
            body = self.template.shape(person.phenotype, local)
            middle = body[TEETH_VERTICES].mean(0) * [0, 1, 1] + [
                0,
                0.003,
                0,
            ]  # a smaller bite never pierces a small chin
            body[TEETH_VERTICES] = (body[TEETH_VERTICES] - middle) * [0.84, 0.88, 0.95] + middle + [0, 0.003, 0]
            self.bodies[person] = body
            while len(self.bodies) > self.remember:
                self.bodies.popitem(last=False)
        return self.bodies[person]

    def _topology(self, person: Person, shot: Shot) -> Topology:
        template = self.template
        patches = (
            *hair.hair_patches(
                template, person.hair, round(person.hairline, 3), round(person.volume, 1), person.parting
            ),
            *hair.beard_patches(template, person.beard),
            *wear.garment_patches(template, shot.garment),
            *(wear.glasses_patches(template, person.frame_shape) if person.glasses != "none" else ()),
        )
        key = tuple(map(id, patches))
        if key not in self.topologies:
            self.topologies[key] = join(template, patches)
            while len(self.topologies) > self.remember:
                self.topologies.popitem(last=False)
        return self.topologies[key]

    def _pose(self, neutral: Floats, topology: Topology, shot: Shot) -> Floats:
        """Vertices of the whole mesh with expression, gaze and turned head."""
        body = neutral.copy()
        for name, amount in shot.actions().items():
            body += self.template.actions[name] * np.float32(amount)
        look = rotation(*shot.eye_angles())
        for part in (LEFT_EYE, RIGHT_EYE):
            middle = neutral[part].mean(0)
            body[part] = (neutral[part] - middle) @ look.T + middle
        vertices = np.concatenate([body, *(patch.place(body) for patch in topology.patches)])
        eyes = (neutral[LEFT_EYE].mean(0) + neutral[RIGHT_EYE].mean(0)) / 2
        pivot = eyes + np.array([0, PIVOT_BEHIND_EYES, -PIVOT_BELOW_EYES], np.float32)
        return turn(vertices, topology.neck, pivot, *shot.angles())

    def _frame(self, neutral: Floats, shot: Shot) -> tuple[Floats, float]:
        """What the camera centres on (3,) and the metres it sees: every head fills the picture alike."""
        eyes = (neutral[LEFT_EYE].mean(0) + neutral[RIGHT_EYE].mean(0)) / 2
        skull = neutral[BODY][neutral[BODY, 2] > eyes[2] + 0.02]
        scale = (
            0.5 * (skull[:, 2].max() - eyes[2]) / AVERAGE_FOREHEAD + 0.5 * abs(skull[:, 0]).max() / AVERAGE_HALF_WIDTH
        )
        width = WIDTH * scale / shot.zoom
        return eyes + np.array([0, 0, -0.044 * scale], np.float32), float(width)


def blend(values: Floats, corners: Ints, where: Floats) -> Floats:
    """Vertex values (m, 3) at barycentric places (n, 3) inside triangles given by their corners (n, 3)."""
    parts = (values[corners[:, k]] * where[:, k, None] for k in range(3))
    return sum(parts, np.zeros((), np.float32))


def join(template: Template, patches: Sequence[Patch]) -> Topology:
    """Body and patches as one indexed mesh; patch vertices follow the body's 19,158."""
    points, necks, triangles = [template.vertices], [template.neck], [template.triangles]
    uvs, regions = [template.uv], [template.region]
    start = len(template.vertices)
    for patch in patches:
        points.append(patch.place(template.vertices))
        necks.append(patch.neck)
        triangles.append(patch.triangles + start)
        uvs.append(np.zeros((len(patch.triangles), 3, 2), np.float32))
        regions.append(np.full(len(patch.triangles), patch.region, np.int32))
        start += len(patch.anchor)
    return Topology(
        tuple(patches),
        np.concatenate(points),
        np.concatenate(necks),
        np.concatenate(triangles),
        np.concatenate(uvs),
        np.concatenate(regions),
    )


def render_many(jobs: Iterable[Job], size: int, workers: params.Workers, supersample: int = 2) -> Iterator[Image]:
    """The jobs' photographs in their order. Group jobs by person: faces are remembered."""
    sized = [(*job, size, supersample) for job in jobs]
    return each(_work, sized, workers, chunk=max(1, min(10, len(sized) // (4 * workers.count))))


def _work(job: tuple[Person, Shot, int, int]) -> Image:
    return _studio().render(*job)


@cache
def _studio() -> Studio:
    """One per process; beside others on one core, since torch would take them all."""
    if parent_process() is not None:
        import torch

        torch.set_num_threads(1)
    return Studio()
