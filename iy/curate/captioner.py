"""Captions by any image-to-text model that transformers opens: BLIP, GIT, ViT-GPT2, or one with a chat template."""
import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, VisionEncoderDecoderModel

from iy.errors import UserError

QUESTION = ("Describe this photo of a person in one sentence: expression, head pose, gaze, light, clothing "
            "and background.")
LONGEST = 80                 # tokens
EMPTY = "a portrait of a person"


class Captioner:
    def __init__(self, model: str, device: str) -> None:
        try:
            self.processor = AutoProcessor.from_pretrained(model)
            self.network = open_model(model).to(device).eval()
            speaks = hasattr(self.processor, "batch_decode")
            self.words = self.processor if speaks else AutoTokenizer.from_pretrained(model)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise UserError(f"curate.caption_model {model} cannot be opened ({' '.join(str(error).split())[:160]}): "
                            "name a folder or model id of an image-to-text model") from None

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> str:
        """A sentence about uint8 RGB (H, W, 3); the same for the same image (greedy decoding)."""
        inputs = self.inputs(Image.fromarray(image)).to(self.network.device)
        said = self.network.generate(**inputs, do_sample=False, max_new_tokens=LONGEST)
        if getattr(self.processor, "chat_template", None):             # these repeat the question
            said = said[:, inputs["input_ids"].shape[1]:]
        return " ".join(self.words.batch_decode(said, skip_special_tokens=True)[0].split()) or EMPTY

    def inputs(self, image: Image.Image):
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
            asked = [{"role": "user", "content": content}]
            return self.processor.apply_chat_template(
                asked, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
        return self.processor(images=image, return_tensors="pt")


def open_model(model: str) -> torch.nn.Module:
    try:
        return AutoModelForImageTextToText.from_pretrained(model)
    except ValueError as error:
        if "VisionEncoderDecoder" not in str(error):                    # not among the auto class's kinds
            raise
        return VisionEncoderDecoderModel.from_pretrained(model)
