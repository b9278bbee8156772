"""`python -m iy.curate`: photos -> a curated collection. 640 photos of 128 px take about 40 s on two cores."""
import logging

from iy import records
from iy.curate import calibrate, captions, duplicates, filters, group, measure, report, split
from iy.errors import UserError
from iy.faces import load_analyser
from iy.params import Params
from iy.records import ACCEPTED, REJECTED
from iy.storage import atomic_folder, write_json

log = logging.getLogger(__name__)


def run(params: Params) -> None:
    """Write data/<profile>/curate (photos.parquet, calibration.json, settings.json) and reports/<profile>/curate."""
    rows = records.read(params.photos_dir / "photos.parquet", records.PHOTO)
    rows = curate(rows, params)
    calibration, genuine, impostor = calibrate.calibrate(rows)
    with atomic_folder(params.data_dir("curate")) as aside:
        records.write(aside / "photos.parquet", rows, records.PHOTO)
        write_json(aside / "calibration.json", calibration)
        params.write(aside)
    report.write(params, rows, calibration, genuine, impostor)
    kept = records.accepted(rows)
    log.info("curate: %d of %d photos kept, %d persons; %s", len(kept), len(rows), len({row["person"] for row in kept}),
             params.report_dir("curate") / "index.html")


def curate(rows: list[dict], params: Params) -> list[dict]:
    """Every row with every column filled and a verdict; rejected rows have a reason."""
    settings = params.curate
    rows = measured(rows, params)
    rows = [filters.judge(row, settings, params.usage) for row in rows]
    rows, original = duplicates.reject_copies(rows, settings)
    need_some(rows)
    rows = captions.caption(rows, params.photos_dir, settings, device(params))
    rows = group.group(rows, settings, load_analyser(params.faces, params.usage).recogniser.threshold)
    rows = [row | {"person": rows[original[i]]["person"]} if i in original else row for i, row in enumerate(rows)]
    return split.split(rows, settings, params.seed)


def measured(rows: list[dict], params: Params) -> list[dict]:
    """All rows in their order; those with an image are measured."""
    seen = iter(measure.measure([row for row in rows if row["shard"] is not None], params.photos_dir, params))
    return [row if row["shard"] is None else next(seen) for row in rows]


def need_some(rows: list[dict]) -> None:
    if not any(row["verdict"] == ACCEPTED for row in rows):
        why = next((row for row in rows if row["verdict"] == REJECTED), None)
        said = f", for example {why['uri']}: {why['reason']}" if why else ""
        raise UserError(f"curate: none of the {len(rows)} photos can be used{said}: add portraits of one person "
                        "each, or loosen the limits under `curate`")


def device(params: Params) -> str:
    if params.device != "auto":
        return params.device
    if params.curate.captioner != "transformers":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
