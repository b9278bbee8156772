"""Faces in photographs: find (box, five landmarks), align, embed, crop. Each model states its licence and its uses."""

from iy.faces.analyse import Analyser, load_analyser, recogniser_name, require
from iy.faces.face import Face, rivals
from iy.faces.recognise import Recogniser, load_recogniser, similarity

__all__ = [
    "Analyser",
    "Face",
    "Recogniser",
    "load_analyser",
    "load_recogniser",
    "recogniser_name",
    "require",
    "rivals",
    "similarity",
]
