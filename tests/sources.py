"""The project's own source files and what they import, read with `ast`."""

import ast
from collections.abc import Iterator
from pathlib import Path

OURS = ("iy", "flows", "infra", "foundation")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in Path(folder).rglob("*.py"))


def named(path: Path) -> Iterator[tuple[str, str | None]]:
    """(module, name in it) of each import anywhere in a file: in functions and under TYPE_CHECKING too."""
    package = path.with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            yield from ((base, alias.name) for alias in node.names)


def imported(path: Path) -> set[str]:
    """Absolute dotted names that a file imports; `from a import b` gives a and a.b."""
    return {name for base, inner in named(path) for name in (base, *([f"{base}.{inner}"] if inner else []))}


def file_of(module: str) -> Path | None:
    place = Path(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def files_imported(path: Path) -> set[Path]:
    """The project's files that a file names: of `from a import b` that of a.b where b is a module, else that of a."""
    found = {(inner and file_of(f"{base}.{inner}")) or file_of(base) for base, inner in named(path)}
    return {file for file in found if file and file.parts[0] in OURS}


def circles(arrows: dict[Path, set[Path]]) -> list[list[Path]]:
    """Sets of files each of which imports, by way of others, every one of them; files that import themselves too."""
    reached = {path: below(path, arrows) for path in arrows}
    found = {frozenset(other for other in reached[path] if path in reached[other]) for path in arrows}
    return sorted(sorted(circle) for circle in found if circle)


def below(start: Path, arrows: dict[Path, set[Path]]) -> set[Path]:
    """All that importing `start` can load; itself only where it stands in a circle."""
    seen: set[Path] = set()
    waiting = [*arrows[start]]
    while waiting:
        if (path := waiting.pop()) not in seen:
            seen.add(path)
            waiting += arrows[path]
    return seen
