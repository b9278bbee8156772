"""MLflow: runs whose data held a photo lose their pictures and reports; models that learnt from it say so."""

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlparse

from iy.errors import UserError
from iy.tracking import connect, local
from iy.tracking.store import own_database

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "iy.erased"
DATA = "iy.data."  # tags of a model version: what it was made of, by digest
PIPELINE = "mlflow.parentRunId"


class Model(NamedTuple):
    """A registered version: its name, number, and the aliases that stand for it."""

    name: str
    version: str
    aliases: list[str]

    def __str__(self) -> str:
        return f"{self.name} {self.version}" + (f" ({', '.join(self.aliases)})" if self.aliases else "")


def models(client: "MlflowClient", digests: set[str]) -> list[Model]:
    """The versions that were made of tables with these digests."""
    found = []
    for one in every(client.search_model_versions):
        made_of = {value for name, value in one.tags.items() if name.startswith(DATA)}
        if made_of & digests:
            aliases = client.get_registered_model(one.name).aliases
            found.append(
                Model(one.name, str(one.version), sorted(a for a, v in aliases.items() if str(v) == str(one.version)))
            )
    return found


def touched(client: "MlflowClient", digests: set[str]) -> list:
    """The runs of every pipeline in which a stage read one of the tables: others of its stages drew from it."""
    from mlflow.entities import ViewType

    named = client.search_experiments(view_type=ViewType.ALL)  # what was deleted in the page is still on disk
    experiments = [one.experiment_id for one in named if one.name.startswith("iy-")]
    if not experiments:
        return []
    runs = every(lambda **more: client.search_runs(experiments, run_view_type=ViewType.ALL, **more))
    pipelines = {run.data.tags.get(PIPELINE, run.info.run_id) for run in runs if digests & read(run)}
    return [run for run in runs if run.data.tags.get(PIPELINE, run.info.run_id) in pipelines]


def read(run) -> set[str]:
    """Digests of the data sets that a run names as its inputs."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {tag.value for one in inputs for tag in one.tags if tag.key == "iy.sha256"}


def every(search) -> list:
    """All pages of a search."""
    found, token = [], None
    while True:
        page = search(page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def refuse_elsewhere(runs: list[str]) -> None:
    """Nothing is said to be gone where nobody looked: pictures on another machine, or in another project's folder."""
    if not runs:
        return
    client = connect()
    places = {client.get_run(run).info.artifact_uri or "" for run in runs}
    if far := sorted(place for place in places if not within_reach(place)):
        raise UserError(
            f"MLflow keeps what {len(far)} runs left at {far[0]}, which is not in this project's folder: bring it to "
            f"{local.ARTIFACTS} here, or erase where it is; nothing was erased"
        )


def within_reach(place: str) -> bool:
    """Whether a run's place can be looked into: any server's; of folders those of the project, or what is here."""
    if urlparse(place).scheme not in ("", "file"):
        return True
    folder, own = local.path_of(place), own_database()
    if own is not None:
        return folder.is_relative_to(own.parent / local.ARTIFACTS.name)
    return folder.parents[1].is_dir()  # <experiment>/<run>/artifacts: a run that left nothing has no folder


def strip(run) -> None:
    """Remove what the run keeps: reports and pictures. Figures and settings stay."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(run.info.artifact_uri)
    for one in repository.list_artifacts():
        repository.delete_artifacts(one.path)


def tag(client: "MlflowClient", model: Model, text: str) -> None:
    client.set_model_version_tag(model.name, model.version, TAG, text)
