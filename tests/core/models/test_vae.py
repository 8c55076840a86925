"""The causal VAE by itself: chunks of time, streaming, bounded caches, errors, gradients."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ttvcli.core.models.vae import causal3d, cpu
from ttvcli.core.models.vae.causal3d import CausalVAE, chunk_lengths
from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.core.models.vae.layers import CausalConv3d, ConvCache

TINY: dict[str, Any] = {
    "block_out_channels": (8, 8, 8, 8),
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def build(seed: int = 0) -> CausalVAE:
    """A VAE all of whose parameters are random: fresh ones have branches that are zero."""
    torch.manual_seed(seed)
    vae = CausalVAE(VAEConfig(**TINY))
    with torch.no_grad():
        for parameter in vae.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.add_(torch.randn_like(parameter) * fan_in**-0.5)
    return vae.eval()


@pytest.fixture(scope="module")
def vae() -> CausalVAE:
    return build()


def clip(frames: int, height: int = 16, width: int = 16, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.rand((batch, 3, frames, height, width), generator=generator) * 2 - 1


def test_the_first_chunk_takes_the_remainder() -> None:
    assert chunk_lengths(49, 8) == [9, 8, 8, 8, 8, 8]
    assert chunk_lengths(13, 2) == [3, 2, 2, 2, 2, 2]
    assert [chunk_lengths(n, 8) for n in (1, 5, 8, 13, 16)] == [[1], [5], [8], [13], [8, 8]]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("frames", "latents", "decoded"),
    # An even number of latents has no lone first frame, so 5 frames come back as 8.
    [(1, 1, 1), (5, 2, 8), (8, 2, 8), (9, 3, 9), (13, 4, 16), (17, 5, 17), (49, 13, 49)],
)
def test_8k_plus_1_frames_become_2k_plus_1_latents_and_come_back(
    vae: CausalVAE, frames: int, latents: int, decoded: int
) -> None:
    mean, logvar = vae.encode(clip(frames, 16, 24, batch=2))
    assert mean.shape == logvar.shape == (2, 4, latents, 2, 3)
    assert vae.decode(mean).shape == (2, 3, decoded, 16, 24)


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 9, 16, 17, 33])
def test_a_stream_gives_the_bits_of_the_whole(vae: CausalVAE, frames: int) -> None:
    whole = clip(frames)
    chunks = whole.split(chunk_lengths(frames, 8), dim=2)
    means, logvars = zip(*vae.encode_chunks(iter(chunks)), strict=True)
    mean, logvar = vae.encode(whole)
    assert torch.equal(torch.cat(means, dim=2), mean)
    assert torch.equal(torch.cat(logvars, dim=2), logvar)
    assert torch.equal(torch.cat(list(vae.decode_chunks(mean)), dim=2), vae.decode(mean))


@torch.inference_mode()
def test_no_frame_depends_on_a_later_one(vae: CausalVAE) -> None:
    whole = clip(25)
    mean, _ = vae.encode(whole)
    assert torch.equal(vae.encode(whole[:, :, :17])[0], mean[:, :, :5])
    assert torch.equal(vae.decode(mean[:, :, :5]), vae.decode(mean)[:, :, :17])
    changed = whole.clone()
    changed[:, :, :9] += 0.1
    assert not torch.equal(vae.encode(changed)[0][:, :, 3:], mean[:, :, 3:])  # but on earlier ones


@torch.inference_mode()
@pytest.mark.parametrize("way", ["as a GPU runs it", "cpu"])
@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_caches_hold_the_frames_that_are_read_and_do_not_grow(
    vae: CausalVAE, network: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "suits", lambda x: way == "cpu")
    part = getattr(vae, network)
    reading = [m for m in part.modules() if isinstance(m, CausalConv3d) and m.past]
    cache: ConvCache = {}
    sizes = []
    for length in (9, 8, 8, 8) if network == "encoder" else (3, 2, 2, 2):
        x = clip(length) if network == "encoder" else torch.randn(1, 4, length, 2, 2)
        part(x, cache)
        assert set(cache) == set(reading)
        assert all(kept.shape[2] == module.past == 2 for module, kept in cache.items())
        # Storage, not shape: a view would keep the whole chunk alive.
        sizes.append(sum(kept.untyped_storage().nbytes() for kept in cache.values()))
    assert len(set(sizes)) == 1
    assert sizes[0] == sum(kept.numel() * 4 for kept in cache.values())


@torch.inference_mode()
def test_streaming_asks_for_a_chunk_only_when_the_one_before_is_done(vae: CausalVAE) -> None:
    asked = []

    def source() -> Iterator[Tensor]:
        for number, part in enumerate(clip(25).split([9, 8, 8], dim=2)):
            asked.append(number)
            yield part

    stream = vae.encode_chunks(source())
    assert asked == []
    for number in range(3):
        next(stream)
        assert asked == list(range(number + 1))


@pytest.mark.parametrize(
    "shape", [(1, 3, 9, 12, 16), (1, 3, 9, 16, 12), (1, 1, 9, 16, 16), (3, 16, 16)]
)
def test_pixels_that_do_not_fit_are_named(vae: CausalVAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 8|must be \[B, 3, T, H, W\]") as caught:
        vae.encode(torch.zeros(shape))
    assert any(str(number) in str(caught.value) for number in shape)


@pytest.mark.parametrize("shape", [(1, 5, 3, 2, 2), (4, 3, 2, 2)])
def test_latents_that_do_not_fit_are_named(vae: CausalVAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \[B, 4, T, H, W\]"):
        vae.decode(torch.zeros(shape))


def test_the_log_variance_is_clamped() -> None:
    vae = build()
    with torch.no_grad():
        vae.encoder.conv_out.conv.bias[4:] = torch.tensor([1e3, -1e3, 0.0, 0.0])
        logvar = vae.encode(clip(9))[1]
    assert float(logvar[:, 0].min()) == 20.0
    assert float(logvar[:, 1].max()) == -30.0


@torch.inference_mode()
def test_double_precision_works_and_agrees(vae: CausalVAE) -> None:
    double = build().double()
    mean, logvar = double.encode(clip(17).double())
    decoded = double.decode(mean)
    assert mean.dtype == logvar.dtype == decoded.dtype == torch.float64
    assert torch.allclose(vae.encode(clip(17))[0].double(), mean, atol=1e-4)


def test_gradients_reach_every_parameter_and_agree_with_differences() -> None:
    vae = build().double()
    pixels = clip(17).double()

    def loss() -> Tensor:
        mean, logvar = vae.encode(pixels)
        return vae.decode(mean + 0.1 * logvar).square().mean()

    loss().backward()
    without = [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    parameter = vae.encoder.conv_in.conv.weight  # the longest way back, through both caches
    index = (0, 0, 0, 1, 1)
    values = []
    with torch.no_grad():
        for change in (1e-5, -2e-5):
            parameter[index] += change
            values.append(float(loss()))
    expected = (values[0] - values[1]) / 2e-5
    assert float(parameter.grad[index]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
def test_training_on_single_frames_computes_the_same(batch: int) -> None:
    vae = build()
    frames = clip(1, 16, 24, batch=batch)
    mean, logvar = vae.encode(frames)
    decoded = vae.decode(mean)
    vae.train()
    fast_mean, fast_logvar = vae.encode(frames)
    fast = vae.decode(mean)
    for ours, general in ((fast_mean, mean), (fast_logvar, logvar), (fast, decoded)):
        assert not torch.equal(ours, general)  # it is another path
        assert float(((ours - general).abs().max() / general.abs().max()).detach()) < 1e-5


def test_the_single_frame_path_is_not_taken_inside_a_clip() -> None:
    vae = build().train()
    parts = list(vae.encode_chunks(iter(clip(10).split([9, 1], dim=2))))
    general = list(vae.eval().encode_chunks(iter(clip(10).split([9, 1], dim=2))))
    assert torch.equal(parts[1][0], general[1][0])


@torch.inference_mode()
def test_fresh_weights_pass_colours_through() -> None:
    torch.manual_seed(0)
    vae = CausalVAE(VAEConfig(**TINY))
    vae.init_weights()
    mean, _ = vae.encode(clip(9))
    decoded = vae.decode(mean)
    assert 0.1 < float(mean.std()) < 10
    assert 0.1 < float(decoded.std()) < 10
    brighter = vae.decode(vae.encode(clip(9) + 0.5)[0])
    assert not torch.allclose(brighter, decoded, atol=0.05)


def test_chunk_sizes_follow_from_the_published_ratio() -> None:
    assert causal3d.PIXEL_FRAMES_PER_CHUNK == 4 * causal3d.LATENT_FRAMES_PER_CHUNK


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal_compression_ratio": 3}, "power of two, got 3"),
        ({"temporal_compression_ratio": 16}, "needs 4 down stages"),
        ({"norm_num_groups": 5}, "8 is not divisible by norm_num_groups 5"),
        ({"use_quant_conv": True}, "quant"),
        ({"act_fn": "relu"}, "'relu'"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VAEConfig(**{**TINY, **changes})


def test_an_unknown_key_is_refused_and_published_ones_are_read() -> None:
    values = VAEConfig(**TINY).to_dict()
    assert VAEConfig.from_dict({**values, "sample_height": 480, "_diffusers_version": "0.32"})
    with pytest.raises(ValueError, match="latent_chanels"):
        VAEConfig.from_dict({**values, "latent_chanels": 4})
