"""Whitening: the directions of the latents get like variances, and pixels stay what they were."""

from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import write_vae
from torch import Tensor

from ttvcli.core.models.vae.causal3d import CausalVAE
from ttvcli.core.models.vae.whitening import whiten, whitening_matrix
from ttvcli.workflows import components


@pytest.fixture
def vae(tmp_path: Path) -> CausalVAE:
    write_vae(tmp_path, seed=0, size=16)
    network: Any = components.load(tmp_path, "vae")
    return network.double()


def clips() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((6, 3, 17, 24, 16), generator=generator, dtype=torch.float64) * 2 - 1


@torch.no_grad()
def test_pixels_stay_and_encoding_gives_the_mixed_latents(vae: CausalVAE) -> None:
    pixels = clips()
    means, logvars = vae.encode(pixels)
    decoded = vae.decode(means)
    matrix = whiten(vae, means, logvars)
    after, _ = vae.encode(pixels)
    assert not torch.allclose(after, means, atol=0.1)
    assert torch.allclose(after, torch.einsum("yz,bzthw->bythw", matrix, means), atol=1e-9)
    assert torch.allclose(vae.decode(after), decoded, atol=1e-9)


def test_large_directions_become_alike_and_small_ones_stay_small() -> None:
    vectors, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    basis = vectors.double()
    moment = basis @ torch.diag(torch.tensor([100.0, 10.0, 5.0, 0.05]).double()) @ basis.mT
    matrix = whitening_matrix(moment)
    largest, second, third, least = (basis.mT @ matrix @ moment @ matrix @ basis).diagonal()
    # m / (m + m' / 3) with m' = 28.7625, scaled to a mean of 1.
    shares = [m / (m + 28.7625 / 3) for m in (100.0, 10.0, 5.0, 0.05)]
    scale = 4 / sum(shares)
    for found, share in zip((largest, second, third, least), shares, strict=True):
        assert found.item() == pytest.approx(share * scale, rel=1e-6)
    turned = basis.mT @ matrix @ basis
    assert torch.allclose(turned, torch.diag(turned.diagonal()), atol=1e-7)  # scaled, never turned


@torch.no_grad()
def test_a_constant_spread_is_carried_over_exactly(vae: CausalVAE) -> None:
    last: Any = vae.encoder.conv_out.conv
    half = len(last.weight) // 2
    last.weight[half:] = 0  # every place then has the log-variances of the bias
    means, logvars = vae.encode(clips())
    variance = logvars[0, :, 0, 0, 0].exp()
    matrix = whiten(vae, means, logvars)
    _, after = vae.encode(clips())
    expected = (matrix.square() @ variance).log()
    assert torch.allclose(after[0, :, 0, 0, 0], expected, atol=1e-9)


def test_a_direction_without_variance_is_refused() -> None:
    with pytest.raises(ValueError, match="flat in a direction"):
        whitening_matrix(torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64))
