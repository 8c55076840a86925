"""The forward pass in tiles equals the network's, whatever the tile and the shape of the video."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ttvcli.core.memory.tiling import forward_in_tiles, head_groups, tiles
from ttvcli.core.models.cogvideox import model as cogvideox_model
from ttvcli.core.models.cogvideox.block import Block
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


def forward(network: CogVideoXTransformer, batch: tuple[Tensor, ...], tile: int) -> None:
    """A pass in tiles of so many tokens; 0: whole."""
    with torch.inference_mode():
        forward_in_tiles(network, *batch, tile=tile) if tile else network(*batch)


def watch(network: nn.Module, see: Callable[[str, Tensor], None]) -> None:
    """Tell `see` the name of every module that is called and its first argument."""
    for name, module in network.named_modules():
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: see(name, inputs[0]) if inputs else None
        )


@pytest.mark.parametrize("tile", [0, 16, 50])
@pytest.mark.parametrize("ssm", ["none", "ttt_mlp"])
def test_shifts_scales_and_gates_are_computed_once_a_pass(ssm: str, tile: int) -> None:
    """For both rows of guidance in one product; a block has two, the output norm one."""
    network, calls = make(ssm=ssm, **FIVE_B), Counter[str]()

    def see(name: str, x: Tensor) -> None:
        if name.endswith(("norm1.linear", "norm2.linear", "norm_out.linear")):
            calls[name] += 1
            assert x.shape == (2, network.config.time_embed_dim)

    watch(network, see)
    forward(network, inputs(7, 3), tile)
    assert len(calls) == 2 * network.config.num_layers + 1
    assert set(calls.values()) == {1}


@pytest.mark.parametrize("tile", [0, 16])
def test_all_layers_share_one_table_of_positions(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make(ssm="ttt_mlp", num_layers=4, **FIVE_B)
    original, made, used = cogvideox_model.rotary_table, [], Counter[str]()

    def table(*size: Any) -> Tensor:
        made.append(original(*size))
        return made[-1]

    monkeypatch.setattr(cogvideox_model, "rotary_table", table)
    if not tile:
        for block in network.transformer_blocks:
            block.register_forward_pre_hook(lambda _, given: used.update([str(id(given[3]))]))
    forward(network, inputs(7, 3), tile)
    assert len(made) == 1
    assert list(used.values()) == ([] if tile else [4])
    assert not list(network.buffers())  # none is stored with a layer either


@pytest.mark.parametrize("ssm", ["none", "ttt_linear", "ttt_mlp"])
def test_what_treats_tokens_singly_sees_a_tile_of_one_row_at_a_time(ssm: str) -> None:
    """So the MLP's hidden array, four times as wide, is of a tile; guidance goes in two passes."""
    network, tile = make(ssm=ssm, **FIVE_B), 32
    latents, text, timestep = inputs(7, 3)
    longest: Counter[str] = Counter()

    def see(name: str, x: Tensor) -> None:
        kind = name.rpartition(".")[2]
        if kind in ("ff", "norm_final", "proj_out", "post_norm", "wo"):
            assert len(x) == 1
            longest[kind] = max(longest[kind], x.shape[1])
        elif name == "patch_embed.proj":  # frames, whose patches are of 2 x 2
            longest[kind] = max(longest[kind], len(x) * x[0, 0].numel() // 4)

    watch(network, see)
    forward(network, (latents, text, timestep), tile)
    expected = {"ff", "norm_final", "proj_out", "proj"}
    if ssm != "none":
        expected |= {"post_norm", "wo"}
    assert set(longest) >= expected
    assert max(longest.values()) <= tile


@pytest.mark.parametrize("ssm", ["ttt_linear", "ttt_mlp"])
def test_the_inner_networks_read_tiles_of_some_heads_with_the_state_they_left(ssm: str) -> None:
    network, tile = make(ssm=ssm, num_layers=1, **FIVE_B), 32
    block = network.transformer_blocks[0]
    assert isinstance(block, Block)
    assert block.ttt is not None
    mix, left = block.ttt.mix, {}
    seen: list[tuple[int, int, bool]] = []

    def watched(x: Tensor, rotary: Tensor, eta: Tensor, state: Any, heads: slice) -> Any:
        known = left.get((heads.start, heads.stop))
        carried = known is not None and all(a is b for a, b in zip(state, known, strict=True))
        y, new = mix(x, rotary, eta, state, heads)
        left[heads.start, heads.stop] = new
        seen.append((x.shape[1], heads.stop - heads.start, carried))
        return y, new

    block.ttt.mix = watched  # type: ignore[method-assign]
    forward(network, inputs(7, 3), tile)
    tokens, heads, carried = zip(*seen, strict=True)
    assert max(tokens) == tile
    assert max(heads) < network.config.num_attention_heads
    groups, passes = len(left), 2 * 2  # of two rows, in two directions
    assert carried.count(False) == groups * passes
    assert carried.count(True) == 3 * groups * passes  # 120 tokens are four tiles
