"""Tiled encoding and decoding against diffusers' `enable_tiling`, with random small weights."""

from typing import Any

import pytest
import torch
from torch import Tensor
from variant_folders import VAE, randomise

from ttvcli.core.models.vae import cpu
from ttvcli.core.models.vae.causal3d import CausalVAE
from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.core.models.vae.tiles import Tiling
from ttvcli.core.models.vae.tiling import tiled_decode, tiled_decode_chunks, tiled_encode

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity

# The public default is half the height and width that the VAE says it is made for.
SAMPLE = (96, 80)
ROUNDING = 4e-6  # of the largest value; see test_vae.py
TILING = Tiling(height=SAMPLE[0] // 2, width=SAMPLE[1] // 2)
# height, width: taller and wider than a tile, wider only, an odd number of latents on both sides
SIZES = [(64, 56), (48, 80), (72, 88)]


def both(dtype: torch.dtype = torch.float32) -> tuple[CausalVAE, Any]:
    """Our VAE and the public one with tiling on, with the same weights."""
    theirs = diffusers.AutoencoderKLCogVideoX(
        **VAE, sample_height=SAMPLE[0], sample_width=SAMPLE[1]
    )
    randomise(theirs, torch.Generator().manual_seed(0))
    ours = CausalVAE(VAEConfig.from_dict(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict())
    theirs.enable_tiling()
    return ours.to(dtype), theirs.to(dtype)


@pytest.fixture(scope="module")
def pair() -> tuple[CausalVAE, Any]:
    return both()


def pixels(frames: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(frames * height + width)
    return torch.rand((1, 3, frames, height, width), generator=generator) * 2 - 1


def random_latents(frames: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn((1, 4, frames, height // 8, width // 8), generator=generator)


def worst(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("frames", [1, 9, 17])
def test_tiled_encoding_is_that_of_diffusers(
    pair: tuple[CausalVAE, Any], frames: int, size: tuple[int, int]
) -> None:
    ours, theirs = pair
    clip = pixels(frames, *size)
    mean, logvar = tiled_encode(ours, clip, TILING)
    expected = theirs.encode(clip).latent_dist
    assert worst(mean, expected.mean) <= ROUNDING
    assert worst(logvar, expected.logvar) <= ROUNDING


@torch.inference_mode()
def test_with_the_layers_as_written_tiled_encoding_is_equal_to_the_bit(
    pair: tuple[CausalVAE, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "suits", lambda x: False)
    ours, theirs = pair
    clip = pixels(17, *SIZES[2])
    assert torch.equal(tiled_encode(ours, clip, TILING)[0], theirs.encode(clip).latent_dist.mean)


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("frames", [1, 3, 4, 5])
def test_tiled_decoding_is_that_of_diffusers(
    pair: tuple[CausalVAE, Any], frames: int, size: tuple[int, int]
) -> None:
    ours, theirs = pair
    latents = random_latents(frames, *size)
    expected = theirs.decode(latents).sample
    assert worst(tiled_decode(ours, latents, TILING), expected) <= ROUNDING


@torch.inference_mode()
@pytest.mark.parametrize("frames", [9, 17, 49, 81])
def test_every_usual_length_is_equal_in_tiles(pair: tuple[CausalVAE, Any], frames: int) -> None:
    ours, theirs = pair
    clip = pixels(frames, 24, 56)
    mean, _ = tiled_encode(ours, clip, TILING)
    assert worst(mean, theirs.encode(clip).latent_dist.mean) <= ROUNDING
    back = tiled_decode(ours, mean, TILING)
    assert back.shape[2] == frames
    assert worst(back, theirs.decode(mean).sample) <= ROUNDING


@torch.inference_mode()
def test_in_double_precision_nothing_but_rounding_differs() -> None:
    ours, theirs = both(torch.float64)
    latents = random_latents(3, 64, 56).double()
    tiles = tiled_decode(ours, latents, TILING)
    assert worst(tiles, theirs.decode(latents).sample) <= 1e-14


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 4, 5])
def test_a_stream_of_frames_gives_the_bits_of_the_whole(
    pair: tuple[CausalVAE, Any], frames: int
) -> None:
    latents = random_latents(frames, 64, 56)
    parts = list(tiled_decode_chunks(pair[0], latents, TILING))
    assert len(parts) == max(frames // 2, 1)
    assert torch.equal(torch.cat(parts, dim=2), tiled_decode(pair[0], latents, TILING))


@torch.inference_mode()
def test_tiles_change_the_values_and_a_clip_of_one_tile_has_none(
    pair: tuple[CausalVAE, Any],
) -> None:
    vae = pair[0]
    small, large = random_latents(3, 48, 40), random_latents(3, 64, 56)
    assert torch.equal(tiled_decode(vae, small, TILING), vae.decode(small))
    assert worst(tiled_decode(vae, large, TILING), vae.decode(large)) > 0.01
    clip = pixels(9, 48, 40)
    assert torch.equal(tiled_encode(vae, clip, TILING)[0], vae.encode(clip)[0])


@torch.inference_mode()
def test_a_tile_that_does_not_divide_is_refused_where_the_public_code_changes_the_size(
    pair: tuple[CausalVAE, Any],
) -> None:
    ours, theirs = both()
    clip = pixels(1, 64, 96)
    theirs.enable_tiling(tile_sample_min_height=32, tile_sample_min_width=48)
    assert theirs.encode(clip).latent_dist.mean.shape[3:] != (8, 12)
    with pytest.raises(ValueError, match="26 pixels and 3 latents apart"):
        tiled_encode(ours, clip, Tiling(height=32, width=48))
    with pytest.raises(ValueError, match="tile height of 32"):
        tiled_decode(ours, random_latents(1, 64, 96), Tiling(height=32, width=40))
    with pytest.raises(ValueError, match="overlap_width must lie between 0 and 1"):
        tiled_decode(ours, random_latents(1, 64, 96), Tiling(overlap_width=0.0))
