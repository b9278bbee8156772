"""The order of the stages and what each waits for, read from dvc.yaml: the graph is stated once."""

from pathlib import Path

import yaml

from iy.errors import UserError


def names(folder: Path | str = ".") -> list[str]:
    """The stages as written in dvc.yaml, without opening DVC."""
    path = Path(folder, "dvc.yaml")
    if not path.exists():
        raise UserError(f"{path.resolve()} does not exist: run from the project folder")
    return list(yaml.safe_load(path.read_text(encoding="utf-8")).get("stages", {}))


def upstream(folder: Path | str = ".") -> dict[str, list[str]]:
    """Each stage with the stages whose outputs it reads, in an order in which they can run."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(folder)) as repo:
            graph = repo.index.graph  # edges point from a stage to what it needs
            needs = {stage.name: [one.name for one in graph.successors(stage)] for stage in graph}
    except DvcException as error:
        raise UserError(f"dvc.yaml: {' '.join(str(error).split())}") from None
    return ordered(needs, names(folder))


def ordered(needs: dict[str, list[str]], written: list[str]) -> dict[str, list[str]]:
    """`needs` sorted so that a stage follows all it needs; among those free to run, the one written first."""
    place = {name: number for number, name in enumerate(written)}
    left = dict(sorted(needs.items(), key=lambda item: place.get(item[0], len(place))))
    done: dict[str, list[str]] = {}
    while left:
        stage = next(name for name, before in left.items() if all(one in done for one in before))
        done[stage] = sorted(left.pop(stage), key=list(done).index)
    return done


def outputs(folder: Path | str = ".") -> list[str]:
    """The folders and files that the stages write, relative to `folder`."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        return sorted(Path(out.fs_path).relative_to(repo.root_dir).as_posix() for out in repo.index.outs)
