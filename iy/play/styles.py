"""The LoRAs that the page offers: safetensors files of one folder, called by their place in it."""

from pathlib import Path

from iy.errors import UserError


def styles_in(folder: Path | None) -> dict[str, Path]:
    """Name -> file, also of the folders below; none where no folder was named."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise UserError(f"--loras {folder}: there is no such folder")
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.safetensors"))}


def style_file(styles: dict[str, Path], name: str) -> Path:
    if name not in styles:
        raise UserError(f"there is no LoRA {name!r} in the folder that --loras names: load the page again")
    return styles[name]


def adapter(number: int) -> str:
    """What a loaded LoRA is called in the pipeline; names of files may hold what names of networks cannot."""
    return f"style{number}"
