"""What the SynPairs stage starts from, in small: real photographs and a bundle of a tiny random model."""

from pathlib import Path

from iy import params
from iy.diffusion import load_base
from iy.model import Personaliser, bundle
from tests import att_faces
from tests.tiny import tiny_base, tiny_settings


def make(folder: Path) -> params.Params:
    """Photographs of three training people, and a bundle whose base lies in `folder`, both in the current folder."""
    settings = tiny_settings(tiny_base(folder))
    settings["workers"]["map"] = "serial"
    settings["synpairs"] |= {"steps": 2, "passes": 2, "batch": 4, "pairs_per_person": 2, "false_match_rate": 0.2}
    settings = params.parse(settings, "tiny")
    att_faces.write(settings, {"s1": "train", "s2": "train", "s3": "train", "s4": "test"}, per_person=2)
    bundle.save(Personaliser(load_base(settings.base), settings.model), settings.bundle_dir(1), {})
    return settings


def files(settings: params.Params) -> dict[str, bytes]:
    """What the stage wrote."""
    found = {}
    for folder in (settings.data_dir("synpairs"), settings.report_dir("synpairs")):
        found |= {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return found
