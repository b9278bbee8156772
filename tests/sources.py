"""The project's own source files and what they import, read with `ast`."""

import ast
from pathlib import Path


def imported(path: Path) -> set[str]:
    """Absolute dotted names that a file imports anywhere, functions included; `from a import b` gives a and a.b."""
    package = path.with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def sources(folder: str) -> list[Path]:
    return sorted(Path(folder).rglob("*.py"))
