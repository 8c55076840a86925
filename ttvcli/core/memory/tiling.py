"""The transformer's forward pass in pieces, for sampling: the same sums with little beside them.

Shape legend: B rows (guidance makes 2), M text tokens, N video tokens, L = M + N, W tokens of a
window, D width, H heads, K head width.

Two arrays of the whole video exist at a time: the tokens of all rows, `[B, L, D]` with text in
front, and what a block adds to one row. Rows go through a block one after the other, so that its
weights are needed once; attention goes window by window and, like TTT, a few heads at a time;
everything that treats tokens singly goes tile by tile; TTT carries its state from tile to tile. All
arrays of tokens are changed in place: there must be no gradients.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ttvcli.core.memory.streaming import borrowed
from ttvcli.core.models.cogvideox.attention import LocalAttention
from ttvcli.core.models.cogvideox.block import AdaptiveNorm, Block, Positions
from ttvcli.core.models.cogvideox.embeddings import token_grid, unpatchify
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.cogvideox.positions import sine_table
from ttvcli.core.models.ttt.large_chunk import AnyTTTLayer
from ttvcli.core.models.ttt.layer import project
from ttvcli.core.models.ttt.order import Segments

TEXT, VIDEO = 0, 1


@dataclass(frozen=True)
class Directions:
    """For each position in TTT's time order, which token of `[text | video]` stands there."""

    forward: Tensor
    backward: Tensor

    @classmethod
    def of(cls, segments: Segments, device: torch.device) -> "Directions":
        """The two orders of a video of these segments."""
        count = segments.text_total + segments.frames * segments.frame_tokens
        tokens = torch.arange(count, device=device)[None]
        text, video = tokens[:, : segments.text_total], tokens[:, segments.text_total :]
        turned = segments.reverse(text, video)
        return cls(segments.to_time_order(text, video)[0], segments.to_time_order(*turned)[0])


def forward_in_tiles(
    network: CogVideoXTransformer,
    latents_BTCHW: Tensor,
    text_BNLE: Tensor,
    timestep_B: Tensor,
    ofs: Tensor | None = None,
    *,
    tile: int,
) -> Tensor:
    """What `network(...)` gives, equal to rounding; blocks may be streamed.

    Args:
        tile: tokens treated at once; also bounds how many heads of a window are.
    """
    network.check(latents_BTCHW, text_BNLE, timestep_B, ofs)
    positions = network.positions(latents_BTCHW, text_BNLE)
    directions = Directions.of(positions.segments, latents_BTCHW.device)
    emb = network.condition(timestep_B, ofs, latents_BTCHW.dtype)
    tokens_BLD = embed(network, latents_BTCHW, text_BNLE, tile)
    added_1LD = torch.empty_like(tokens_BLD[:1])
    for streamed in network.transformer_blocks:
        with borrowed(streamed) as block:
            assert isinstance(block, Block)
            run_block(block, tokens_BLD, emb, positions, directions, added_1LD, tile)
    del added_1LD
    return head(network, latents_BTCHW, tokens_BLD[:, positions.segments.text_total :], emb, tile)


def embed(
    network: CogVideoXTransformer, latents_BTCHW: Tensor, text_BNLE: Tensor, tile: int
) -> Tensor:
    """Tokens `[B, L, D]`: text, then video, a few frames at a time."""
    config, patch = network.config, network.patch_embed
    frames, rows, columns = token_grid(config, latents_BTCHW)
    together, step = max(1, tile // (rows * columns)), config.patch_size_t or 1
    text_total = text_BNLE.shape[1] * text_BNLE.shape[2]
    length = text_total + frames * rows * columns
    tokens = latents_BTCHW.new_empty(len(latents_BTCHW), length, config.width)
    for row, (latents, text) in enumerate(zip(latents_BTCHW, text_BNLE, strict=True)):
        if config.use_learned_positional_embeddings:  # of one length only, and a short one
            tokens[row] = torch.cat(patch(latents[None], text[None]), dim=1)[0]
            continue
        tokens[row, :text_total] = patch.text_proj(text).flatten(0, 1)
        for first in range(0, frames, together):
            last = min(first + together, frames)
            video = patch.project(latents[None, first * step : last * step])
            if not config.use_rotary_positional_embeddings:
                table = sine_table(config, last - first, rows, columns, video.device, first)
                video = video + table.to(video.dtype)
            at = text_total + first * rows * columns
            tokens[row, at : at + video.shape[1]] = video[0]
    return tokens


def run_block(
    block: Block,
    tokens_BLD: Tensor,
    emb_BE: Tensor,
    positions: Positions,
    directions: Directions,
    added_1LD: Tensor,
    tile: int,
) -> None:
    """One block, in place; `added_1LD` is room to work in."""
    first, second = block.norm1.modulation(emb_BE), block.norm2.modulation(emb_BE)
    text_total = positions.segments.text_total
    for row, x_1LD in enumerate(tokens_BLD.split(1)):
        attend(block, x_1LD, first[row], positions, tile, out=added_1LD)
        if block.ttt is not None:
            gates = gates_of(block, "forward")
            remember(block.ttt, added_1LD, gates, directions.forward, positions, tile)
            gates = gates_of(block, "backward")
            remember(block.ttt, added_1LD, gates, directions.backward, positions, tile)
        for part, stream in tiles(text_total, x_1LD.shape[1], tile):
            x_1LD[:, part] += gate_of(first[row], stream) * added_1LD[:, part]
            h = shifted(block.norm2, x_1LD[:, part], second[row], stream)
            x_1LD[:, part] += gate_of(second[row], stream) * block.ff(h)


def attend(
    block: Block,
    x_1LD: Tensor,
    modulation: Tensor,
    positions: Positions,
    tile: int,
    out: Tensor,
) -> None:
    """Local attention of the normalised tokens into `out`; shared frames are averaged."""
    segments, attn = positions.segments, block.attn1
    words, frame = segments.text_tokens, segments.frame_tokens
    own, shared = segments.step_frames * frame, segments.shared_frames * frame
    tail: Tensor | None = None
    for i in range(segments.count):
        text = slice(i * words, (i + 1) * words)
        start = segments.text_total + i * own
        window = torch.cat(
            [
                shifted(block.norm1, x_1LD[:, text], modulation, TEXT),
                shifted(block.norm1, x_1LD[:, start : start + own + shared], modulation, VIDEO),
            ],
            dim=1,
        )
        mixed = mix_heads(attn, window, positions.window, tile)
        video = mixed[:, words:]
        if tail is not None:
            video[:, :shared] = (video[:, :shared] + tail) / 2
        if i < segments.count - 1:
            tail, video = video[:, own:].clone(), video[:, :own]
        out[:, text] = attn.to_out(mixed[:, :words])
        out[:, start : start + video.shape[1]] = attn.to_out(video)


def mix_heads(attn: LocalAttention, window_1WD: Tensor, rotary: Tensor | None, tile: int) -> Tensor:
    """Attention within a window, some heads at a time, before the output projection."""
    mixed = torch.empty_like(window_1WD)
    for heads in head_groups(attn.heads, window_1WD.shape[1], tile):
        features = slice(heads.start * attn.head_width, heads.stop * attn.head_width)
        q, k, v = (
            attn.split_heads(project(linear, window_1WD, features))
            for linear in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed[..., features] = attn.mix(q, k, v, rotary)
    return mixed


def remember(
    ttt: AnyTTTLayer,
    x_1LD: Tensor,
    gates_2D: Tensor,
    order_L: Tensor,
    positions: Positions,
    tile: int,
) -> None:
    """Add a pass of TTT over the tokens in the given order, gated; tile by tile, with its state."""
    rotary, text_total = positions.sequence, positions.segments.text_total
    assert rotary is not None
    step = max(1, tile // ttt.mini_batch) * ttt.mini_batch  # borders between mini-batches only
    parts = order_L.split(step)
    eta = torch.cat([ttt.learning_rate(x_1LD[:, part]) for part in parts], dim=-1)
    if positions.eta_source is not None:
        eta = eta[..., positions.eta_source]
    groups = head_groups(ttt.heads, step, tile // 2)  # in fp32
    states = [tuple(part[heads] for part in ttt.initial) for heads in groups]
    for number, part in enumerate(parts):
        here = slice(number * step, number * step + len(part))
        x = x_1LD[:, part]
        outputs = []
        for i, heads in enumerate(groups):
            y, states[i] = ttt.mix(x, rotary[here], eta[..., heads, here], states[i], heads)
            outputs.append(y)
        new = ttt.project_out(torch.cat(outputs, dim=-1))
        x_1LD[:, part] = x + gates_2D[(part >= text_total).long()] * new


def head(
    network: CogVideoXTransformer, latents: Tensor, video_BND: Tensor, emb_BE: Tensor, tile: int
) -> Tensor:
    """The last norms and the output projection, then patches to latents."""
    shift, scale = network.norm_out.modulation(emb_BE)
    rows = []
    for row, video_1ND in enumerate(video_BND.split(1)):
        steered = (
            network.norm_out.shifted(network.norm_final(part), shift[row], scale[row])
            for part in video_1ND.split(tile, dim=1)
        )
        rows.append(torch.cat([network.proj_out(part) for part in steered], dim=1))
    _, height, width = token_grid(network.config, latents)
    return unpatchify(torch.cat(rows), network.config, height, width)


def tiles(text_total: int, length: int, tile: int) -> Iterator[tuple[slice, int]]:
    """Pieces of `[text | video]` that hold one stream each, and which."""
    for first, last, stream in ((0, text_total, TEXT), (text_total, length, VIDEO)):
        for start in range(first, last, tile):
            yield slice(start, min(start + tile, last)), stream


def head_groups(heads: int, tokens: int, tile: int) -> list[slice]:
    """Groups of heads of about equal size: so many that tokens x heads stay within the tile's."""
    at_once = max(1, min(heads, heads * tile // tokens))
    count = -(-heads // at_once)
    borders = [heads * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(borders)]


def shifted(norm: AdaptiveNorm, x_1LD: Tensor, modulation: Tensor, stream: int) -> Tensor:
    """Tokens of one stream, normalised and steered; `modulation` is one row of it."""
    shift, scale = modulation[3:5] if stream == TEXT else modulation[0:2]
    return norm.norm(x_1LD).mul_(1 + scale).add_(shift)


def gate_of(modulation: Tensor, stream: int) -> Tensor:
    """The gate `[1, D]` of a stream."""
    return modulation[5] if stream == TEXT else modulation[2]


def gates_of(block: Block, direction: str) -> Tensor:
    """The gates of TTT in one direction, `[2, D]`: text, video."""
    names = (f"{direction}_gate_text", f"{direction}_gate_video")
    return torch.tanh(torch.stack([getattr(block, name) for name in names]))
