"""The optimiser of the foundation's matrices, against PyTorch's own."""

import pytest
import torch

from foundation import muon


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 4, 3, 3)])
def test_muon_moves_as_pytorchs_own_does(shape):
    """Theirs works in bfloat16 and on matrices."""
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(ours.detach().flatten(1).clone())
    known = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    mine = muon.Muon([ours], lr=torch.tensor(0.02), momentum=0.95, weight_decay=0.01)
    before = theirs.detach().clone()
    for _ in range(3):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient, gradient.flatten(1)
        mine.step(), known.step()
    moved, right = ours.detach().flatten(1) - before, theirs.detach() - before
    assert (moved - right).norm() < 0.03 * right.norm()


def test_matrices_made_orthogonal_together_are_those_made_apart():
    many = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(2))
    together = muon.orthogonal(many)
    for one, same in zip(many, together, strict=True):
        torch.testing.assert_close(muon.orthogonal(one[None])[0], same, atol=1e-5, rtol=0)


def test_the_orthogonal_matrix_keeps_directions_and_levels_sizes():
    torch.manual_seed(1)
    u, _, v = torch.linalg.svd(torch.randn(12, 30), full_matrices=False)
    levelled = muon.orthogonal((u @ torch.diag(torch.linspace(1, 5, 12)) @ v)[None])[0]
    sizes = torch.linalg.svdvals(levelled)
    assert 0.6 < sizes.min() and sizes.max() < 1.3
    torch.testing.assert_close(u.T @ levelled @ v.T, torch.diag((u.T @ levelled @ v.T).diag()), atol=1e-4, rtol=0)
