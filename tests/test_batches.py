"""Pictures are drawn as many at a time as the memory of the device holds."""

import logging

import diffusers
import numpy as np
import pytest
import torch

from iy.errors import UserError
from iy.generate import Cell, draw, in_batches


class Small:
    """A pipeline on a device that holds two pictures; a picture is as grey as its seed."""

    def __init__(self, holds):
        self.holds, self.asked = holds, []

    def set_progress_bar_config(self, disable):
        assert disable

    def __call__(self, prompts, *, seeds, **_):
        self.asked.append(len(prompts))
        if len(prompts) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return diffusers.ImagePipelineOutput(images=[np.full((4, 4, 3), seed, np.uint8) for seed in seeds])


def test_a_batch_that_memory_does_not_hold_is_halved_once_for_all(caplog):
    cells, pipeline = [Cell("a man", None, seed) for seed in range(11)], Small(holds=2)
    options = {"steps": 2, "guidance": 3.0, "identity_guidance": 3.0, "batch": 8}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [int(image[0, 0, 0]) for image in draw(pipeline, cells, **options)] == list(range(11))
    assert pipeline.asked == [8, 4] + [2] * 12, "filled up, and not tried again"
    assert [record.args for record in caplog.records] == [(8, 4), (4, 2)]
    with pytest.raises(UserError, match="memory does not hold one picture"):
        draw(Small(holds=0), cells, **options)


def test_what_was_drawn_before_memory_ran_out_is_kept():
    holds, asked = iter([4, 4, 2, 2, 2, 2, 2]), []

    def batch(rows):
        asked.append(rows)
        if len(rows) > next(holds):
            raise torch.OutOfMemoryError
        return [np.array([row]) for row in rows]

    drawn = in_batches(Small(0), [range(4), range(4, 9)], 4, batch, None)
    assert {row: int(image[0]) for row, image in drawn.items()} == {row: row for row in range(9)}
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 8, 8, 8], [8, 8]]
