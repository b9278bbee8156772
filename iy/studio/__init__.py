"""The photo studio: portraits of people who do not exist, with every attribute known exactly."""

from iy.studio.people import Person, sample_people, sample_person
from iy.studio.render import Studio, render_many
from iy.studio.shots import Shot, sample_shot, shot_from

__all__ = ["Person", "Shot", "Studio", "render_many", "sample_people", "sample_person", "sample_shot", "shot_from"]
