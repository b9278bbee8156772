"""What a run leaves in Prefect: tables of figures, pictures and links to the report and to the MLflow run."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.runtime import flow_run

from flows import environment, reports
from flows.place import Place
from iy.tracking import local

FACTS = ("metrics.json", "calibration.json", "bounds.json", "training.json", "registration.json")


def publish(stage: str, where: Place, state: str) -> None:
    """Artifacts of one stage that is up to date, from what it wrote under data/, models/ and reports/."""
    profile = where.settings.profile
    for kind in ("data", "models", "reports"):
        for name in FACTS:
            path = where.folder / kind / profile / stage / name
            if path.exists():
                create_table_artifact(
                    table=rows(json.loads(path.read_text())),
                    key=f"{stage}-{path.stem}",
                    description=f"{stage}: {path.stem} ({state})",
                )
    report = keep_report(stage, where)
    if not report:
        return
    if (report / "index.html").exists():
        create_link_artifact(
            address(report / "index.html", where.state),
            link_text=f"{stage}: report",
            key=f"{stage}-report",
            description=f"The report of {stage} as this run left it",
        )
    if picture := best_picture(report):
        create_image_artifact(
            address(picture, where.state), key=f"{stage}-pictures", description=f"{stage}: {picture.stem}"
        )


def rows(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """A table: metrics by model for {model: {metric: {value, low, high, n}}}, else one row per single value."""
    if facts and all(
        isinstance(one, dict) and all(isinstance(cell, dict) and "value" in cell for cell in one.values())
        for one in facts.values()
    ):
        metrics = list(dict.fromkeys(metric for one in facts.values() for metric in one))
        return [
            {"metric": metric, **{model: figure(one.get(metric)) for model, one in facts.items()}} for metric in metrics
        ]
    return [{"name": name, "value": short(value)} for name, value in flat(facts).items()]


def figure(cell: dict[str, Any] | None) -> str:
    """`0.512 (0.48 to 0.55)`; a dash where nothing was measured."""
    if not cell or cell["value"] is None:
        return "-"
    spread = (
        f" ({cell['low']:.3g} to {cell['high']:.3g})"
        if cell.get("low") is not None and cell.get("high") is not None
        else ""
    )
    return f"{cell['value']:.3g}{spread}"


def flat(value: Any, place: str = "") -> dict[str, Any]:
    """Single values by dotted key; a long list shows as its length, first and last entry (curves live in MLflow)."""
    if isinstance(value, dict):
        return {
            key: one
            for name, inner in value.items()
            for key, one in flat(inner, f"{place}.{name}" if place else name).items()
        }
    if isinstance(value, list) and len(value) > 8:
        return {place: f"{len(value)} values, {short(value[0])} … {short(value[-1])}"}
    return {place: value}


def short(value: Any) -> Any:
    return (
        float(f"{value:.5g}")
        if isinstance(value, float)
        else value
        if isinstance(value, (int, bool))
        else str(value)[:200]
    )


def keep_report(stage: str, where: Place) -> Path | None:
    """This run's own copy of a stage's report: the next run replaces the one under reports/."""
    source = where.folder / "reports" / where.settings.profile / stage
    if not source.is_dir():
        return None
    target = reports.folder(where.state) / str(flow_run.id) / stage
    shutil.copytree(source, target, dirs_exist_ok=True)
    return target


def best_picture(report: Path) -> Path | None:
    """The biggest picture of a report: its overview grid."""
    pictures = [path for kind in ("*.png", "*.jpg") for path in report.rglob(kind)]
    return max(pictures, key=lambda path: (path.stat().st_size, path.name), default=None)


def address(path: Path, state: Path) -> str:
    """Served over HTTP under `make ui`, else the file itself."""
    services = environment.running()
    if services and "reports" in services:
        return f"{services['reports']}/{path.relative_to(reports.folder(state)).as_posix()}"
    return path.as_uri()


def summary(where: Place, pipeline: str, home: bool) -> dict[str, str]:
    """Where to look, as an artifact and as {name: place}. `home`: the outputs lie in the project too."""
    kept = reports.folder(where.state) / pipeline
    report = next(
        (path for stage in ("evaluate", "synpairs", "curate") if (path := kept / stage / "index.html").exists()), None
    )
    places = {}
    if report:
        own = where.home / "reports" / where.settings.profile / report.relative_to(kept)
        places["Report"] = str(own if home else report)
    if link := mlflow_run(where.state, pipeline):
        places["MLflow run"] = link
        create_link_artifact(
            link,
            link_text="MLflow run",
            key="mlflow-run",
            description="Settings, curves, pictures and the model in MLflow",
        )
    places["Prefect run"] = prefect_run()
    links = places | ({"Report": f"[{report.parent.name}]({address(report, where.state)})"} if report else {})
    create_markdown_artifact(
        "# Where to look\n" + "".join(f"- **{name}** {place}\n" for name, place in links.items()),
        key="where-to-look",
        description="Report, MLflow run, Prefect run",
    )
    return places


def mlflow_run(state: Path, pipeline: str) -> str | None:
    """The address of the MLflow run that holds this pipeline's stages; None when every stage was cached."""
    import mlflow

    services = environment.running()
    store = os.environ.get("MLFLOW_TRACKING_URI") or local.address(state / "mlflow.db")
    if store.startswith("sqlite:///") and not Path(store.removeprefix("sqlite:///")).exists():
        return None
    client = mlflow.MlflowClient(store)
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(
        experiments,
        filter_string=f"tags.`iy.pipeline` = '{pipeline}' and tags.`iy.kind` = 'pipeline'",
        order_by=["attributes.start_time ASC"],
        max_results=1,
    )
    if not found:
        return None
    server = store if store.startswith("http") else (services or {}).get("mlflow")
    page = f"#/experiments/{found[0].info.experiment_id}/runs/{found[0].info.run_id}"
    return f"{server}/{page}" if server else f"http://127.0.0.1:5000/{page}"


def prefect_run() -> str:
    named = os.environ["PREFECT_API_URL"].removesuffix("/api") if environment.shared_server() else None
    server = named or (environment.running() or {}).get("prefect") or "http://127.0.0.1:4200"
    return f"{server}/runs/flow-run/{flow_run.id}"
