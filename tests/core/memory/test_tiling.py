"""The forward pass in tiles equals the network's, whatever the tile and the shape of the video."""

import pytest
import torch
from torch import Tensor

from ttvcli.core.memory.tiling import forward_in_tiles, head_groups, tiles
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer

FIVE_B = {"use_rotary_positional_embeddings": True}


def make(dtype: torch.dtype = torch.float64, **changes: object) -> CogVideoXTransformer:
    """A small model of which every parameter matters; 64 bits, so that only mistakes differ."""
    values: dict[str, object] = {
        "num_attention_heads": 3,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "time_embed_dim": 8,
        "text_embed_dim": 8,
        "sample_height": 6,
        "sample_width": 10,
        "sample_frames": 9,
        "max_text_seq_length": 5,
        "ttt_mini_batch": 16,
        "ttt_chunk_tokens": 24,
        **changes,
    }
    network = CogVideoXTransformer(CogVideoXConfig(**values))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    network.init_weights(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.to(dtype).eval()


def inputs(
    frames: int, segments: int, words: int = 5, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, frames, 4, 6, 10, generator=generator).to(dtype)
    text = torch.randn(2, segments, words, 8, generator=generator).to(dtype)
    return latents, text, torch.tensor([900, 900])


@pytest.mark.parametrize("tile", [16, 50, 10_000])
@pytest.mark.parametrize("ssm", ["none", "ttt_linear", "ttt_mlp", "ttt_large_chunk"])
@pytest.mark.parametrize(("frames", "segments"), [(3, 1), (7, 3), (8, 2), (9, 4)])
def test_tiles_change_nothing(ssm: str, frames: int, segments: int, tile: int) -> None:
    network, batch = make(ssm=ssm, **FIVE_B), inputs(frames, segments)
    with torch.inference_mode():
        expected = network(*batch)
        # what is not linear algebra in 64 bits (rotations, the scan's state) is in at least 32
        torch.testing.assert_close(
            forward_in_tiles(network, *batch, tile=tile), expected, rtol=1e-5, atol=1e-6
        )


def test_checkpoints_of_the_public_kernels_keep_their_learning_rates() -> None:
    network = make(ssm="ttt_mlp", ttt_lr_mode="last-row", **FIVE_B)
    batch = inputs(frames=7, segments=3, words=13)  # 39 + 105 tokens: nine mini-batches
    with torch.inference_mode():
        expected = network(*batch)
        in_tiles = forward_in_tiles(network, *batch, tile=32)
        network.config = make(ssm="ttt_mlp", **FIVE_B).config
        other = network(*batch)
    torch.testing.assert_close(in_tiles, expected, rtol=1e-5, atol=1e-6)
    assert (other - expected).abs().max() > 1e-4


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {**FIVE_B, "use_learned_positional_embeddings": True},
        {**FIVE_B, "patch_size_t": 2, "ofs_embed_dim": 8, "patch_bias": False},
    ],
    ids=["2b", "5b-i2v", "1.5-i2v"],
)
def test_every_variant_runs_in_tiles(variant: dict[str, object]) -> None:
    network = make(**variant)
    latents, text, timestep = inputs(4 if "patch_size_t" in variant else 3, 1)
    ofs = torch.tensor([2.0]) if "ofs_embed_dim" in variant else None
    with torch.inference_mode():
        expected = network(latents, text, timestep, ofs)
        in_tiles = forward_in_tiles(network, latents, text, timestep, ofs, tile=15)
    torch.testing.assert_close(in_tiles, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_short_formats_differ_by_rounding_only(dtype: torch.dtype) -> None:
    network = make(dtype, ssm="ttt_linear", **FIVE_B)
    batch = inputs(7, 3, dtype=dtype)
    with torch.inference_mode():
        expected, in_tiles = network(*batch), forward_in_tiles(network, *batch, tile=33)
    error = (in_tiles - expected).float().norm() / expected.float().norm()
    assert error < {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]


def test_tiles_cover_both_streams_once() -> None:
    pieces = list(tiles(5, 17, 4))
    assert [(p.start, p.stop, stream) for p, stream in pieces] == [
        *((0, 4, 0), (4, 5, 0)),
        *((5, 9, 1), (9, 13, 1), (13, 17, 1)),
    ]


@pytest.mark.parametrize(("tokens", "count"), [(10, 1), (17_776, 3), (10**9, 48)])
def test_groups_hold_every_head_and_no_more_than_fit(tokens: int, count: int) -> None:
    groups = head_groups(48, tokens, 8192)
    assert [h for group in groups for h in range(48)[group]] == list(range(48))
    assert len(groups) == count
    if tokens < 10**9:
        assert max(g.stop - g.start for g in groups) * tokens <= 48 * max(8192, tokens // 48)
