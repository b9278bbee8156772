"""The identity loss: who the predicted latents show, compared with who the target shows."""

from pathlib import Path

import diffusers
import pytest
import torch

from iy.errors import UserError
from iy.finetune import identity


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_stands_for_the_clean_latents(kind):
    scheduler = diffusers.DDPMScheduler(prediction_type=kind)
    latents, noise = torch.randn(2, 4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 300, 600, 900])
    noised = scheduler.add_noise(latents, noise, t)
    right = noise if kind == "epsilon" else scheduler.get_velocity(latents, noise, t)
    torch.testing.assert_close(identity.clean(scheduler, noised, right, t), latents, atol=1e-3, rtol=1e-3)


def test_the_same_person_costs_nothing_and_rows_count_by_their_weight():
    torch.manual_seed(0)
    net = identity.IdentityNet(4, 16)
    one, other = torch.randn(2, 3, 4, 16, 16)
    assert identity.loss(net, one, one, torch.ones(3)).item() == pytest.approx(0, abs=1e-6)
    whole = identity.loss(net, one, other, torch.ones(3))
    parts = [identity.loss(net, one, other, torch.eye(3)[i]) for i in range(3)]
    assert whole.item() > 0.01 and whole.item() == pytest.approx(sum(part.item() for part in parts), rel=1e-5)
    assert identity.loss(net, one, other, torch.zeros(3)).item() == 0


def test_gradients_reach_the_prediction_and_not_the_network(tmp_path: Path):
    identity.save(identity.IdentityNet(4, 16), tmp_path / "identity")
    net = identity.load(tmp_path / "identity", (4, 16, 16))
    drawn = torch.randn(2, 4, 16, 16, requires_grad=True)
    identity.loss(net, drawn, torch.randn(2, 4, 16, 16), torch.ones(2)).backward()
    assert drawn.grad.abs().max() > 0 and all(p.grad is None for p in net.parameters())


def test_a_network_of_another_base_or_none_at_all_is_one_sentence(tmp_path: Path):
    identity.save(identity.IdentityNet(4, 16), tmp_path / "identity")
    with pytest.raises(UserError, match="reads latents of 4 x 16 x 16, this base makes 4 x 32 x 32"):
        identity.load(tmp_path / "identity", (4, 32, 32))
    with pytest.raises(UserError, match="cannot be read.*or null"):
        identity.load(tmp_path / "nothing", (4, 16, 16))
    (tmp_path / "identity" / identity.WEIGHTS).write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read"):
        identity.load(tmp_path / "identity", (4, 16, 16))
