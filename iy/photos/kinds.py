"""What a file in a collection may be, by its name."""

from pathlib import PurePath

from iy.spreadsheet import TABLES

PICTURES = frozenset("jpg jpeg jpe jfif png webp tif tiff bmp gif heic heif hif avif ppm pgm jp2 mpo".split())
SIDECARS = (".txt", ".json")
UNREAD = (".yaml", ".yml", ".toml", ".xmp", ".xml", ".license", ".licence", ".consent")  # speak too, and are not read
METADATA = tuple(f"metadata{kind}" for kind in TABLES)  # Hugging Face's imagefolder
MACHINES = ("thumbs.db", "desktop.ini")  # what file managers leave
MAC = "__macosx"  # what a Mac packs beside the files: names without their contents


def hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") or part.casefold() == MAC for part in parts)


def is_photo(parts: tuple[str, ...]) -> bool:
    """May the file of that path be a photo? Not what is hidden, made by a file manager, or says something of photos."""
    last = parts[-1].casefold()
    return not hidden(parts) and not last.endswith((*SIDECARS, *UNREAD, *MACHINES)) and last not in METADATA


def is_picture(name: str) -> bool:
    """Does the name itself say that it is a picture?"""
    return PurePath(name).suffix.casefold()[1:] in PICTURES


def is_tar(name: str) -> bool:
    return PurePath(name).suffix.casefold() == ".tar"


def is_table(name: str) -> bool:
    return name.casefold().endswith(TABLES)


def is_metadata(name: str) -> bool:
    return PurePath(name).name.casefold() in METADATA
