"""`--photos PLACE`: what a user types for the settings that read their own photographs."""
import json
from pathlib import Path

from iy import s3
from iy.errors import UserError
from iy.storage import sha256


def own_photos(place: str) -> list[str]:
    """Settings that read a folder, here or in S3; the snapshot changes with its files, so that new ones are noticed."""
    if place.startswith(s3.SCHEME):
        bucket, below = s3.place(place, "--photos")
        with s3.told(place, "--photos"):
            items = [list(item) for item in s3.listed(s3.client(), bucket, below)]
        snapshot = sha256(json.dumps(items).encode())[:16]
        return ["photos.source=s3", f"photos.path={json.dumps(place)}", f'photos.snapshot="{snapshot}"']
    folder = Path(place).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"--photos {folder}: there is no such folder")
    try:
        listing = [(str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns)
                   for path in sorted(folder.rglob("*")) if (stat := path.lstat())]
    except OSError as error:
        raise UserError(f"--photos {folder}: {error.filename}: {error.strerror}") from None
    if not listing:
        raise UserError(f"--photos {folder}: the folder is empty: put photographs in it, one sub-folder per person if you can")
    snapshot = sha256(json.dumps(listing).encode())[:16]
    return ["photos.source=folder", f"photos.path={json.dumps(str(folder))}", f'photos.snapshot="{snapshot}"']
