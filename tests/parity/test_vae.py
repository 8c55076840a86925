"""Our causal VAE against diffusers' `AutoencoderKLCogVideoX`, with random small weights."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ttvcli.core.models.vae import cpu, cpu_blocks, cpu_convolution
from ttvcli.core.models.vae.causal3d import CausalVAE
from ttvcli.core.models.vae.config import VAEConfig

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity

FRAMES = (1, 5, 8, 9, 13, 16, 17, 49, 81)
LATENT_FRAMES = (1, 2, 3, 4, 5, 13, 21)
SIZES = ((16, 16), (24, 40))
ROUNDING = 4e-6  # of the largest value


def small_config(**changes: Any) -> VAEConfig:
    sizes = {
        "block_out_channels": (8, 16, 16, 24),
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 4,
    }
    return VAEConfig(**{**sizes, **changes})


def both(config: VAEConfig, dtype: torch.dtype = torch.float32) -> tuple[CausalVAE, Any]:
    """Our VAE and the public one with the same random weights, norms and biases included."""
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKLCogVideoX.from_config(config.to_dict()).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                gain = "norm" in name and name.endswith("weight") and "conv" not in name
                parameter.copy_(float(gain) + 0.2 * noise)
    ours = CausalVAE(config).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours.to(dtype), theirs.to(dtype)


@pytest.fixture(scope="module")
def pair() -> tuple[CausalVAE, Any]:
    return both(small_config())


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


@pytest.fixture(params=["as written", "cpu", "cpu, as if large"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The layers as a GPU runs them, or a CPU's shortcuts, with or without those for large work."""
    if request.param == "as written":
        monkeypatch.setattr(cpu, "suits", lambda x: False)
    elif request.param == "cpu, as if large":
        monkeypatch.setattr(cpu_convolution, "WORTH_BLOCKS", 1)
        monkeypatch.setattr(cpu_blocks, "BLOCK", 500)
    return str(request.param)


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("frames", FRAMES)
def test_encoding_is_that_of_diffusers(
    pair: tuple[CausalVAE, Any], frames: int, size: tuple[int, int], way: str
) -> None:
    ours, theirs = pair
    clip = pixels(frames, *size)
    mean, logvar = ours.encode(clip)
    expected = theirs.encode(clip).latent_dist
    # As the layers are written to the bit; a CPU adds up in another order.
    tolerance = 0 if way == "as written" else ROUNDING
    assert worst(mean, expected.mean) <= tolerance
    assert worst(logvar, expected.logvar) <= tolerance


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("frames", LATENT_FRAMES)
@pytest.mark.usefixtures("way")
def test_decoding_is_that_of_diffusers(
    pair: tuple[CausalVAE, Any], frames: int, size: tuple[int, int]
) -> None:
    ours, theirs = pair
    latents = random_latents(frames, *size)
    # Not to the bit: the scale and shift of the norms are convolved before they are enlarged
    # instead of after (a 1x1x1 convolution commutes with a nearest resize), on fewer pixels.
    assert worst(ours.decode(latents), theirs.decode(latents).sample) <= ROUNDING


@torch.inference_mode()
@pytest.mark.parametrize("frames", LATENT_FRAMES)
@pytest.mark.usefixtures("way")
def test_in_double_precision_nothing_but_rounding_differs(frames: int) -> None:
    ours, theirs = both(small_config(), torch.float64)
    latents = random_latents(frames, 24, 16).double()
    decoded = theirs.decode(latents).sample
    assert worst(ours.decode(latents), decoded) <= 1e-14
    assert worst(ours.encode(decoded)[0], theirs.encode(decoded).latent_dist.mean) <= 1e-14


@torch.inference_mode()
@pytest.mark.usefixtures("way")
def test_bfloat16_is_no_further_from_the_truth_than_diffusers() -> None:
    ours, theirs = both(small_config(), torch.bfloat16)
    latents = random_latents(5, 40, 48).bfloat16()
    made, public = ours.decode(latents), theirs.decode(latents).sample
    truth = ours.double().decode(latents.double())
    error, public_error = (float((x - truth).norm() / truth.norm()) for x in (made, public))
    assert 0 < error <= 1.1 * public_error < 0.05


@torch.inference_mode()
@pytest.mark.parametrize("frames", LATENT_FRAMES)
def test_an_odd_number_of_latent_frames_loses_three_frames_and_an_even_one_none(
    pair: tuple[CausalVAE, Any], frames: int
) -> None:
    expected = 4 * frames - 3 if frames % 2 else 4 * frames
    latents = random_latents(frames, 16, 16)
    for vae in pair:
        decoded = vae.decode(latents)
        assert getattr(decoded, "sample", decoded).shape[2] == expected


@torch.inference_mode()
def test_the_time_chunks_are_part_of_the_model(pair: tuple[CausalVAE, Any]) -> None:
    ours, theirs = pair
    clip = pixels(17, 16, 16)
    expected = theirs.encode(clip).latent_dist.mean
    at_once = ours.encoder(clip, {}).chunk(2, dim=1)[0]
    assert worst(at_once, expected) > 0.01
    latents = random_latents(5, 16, 16)
    assert worst(ours.decoder(latents, {}), theirs.decode(latents).sample) > 0.01


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block_out_channels": (8, 16), "temporal_compression_ratio": 2, "layers_per_block": 1},
        {"temporal_compression_ratio": 8, "latent_channels": 8, "scaling_factor": 1.15258426},
    ],
)
def test_configs_go_to_diffusers_and_back(changes: dict[str, Any]) -> None:
    config = small_config(**changes)
    theirs = diffusers.AutoencoderKLCogVideoX.from_config(config.to_dict())
    back = VAEConfig.from_dict(dict(theirs.config))
    assert back == config
    assert back.spatial_compression_ratio == 2 ** (len(config.block_out_channels) - 1)
    ours = CausalVAE(back).state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.state_dict().items()
    }


def test_the_defaults_are_the_published_ones() -> None:
    """CogVideoX-5B's `vae/config.json` is the class default but for the scaling factor."""
    with torch.device("meta"):
        theirs = diffusers.AutoencoderKLCogVideoX(scaling_factor=0.7)
        ours = CausalVAE(VAEConfig())
    assert VAEConfig.from_dict(dict(theirs.config)) == VAEConfig()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == 215_583_907
