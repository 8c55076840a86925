"""The VAE on a CPU without gradients: every shortcut against the layers as they are written."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ttvcli.core.models.vae import cpu, cpu_blocks, cpu_convolution
from ttvcli.core.models.vae.causal3d import CausalVAE
from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.core.models.vae.cpu_blocks import PAST, blocks
from ttvcli.core.models.vae.layers import (
    CausalConv3d,
    ConvCache,
    Downsample,
    ResBlock,
    SpatialNorm,
    Upsample,
    make_norm,
)

LENGTHS = (1, 2, 3, 4, 5, 8, 9)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of test size take the ways that are meant for large ones."""
    monkeypatch.setattr(cpu_convolution, "WORTH_BLOCKS", 1)
    monkeypatch.setattr(cpu_blocks, "BLOCK", 150)
    monkeypatch.setattr(cpu, "PLACES", 37)


def random(module: nn.Module) -> nn.Module:
    """Random weights of unit gain in double precision, biases and norms included."""
    generator = torch.Generator().manual_seed(0)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise * fan_in**-0.5)
    return module


def clip(channels: int, frames: int, height: int = 7, width: int = 5, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    shape = (batch, channels, frames, height, width)
    return torch.randn(shape, generator=generator, dtype=torch.float64) + 0.3


def last(x_BCTHW: Tensor) -> Tensor:
    """Channels last, as the CPU way has them."""
    return x_BCTHW.permute(0, 2, 3, 4, 1).contiguous()


def first(x_BTHWC: Tensor) -> Tensor:
    return x_BTHWC.permute(0, 4, 1, 2, 3)


def close(ours: Tensor, expected: Tensor) -> bool:
    assert ours.shape == expected.shape
    return bool(torch.allclose(ours, expected, rtol=1e-12, atol=1e-12))


def with_past(x_BCTHW: Tensor) -> Tensor:
    frames = last(x_BCTHW)
    room = cpu_convolution.with_room(frames, frames.shape[-1])
    room[:, PAST:] = frames
    return room


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("height", [1, 6, 7, 40])
@pytest.mark.parametrize("row", [1, 30, 10**7])
def test_blocks_cover_every_row_once_and_only_the_last_has_an_odd_number_of_frames(
    frames: int, height: int, row: int
) -> None:
    seen = torch.zeros(frames, height)
    for part, rows in blocks(frames, height, row):
        assert seen[part, rows].numel() > 0
        seen[part, rows] += 1
        assert (part.stop - part.start) % 2 == 0 or part.stop == frames
    assert torch.equal(seen, torch.ones(frames, height))


@torch.no_grad()
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("widths", [(6, 8), (8, 6), (3, 8), (8, 3), (8, 7)])
@pytest.mark.parametrize("lengths", [(1, 1), (2, 2), (3, 2), (9, 8), (4, 5, 1), (8, 3)])
def test_a_causal_convolution_is_the_one_as_written_from_chunk_to_chunk(
    widths: tuple[int, int], lengths: tuple[int, ...]
) -> None:
    module = random(CausalConv3d(*widths, kernel=3))
    ours: ConvCache = {}
    written: ConvCache = {}
    for length in lengths:
        x = clip(widths[0], length)
        made = cpu_convolution.causal(module, with_past(x), ours)
        assert close(first(made[:, PAST:]), module(x, written))
        assert torch.equal(ours[module], written[module])


@torch.no_grad()
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("widths", [(6, 8), (3, 8), (8, 3)])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_causal_convolution_adds_to_what_is_there(widths: tuple[int, int], frames: int) -> None:
    module = random(CausalConv3d(*widths, kernel=3))
    x = clip(widths[0], frames)
    before = clip(widths[1], frames)
    sums = last(before)
    assert cpu_convolution.causal(module, with_past(x), {}, add_to=sums) is sums
    assert close(first(sums), module(x, {}) + before)


@torch.no_grad()
@pytest.mark.parametrize("size", ["small_blocks", None])
@pytest.mark.parametrize("compress_time", [True, False])
@pytest.mark.parametrize("frames", LENGTHS)
def test_enlarging_is_that_of_the_layer(
    request: pytest.FixtureRequest, size: str | None, compress_time: bool, frames: int
) -> None:
    if size:
        request.getfixturevalue(size)
    module = random(Upsample(6, compress_time))
    x = clip(6, frames)
    assert close(first(cpu_convolution.enlarge(module, last(x))), module(x))


@torch.no_grad()
@pytest.mark.parametrize("compress_time", [True, False])
@pytest.mark.parametrize("frames", LENGTHS)
def test_shrinking_is_that_of_the_layer(compress_time: bool, frames: int) -> None:
    module = random(Downsample(6, compress_time))
    x = clip(6, frames, 8, 6)
    assert close(first(cpu_convolution.shrink(module, last(x))), module(x))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("latent_frames", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("doublings", [0, 1, 2])
def test_norms_read_scale_and_shift_where_a_nearest_resize_puts_them(
    latent_frames: int, doublings: int
) -> None:
    odd = latent_frames % 2
    frames = (latent_frames - odd) * 2**doublings + odd
    x, z = clip(8, frames, 12, 8), clip(4, latent_frames, 3, 2)
    for norm in (make_norm(8, 4, 1e-6, 4), make_norm(8, 4, 1e-6, None)):
        random(norm)
        given = last(x)
        with torch.no_grad():
            cpu.normalise(norm, given, z, given)
        written = norm(x, z, {}) if isinstance(norm, SpatialNorm) else norm(x)
        assert close(first(given), nn.functional.silu(written))


@torch.no_grad()
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("outside", [8, 12])
@pytest.mark.parametrize("latent", [4, None])
def test_a_residual_block_is_that_of_the_layer(outside: int, latent: int | None) -> None:
    block = random(ResBlock(8, outside, 4, 1e-6, latent))
    ours: ConvCache = {}
    written: ConvCache = {}
    for length in (3, 2):
        x, z = clip(8, length, 8, 6), clip(4, length, 4, 3)
        expected = block(x, z, written)
        assert close(first(cpu.residual(block, last(x), z, ours)), expected)


def tiny(dtype: torch.dtype) -> CausalVAE:
    config = VAEConfig(
        block_out_channels=(8, 8, 16, 16), latent_channels=4, layers_per_block=1, norm_num_groups=4
    )
    vae = random(CausalVAE(config))
    assert isinstance(vae, CausalVAE)
    return vae.to(dtype)


def as_written(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Tensor]) -> Tensor:
    """The result of the layers as a GPU runs them."""
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "suits", lambda x: False)
        return work()


@torch.no_grad()
@pytest.mark.usefixtures("small_blocks")
def test_what_is_given_stays_as_it_is() -> None:
    vae = tiny(torch.float64)
    pixels, latents = clip(3, 9, 16, 16), clip(4, 3, 2, 2)
    for work, given in ((vae.encode, pixels), (vae.decode, latents)):
        before, weights = given.clone(), [p.clone() for p in vae.parameters()]
        assert not torch.equal(work(given)[0], given[0])
        assert torch.equal(given, before)
        assert all(torch.equal(p, w) for p, w in zip(vae.parameters(), weights, strict=True))


@torch.no_grad()
@pytest.mark.usefixtures("small_blocks")
def test_bfloat16_is_no_further_from_the_truth_than_the_layers_as_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Winograd's sums round more, norms in one go round less."""
    vae, exact = tiny(torch.bfloat16), tiny(torch.bfloat16).double()
    latents = clip(4, 5, 6, 4).bfloat16()
    truth = exact.decode(latents.double())
    written = as_written(monkeypatch, lambda: vae.decode(latents))
    ours, theirs = ((made - truth).norm() / truth.norm() for made in (vae.decode(latents), written))
    assert 0 < ours < 1.1 * theirs < 0.05


def test_gradients_and_autocast_take_the_layers_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, latents = tiny(torch.float32), clip(4, 3, 2, 2).float()
    assert not cpu.suits(latents)
    with torch.no_grad():
        assert cpu.suits(latents)
        assert not cpu.suits(latents.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not cpu.suits(latents)
            half = vae.decode(latents)
    written = as_written(monkeypatch, lambda: vae.decode(latents))
    assert written.requires_grad
    assert torch.equal(vae.decode(latents), written)
    assert half.dtype == torch.bfloat16
