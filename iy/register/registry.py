"""MLflow's model registry, as far as registering needs it."""

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iy import git, params
from iy.model.bundle import read_config
from iy.register.gate import Metrics
from iy.tracking import tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
METRIC = "iy.metric."


def champion(client: "MlflowClient", name: str) -> "ModelVersion | None":
    return aliased(client, name, CHAMPION)


def aliased(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    """The version that the registry calls so; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model, no such alias
            return None
        raise


def metrics_of(version: "ModelVersion | None") -> Metrics | None:
    """The metrics that `metric_tags` wrote; None for no version."""
    if version is None:
        return None
    return {
        name.removeprefix(METRIC): json.loads(text) for name, text in version.tags.items() if name.startswith(METRIC)
    }


def metric_tags(metrics: Metrics, settings: params.Register) -> dict[str, str]:
    names = (settings.metric, settings.alignment)
    return {f"{METRIC}{name}": json.dumps(metrics[name], sort_keys=True) for name in names}


def lineage(bundle: Path, sha: str, settings: params.Params) -> dict[str, str]:
    """What a version was made of: bundle, commit, settings, data, the stage before it."""
    made = read_config(bundle)["lineage"]
    data = {f"iy.data.{name}": str(value) for name, value in (made.get("data") or {}).items()}
    return {
        "iy.bundle": sha,
        "iy.settings": settings.digest(),
        "iy.profile": settings.profile,
        "iy.stage": "finetune4",
        "iy.parent": str(made.get("parent")),
        "iy.commit": git.commit() or "no git",
        "iy.changed": str(git.changed()).lower(),
        **data,
    }


def find(client: "MlflowClient", name: str, tags: dict[str, str]) -> "ModelVersion | None":
    """The newest version of the same bundle, settings and metrics; its commit may be another."""
    same = {key: value for key, value in tags.items() if key in ("iy.bundle", "iy.settings") or key.startswith(METRIC)}
    found = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if {**version.tags, **same} == version.tags and "iy.verdict" in version.tags
    ]
    return max(found, key=lambda version: int(version.version), default=None)


def log(run_id: str, package: Path, requirements: list[str], example: dict[str, Any], device: str) -> str:
    """Store the model under the run and return its URI. The project's code goes with it."""
    import mlflow
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    import iy

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    draws = json.loads((package / "settings.json").read_text())["draws"]
    kinds = {"steps": "long", "guidance": "double", "identity_guidance": "double"}
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "prompt"), ColSpec("string", "reference"), ColSpec("long", "seed")]),
        outputs=Schema([ColSpec("string", "image")]),
        params=ParamSchema([ParamSpec(name, kind, draws[name]) for name, kind in kinds.items()]),
    )
    mlflow.set_tracking_uri(tracking_uri())
    mlflow.set_registry_uri(tracking_uri())
    with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*type hints")  # the signature says the same
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("served.py")),
            artifacts={"package": str(package)},
            code_paths=[str(Path(iy.__file__).parent)],
            pip_requirements=requirements,
            signature=signature,
            model_config={"device": device},
            input_example=pandas.DataFrame([example]),
        )
    return logged.model_uri


def create(client: "MlflowClient", name: str, uri: str, run_id: str, tags: dict[str, str]) -> "ModelVersion":
    import mlflow

    made = mlflow.register_model(uri, name, tags=tags)
    return client.get_model_version(name, made.version)


def place(client: "MlflowClient", version: "ModelVersion", promoted: bool) -> None:
    client.set_registered_model_alias(version.name, CHALLENGER, version.version)
    if promoted:
        client.set_registered_model_alias(version.name, CHAMPION, version.version)
