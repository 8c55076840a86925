"""Bytes and operations of the transformer and the text encoder, from their sizes alone.

Counts are of the arrays that live at the same moment in the code as it is; where a number of copies
is named, it was counted there. Importing this does not import torch.
"""

from dataclasses import dataclass

from ttvcli.core.models.cogvideox.config import CogVideoXConfig

FP32 = 4
# What libraries keep on a CPU once they have run, as measured: products and convolutions in fp32,
# products in 16 bits besides, the small products of TTT besides.
CPU_LIBRARIES = 16 * 2**20
CPU_HALF_PRODUCTS = 32 * 2**20
CPU_TTT_PRODUCTS = 32 * 2**20


@dataclass(frozen=True)
class Clip:
    """What a transformer is given: rows (2 with guidance), 3 s segments and tokens.

    `text` counts the tokens of one segment, `frames` latent frames after patches in time, `frame`
    the tokens of a frame.
    """

    rows: int
    segments: int
    text: int
    frames: int
    frame: int

    @property
    def length(self) -> int:
        """Tokens of a row, text and video."""
        return self.segments * self.text + self.frames * self.frame

    @property
    def window(self) -> int:
        """Tokens of an attention window, text included."""
        own, shared = divmod(self.frames, self.segments)
        return self.text + (own + shared) * self.frame

    def array(self, width: int, size: int) -> int:
        """Bytes of an array of all tokens."""
        return self.rows * self.length * width * size


def transformer_activations(config: CogVideoXConfig, clip: Clip, size: int, tile: int) -> int:
    """Most bytes beside the weights in one pass.

    Args:
        size: bytes of an element.
        tile: tokens of a tile; 0 for a whole pass with all rows at once.
    """
    table, with_ttt = clip.length * config.attention_head_dim // 2 * 8, config.ssm != "none"
    if not tile:  # of a window, and of the whole video from either end
        return table * (3 if with_ttt else 1) + _whole(config, clip, size)
    return table * (2 if with_ttt else 1) + _in_tiles(config, clip, size, tile)


def _whole(config: CogVideoXConfig, clip: Clip, size: int) -> int:
    """`CogVideoXTransformer.forward`: most arrays live in attention, in TTT or in the MLP."""
    tokens = clip.array(config.width, size)
    windows = clip.rows * clip.segments * clip.window * config.width * size
    single = FP32 // size  # an array in fp32, in arrays of this size
    # input, normalised, joined; q k v before and after their norms; one of them being turned
    turning = 2 * single + 1 if size < FP32 else 2
    attention = 3 * tokens + (5 + turning) * windows
    # input, after attention, normalised; hidden before and after GELU
    mlp = 3 * tokens + 8 * tokens
    if config.ssm == "none":
        return max(attention, mlp)
    # input, after attention, in time order; q k v and targets, again as contiguous sequences,
    # outputs in pieces and joined
    copies = 3 if clip.rows > 1 else 0
    if config.ssm == "ttt_large_chunk":  # no targets; joined when the last update is over
        update = clip.rows * _chunk(config, clip, config.num_attention_heads)
        ttt = 3 * tokens + (3 + copies + 1) * single * tokens + max(single * tokens, update)
        return max(attention, mlp, ttt)
    ttt = 3 * tokens + (4 + copies + 2) * single * tokens + clip.rows * _update(config)
    return max(attention, mlp, ttt)


def _in_tiles(config: CogVideoXConfig, clip: Clip, size: int, tile: int) -> int:
    """`forward_in_tiles`: two arrays of the whole video, and the largest piece of work."""
    width = config.width
    row = clip.length * width * size
    piece = min(tile, clip.length) * width * size
    window = clip.window * width * size
    single = FP32 // size
    turning = 2 * single + 1 if size < FP32 else 2
    attention = 2 * window + (5 + turning) * min(piece, window)
    work = max(3 * window, attention, 11 * piece)
    if config.ssm == "ttt_large_chunk":
        work = max(work, _chunks_in_tiles(config, clip, size, tile))
    elif config.ssm != "none":
        rates = 2 * clip.length * config.num_attention_heads * FP32
        # tokens, outputs in pieces and joined; half as much of the heads at once, in fp32
        ttt = rates + piece + 2 * single * piece + 6 * single * piece // 2 + _update(config)
        work = max(work, ttt)
    return (clip.rows + 1) * row + work


def cpu_workspace(config: CogVideoXConfig, size: int) -> int:
    """Libraries' own buffers, with the largest weight in the order in which they multiply."""
    half = CPU_HALF_PRODUCTS if size < FP32 else 0
    ttt = CPU_TTT_PRODUCTS if config.ssm != "none" else 0
    return CPU_LIBRARIES + half + ttt + 4 * config.width**2 * size


def _update(config: CogVideoXConfig) -> int:
    """One update of the inner networks of a row: hidden arrays, and the state before and after."""
    head = config.attention_head_dim
    hidden, layers = (4 * head, 2) if config.ssm == "ttt_mlp" else (head, 1)
    arrays = 5 * config.ttt_mini_batch * hidden + 2 * layers * head * hidden
    return config.num_attention_heads * arrays * FP32


def _chunks_in_tiles(config: CogVideoXConfig, clip: Clip, size: int, tile: int) -> int:
    """Large chunks in `forward_in_tiles`: a tile holds one at least, so fewer heads at once."""
    step = max(1, tile // config.ttt_chunk_tokens) * config.ttt_chunk_tokens
    heads = max(1, min(config.num_attention_heads, config.num_attention_heads * tile // 2 // step))
    tokens = min(step, clip.length)
    rates = 2 * 3 * clip.length * config.num_attention_heads * FP32
    # tokens, outputs in pieces and joined
    whole = tokens * config.width * (size + 2 * FP32)
    # of the heads at once: q k v, outputs, and the update
    some = 4 * tokens * heads * config.attention_head_dim * FP32
    return rates + whole + some + _chunk(config, clip, heads)


def _chunk(config: CogVideoXConfig, clip: Clip, heads: int) -> int:
    """One update by a large chunk in some heads of a row: hidden arrays, weights and changes."""
    head = config.attention_head_dim
    tokens, hidden = min(config.ttt_chunk_tokens, clip.length), 4 * head
    return heads * FP32 * (5 * tokens * hidden + 3 * 3 * head * hidden)


def transformer_flops(config: CogVideoXConfig, clip: Clip) -> int:
    """Floating-point operations of one pass over all rows."""
    width, head = config.width, config.attention_head_dim
    tokens = clip.segments * clip.window
    layer = clip.length * 16 * width**2 + tokens * (8 * width**2 + 4 * width * clip.window)
    if config.ssm != "none":
        products = {
            "ttt_linear": 3 * head,
            "ttt_mlp": 7 * 4 * head,
            "ttt_large_chunk": 9 * 4 * head,
        }
        inner = 2 * head * products[config.ssm]
        layer += 2 * clip.length * (8 * width**2 + config.num_attention_heads * inner)
    ends = clip.length * 2 * width * (config.text_embed_dim // 8 + 128)
    return clip.rows * (config.num_layers * layer + ends)


def transformer_calls(config: CogVideoXConfig, clip: Clip, tile: int) -> int:
    """Operations started one after the other in one pass: what a short clip's time consists of."""
    rows = clip.rows if tile else 1
    layer = 60
    if config.ssm != "none":
        updates = -(-clip.length // config.update_tokens)
        large = 58 + 9 * config.ttt_muon_steps
        calls = {"ttt_linear": 10, "ttt_mlp": 18, "ttt_large_chunk": large}
        layer += 2 * updates * calls[config.ssm]
    return rows * config.num_layers * layer


@dataclass(frozen=True)
class TextEncoderSizes:
    """Sizes of a T5 encoder, named as in its `config.json`."""

    d_model: int
    d_ff: int
    d_kv: int
    num_heads: int
    num_layers: int


def text_activations(sizes: TextEncoderSizes, texts: int, tokens: int, size: int) -> int:
    """Most bytes beside the weights; texts are encoded one by one."""
    inner = sizes.num_heads * sizes.d_kv
    layer = tokens * (4 * sizes.d_model + max(5 * inner, 4 * sizes.d_ff)) * size
    bias = 3 * sizes.num_heads * tokens**2 * size
    return texts * tokens * sizes.d_model * size + layer + bias


def text_flops(sizes: TextEncoderSizes, texts: int, tokens: int) -> int:
    """Floating-point operations for all texts."""
    inner = sizes.num_heads * sizes.d_kv
    layer = 2 * sizes.d_model * (4 * inner + 3 * sizes.d_ff) + 4 * inner * tokens
    return texts * tokens * sizes.num_layers * layer
