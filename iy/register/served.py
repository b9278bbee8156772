"""The registered model as MLflow runs it ("models from code"): rows of prompt, reference photo and seed to pictures.

An empty reference draws from the prompt alone. It computes on the settings' device, or on another that is named:

model = mlflow.pyfunc.load_model("models:/iy-studio@champion", model_config={"device": "cpu"})
model.predict(pandas.DataFrame([{"prompt": "...", "reference": base64 of a photo's bytes, "seed": 0}]))["image"]
"""

import base64
import binascii
import json
from pathlib import Path

import pandas
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from iy import params
from iy.errors import UserError
from iy.generate.portrait import Portraitist, Terms
from iy.pictures import Limits
from iy.policy.rule import Rules
from iy.provenance.mark import clock


class Portraits(PythonModel):
    """Artifact `package`: bundle/, the base's weights under their own relative paths, settings.json."""

    def load_context(self, context) -> None:
        package = Path(context.artifacts["package"])
        settings = json.loads((package / "settings.json").read_text(encoding="utf-8"))
        faces = params.Faces.model_validate(settings["faces"])
        if faces.pack:
            faces = faces.model_copy(update={"pack": str(package / faces.pack)})
        self.draws = settings["draws"]
        place = faces, settings["usage"], Limits(**settings["limits"]), context.model_config["device"]
        rules = settings["policy"] | {"settings": params.Policy.model_validate(settings["policy"]["settings"])}
        provenance = params.Provenance.model_validate(settings["provenance"])
        self.artist = Portraitist(package / "bundle", Terms(*place, provenance, Rules(**rules), **settings["model"]))

    def predict(self, context, model_input, params=None):
        """A DataFrame with column `image`: one base64 PNG per row. `params`: steps, guidance, identity_guidance."""
        draws = {**self.draws, **(params or {})}
        crops = [
            self.artist.reference(photo(text, number), f"row {number}: reference") if text else None
            for number, text in enumerate(model_input["reference"])
        ]
        images = self.artist.draw(
            crops, list(model_input["prompt"]), [int(seed) for seed in model_input["seed"]], **draws
        )
        when = clock()  # of them all: equal rows are equal files
        files = [self.artist.export(*one, when) for one in zip(images, model_input["prompt"], strict=True)]
        return pandas.DataFrame({"image": [base64.b64encode(file).decode() for file in files]})


def photo(text: str, number: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise UserError(f"row {number}: reference is not base64: send base64 of a JPEG's or PNG's bytes") from None


set_model(Portraits())
