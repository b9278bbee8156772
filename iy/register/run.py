"""From a bundle and its evaluation to a version in the registry: challenger always, champion when the gate lets it."""

import base64
import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from iy import params, records
from iy.errors import UserError
from iy.register import gate, registry
from iy.storage import folder_sha256, png, read_image, write_json
from iy.tracking import StageRun, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)
STAGE = "stage4"


def run(settings: params.Params, tracked: StageRun) -> None:
    """Write reports/<profile>/register/registration.json, which holds nothing of when or where."""
    bundle = settings.bundle_dir(4)
    metrics = read_metrics(settings.report_dir("evaluate") / "metrics.json")
    if not (bundle / "config.json").is_file():
        raise UserError(f"{bundle} holds no finetuned model: run the stages before this one (dvc repro)")
    if tracked.client is None or tracked.run_id is None:
        raise UserError(f"the registry {tracking_uri()} cannot be used ({tracked.why}): mend that, then run again")
    candidate, sha = metrics[STAGE], folder_sha256(bundle)
    tracked.log_dataset("metrics", settings.report_dir("evaluate") / "metrics.json")
    client = tracked.client
    champion = registry.champion(client, settings.register_.name)
    # before the slow part: it may refuse to compare
    verdict = gate.decide(candidate, registry.metrics_of(champion), settings.register_)
    version, verdict = registered(client, settings, bundle, sha, candidate, verdict, tracked.run_id)
    registry.place(client, version, verdict.verdict == gate.PROMOTED)
    tracked.set_tags({"iy.verdict": verdict.verdict, "iy.reason": verdict.reason, "iy.version": str(version.version)})
    tracked.log_metrics(
        {name: found["value"] for name, found in candidate.items() if isinstance(found.get("value"), int | float)}
    )
    log.info(
        "%s version %s is challenger; %s as champion: %s",
        version.name,
        version.version,
        verdict.verdict,
        verdict.reason,
    )
    report(settings, candidate, sha, verdict)


def registered(
    client: "MlflowClient",
    settings: params.Params,
    bundle: Path,
    sha: str,
    candidate: gate.Metrics,
    verdict: gate.Verdict,
    run_id: str,
) -> "tuple[ModelVersion, gate.Verdict]":
    """The version of this very bundle and evaluation with its recorded verdict, or a new one with `verdict`."""
    from iy.register import package

    tags = {**registry.lineage(bundle, sha, settings), **registry.metric_tags(candidate, settings.register_)}
    known = registry.find(client, settings.register_.name, tags)
    if known is not None:
        return known, gate.Verdict(known.tags["iy.verdict"], known.tags["iy.reason"])
    with tempfile.TemporaryDirectory(prefix="iy-register-") as scratch:
        folder = package.pack(bundle, settings, Path(scratch, "package"))
        uri = registry.log(run_id, folder, package.requirements(settings), example(settings), settings.device)
    tags |= {"iy.verdict": verdict.verdict, "iy.reason": verdict.reason, "iy.run": run_id}
    return registry.create(client, settings.register_.name, uri, run_id, tags), verdict


def read_metrics(path: Path) -> dict[str, gate.Metrics]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run evaluate first (dvc repro)") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and run evaluate again") from None
    if not isinstance(metrics, dict) or STAGE not in metrics:
        raise UserError(f"{path} says nothing about {STAGE}: run evaluate again")
    return metrics


def example(settings: params.Params) -> dict[str, Any]:
    """A row as a caller sends it, with a synthetic test person's photograph; real people's never enter the registry."""
    synthetic = records.usable("test") & (pc.field("consent") == "synthetic")
    rows = records.read(settings.data_dir("curate") / "photos.parquet", records.PHOTO, where=synthetic)
    if not rows:
        return {"prompt": "a portrait of a person", "reference": "", "seed": 0}
    row = min(rows, key=lambda row: row["id"])
    photo = base64.b64encode(png(read_image(settings.photos_dir, row))).decode()
    return {"prompt": row["caption"] or "a portrait of a person", "reference": photo, "seed": 0}


def report(settings: params.Params, candidate: gate.Metrics, sha: str, verdict: gate.Verdict) -> None:
    names = (settings.register_.metric, settings.register_.alignment)
    write_json(
        settings.report_dir("register") / "registration.json",
        {
            "model": settings.register_.name,
            "bundle": sha,
            "settings": settings.digest(),
            "verdict": verdict.verdict,
            "reason": verdict.reason,
            "metrics": {name: candidate[name] for name in names},
        },
    )
