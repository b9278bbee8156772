"""A captioner of BLIP's published base size with random weights, saved as transformers saves one.

Every caption ends with its first word: what it costs is the picture's way through the vision tower (224 million
parameters, 384 px) and one step of the decoder, which is the least that any captioner of this size can cost.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
)

SHAPE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "portrait")


def save(folder: Path) -> None:
    words = folder / "vocab.txt"
    folder.mkdir(parents=True)
    words.write_text("\n".join(WORDS))
    tokenizer: Any = BertTokenizer(str(words))
    torch.manual_seed(0)
    config: Any = BlipConfig(text_config={**SHAPE, "encoder_hidden_size": SHAPE["hidden_size"]}, vision_config=SHAPE)
    end = tokenizer.sep_token_id
    for part in (config.text_config, config):
        part.pad_token_id, part.bos_token_id, part.eos_token_id, part.sep_token_id = 0, 2, end, end
    network = BlipForConditionalGeneration(config)
    with torch.no_grad():
        network.text_decoder.cls.predictions.decoder.bias[end] = 1e4
    network.save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(), tokenizer).save_pretrained(folder)
