"""Any image classifier that transformers opens, asked for the probability of some of its labels."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from iy import params
from iy.curate.networks import Batches, opening
from iy.errors import UserError

SHOWN = 20  # labels that an error names


class Classifier:
    def __init__(self, name: str, settings: params.Classifier, batch: int, device: torch.device | str) -> None:
        self.settings, key, model = settings, f"curate.classifiers.{name}.model", settings.model
        with opening(key, model, "an image classifier with safetensors weights"):
            self.processor = AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
            network, found = AutoModelForImageClassification.from_pretrained(
                model, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
            )
            self.network = network.to(device).eval()
        if found["missing_keys"]:  # transformers would draw these at random
            raise UserError(
                f"{key} {model} is no trained classifier, its weights lack {min(found['missing_keys'])}: name a "
                "folder or model id of one that was trained"
            )
        self.columns = columns(network.config.id2label, settings.label, name, model)
        self.batches = Batches(batch, key)

    def __call__(self, images: Sequence[np.ndarray]) -> list[float]:
        """The probability 0..1 that each uint8 RGB (H, W, 3) has one of the refused labels: the sum of theirs."""
        return self.batches(self.several, images)

    @torch.inference_mode()
    def several(self, images: Sequence[np.ndarray]) -> list[float]:
        inputs = self.processor(images=list(images), return_tensors="pt").to(self.network.device)
        logits = self.network(**inputs).logits  # (B, labels)
        apart = logits.shape[1] == 1 or self.network.config.problem_type == "multi_label_classification"
        shares = logits.sigmoid() if apart else logits.softmax(1)
        return shares[:, self.columns].sum(1).clamp(max=1).tolist()


def columns(names: dict[int, str], wanted: Sequence[str], name: str, model: str) -> list[int]:
    """The places of the `wanted` labels among the model's."""
    there = list(names.values())
    if unknown := [label for label in wanted if label not in there]:
        more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
        raise UserError(
            f"curate.classifiers.{name}.label: {model} has no label {unknown[0]!r}: choose among "
            f"{', '.join(map(repr, there[:SHOWN]))}{more}"
        )
    return [i for i, label in names.items() if label in wanted]
