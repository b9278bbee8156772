"""MLflow: runs whose data held a photo lose their pictures and reports; models that learnt from it say so."""

from typing import TYPE_CHECKING, NamedTuple

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
    experiments = [one.experiment_id for one in client.search_experiments() if one.name.startswith("iy-")]
    runs = every(lambda **more: client.search_runs(experiments, **more)) if experiments else []
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


def strip(run) -> None:
    """Remove what the run keeps: reports and pictures. Figures and settings stay."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(run.info.artifact_uri)
    for one in repository.list_artifacts():
        repository.delete_artifacts(one.path)


def tag(client: "MlflowClient", model: Model, text: str) -> None:
    client.set_model_version_tag(model.name, model.version, TAG, text)
