"""What a module can load, read from the imports in its source, those inside functions included.

It tells which code decided what an unfinished stage keeps, and which packages a registered model needs.
"""

import ast
import functools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "iy"


def reached(modules: Iterable[str]) -> set[Path]:
    """The project's files that these modules (as `iy.model.bundle`) are and import, directly or not."""
    seen: set[Path] = set()
    waiting = [file for module in modules for file in files(module)]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += [file for name in imported(path) for file in files(name)]
    return seen


def packages(modules: Iterable[str]) -> set[str]:
    """Top-level names of what these modules import that is neither the project's nor Python's own."""
    names = {name.partition(".")[0] for path in reached(modules) for name in imported(path)}
    return names - sys.stdlib_module_names - {PACKAGE}


def files(name: str) -> Iterator[Path]:
    """The file of `iy.a.b`, or of `iy.a` when b is a name inside it, and those of the packages above."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return
    for count in range(1, len(parts) + 1):
        place = ROOT.joinpath(*parts[:count])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                yield path


def imported(path: Path) -> frozenset[str]:
    """Absolute dotted names that a file imports; `from a import b` gives a and a.b. What only a type checker sees is
    left out.
    """
    return named(path.read_text(encoding="utf-8"), path.relative_to(ROOT).with_suffix("").parts[:-1])


@functools.cache  # a stage asks six times, of some hundred files
def named(source: str, package: tuple[str, ...]) -> frozenset[str]:
    """What the source of a file in a package imports."""
    names: set[str] = set()
    for node in executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes below, but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from executed(node)
