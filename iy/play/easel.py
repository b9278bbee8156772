"""What the page can have done: a photograph looked at, pictures drawn with each chosen model, one of them saved.

One drawing at a time: two would share memory and processors, and each take longer.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iy import names
from iy.errors import UserError
from iy.params import Params
from iy.play.asked import Drawing
from iy.play.models import Choice, Models, crop_kind
from iy.play.pages import Drawn, Page, Seen, embedded
from iy.play.record import python, record
from iy.storage import png, write_bytes, write_json

LONGEST_NAME = 120  # characters kept of a photograph's name
Tell = Callable[[dict[str, Any]], None]


class Easel:
    """styles: LoRAs by name. out: where pictures are saved."""

    def __init__(self, settings: Params, models: Models, styles: dict[str, Path], out: Path) -> None:
        self.settings, self.models, self.styles, self.out = settings, models, styles, out
        self.looking, self.drawing = threading.Lock(), threading.Lock()

    def describe(self, key: str) -> dict[str, Any]:
        """What the page needs to know of a model before it draws. crop: equal where the same crops are read."""
        from iy.model.bundle import read_config  # seconds: torch

        config = read_config(self.models.choice(key).find())
        model, size = config["model"], config["base"].image_size
        return {
            "branches": ["vision", *config["base"].text],
            "size": size,
            "crop": [size, model.crop_margin, model.mask_face],
        }

    def look(self, page: Page, photo: bytes, name: str, keys: list[str]) -> dict[str, Any]:
        """Find the face of a photograph and keep what the models would see of it; the photograph is not kept."""
        name = names.clean(Path(name).name)[:LONGEST_NAME] or "photograph"
        artists = [self.models.open(key) for key in keys]
        with self.looking:
            crops = {}
            for artist in artists:
                if (kind := crop_kind(artist)) not in crops:
                    crops[kind] = artist.reference(photo, name)
        return {"face": page.see(Seen(name, crops)), "crops": [embedded(png(crop)) for crop in crops.values()]}

    def draw(self, page: Page, asked: Drawing, tell: Tell, stop: threading.Event) -> None:
        """Tells how far it is and, after each model, its pictures, which stand in place of the last drawing's."""
        faces = [page.face(person.face) for person in asked.people]
        page.pictures = {}
        if self.drawing.locked():
            tell({"waits": True})
        with self.drawing:
            for key in asked.models:
                if stop.is_set():  # while it waited
                    return
                choice = self.models.choice(key)
                tell({"model": key, "opens": choice.title})
                self.draw_with(choice, page, asked, faces, lambda news, key=key: tell({"model": key} | news), stop)

    def draw_with(
        self, choice: Choice, page: Page, asked: Drawing, faces: list[Seen], tell: Tell, stop: threading.Event
    ) -> None:
        from iy.play.drawing import draw  # seconds: torch

        artist = self.models.open(choice.id)
        crops = [face.crop(crop_kind(artist)) for face in faces]
        images = draw(artist, asked, crops, self.styles, tell, stop)
        photos, profile = [face.name for face in faces], self.settings.profile
        code = python(asked, choice, profile, photos, self.styles)
        drawn = [
            Drawn(artist.export(image, asked.prompt), record(asked, choice, seed, photos, code, profile))
            for seed, image in zip(asked.seeds, images, strict=True)
        ]
        named = zip(page.show(drawn), asked.seeds, drawn, strict=True)
        tell({"pictures": [{"id": key, "seed": seed, "png": embedded(one.png)} for key, seed, one in named]})

    def code(self, page: Page, asked: Drawing) -> str:
        """Python that draws the same with the first of the models."""
        photos = [page.face(person.face).name for person in asked.people]
        return python(asked, self.models.choice(asked.models[0]), self.settings.profile, photos, self.styles)

    def save(self, page: Page, key: str) -> Path:
        """Write a picture and, beside it, its settings; the picture's path."""
        if key not in page.pictures:
            raise UserError("this picture is no longer at hand: draw it again")
        picture = page.pictures[key]
        path = self.out / f"{time.strftime('%Y%m%d-%H%M%S')}-{key}.png"
        try:
            write_json(path.with_suffix(".json"), picture.record)
            write_bytes(path, picture.png)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}: see to --out") from None
        return path
