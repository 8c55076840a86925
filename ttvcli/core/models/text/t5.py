"""T5 v1.1 text encoder, with the weight names of the Hugging Face checkpoints.

What is unusual about T5: RMS norms without bias, no biases in any linear layer, no 1/sqrt(K) in
the attention (the initialisation absorbs it), and positions only as a learned bias on the scores,
stored in block 0 and shared by all blocks. CogVideoX calls it without an attention mask, so the
padding tokens are attended to and are part of the conditioning; there is no mask argument here.

Shapes: B batch · L tokens · D width · A heads · K head width · F feed-forward width.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

_REQUIRED = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
# Keys of a Hugging Face config that would describe another network.
_EXPECTED: dict[str, Any] = {
    "model_type": "t5",
    "feed_forward_proj": "gated-gelu",
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "is_decoder": False,
}


@dataclass(frozen=True)
class T5Config:
    """Sizes of the encoder, named as in Hugging Face's `config.json`."""

    vocab_size: int = 32128
    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        for name in _REQUIRED:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, has to be positive")
        buckets = self.relative_attention_num_buckets
        if buckets < 4 or buckets % 4:
            raise ValueError(f"relative_attention_num_buckets is {buckets}, need a multiple of 4")
        if self.relative_attention_max_distance <= buckets // 4:
            raise ValueError(
                f"relative_attention_max_distance is {self.relative_attention_max_distance}, "
                f"has to exceed {buckets // 4} (a quarter of the buckets)"
            )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "T5Config":
        """Read a Hugging Face `config.json`.

        Decoder, dropout, caching and bookkeeping keys are ignored; a value that would describe a
        different encoder (the ungated feed-forward of T5 v1.0, say) raises `ValueError`.
        """
        missing = [name for name in _REQUIRED if name not in config]
        if missing:
            raise ValueError(f"T5 config lacks {', '.join(missing)}")
        # Absent means the library default, and that default is the ungated T5 v1.0.
        if "feed_forward_proj" not in config:
            raise ValueError("T5 config lacks feed_forward_proj (expected 'gated-gelu')")
        for key, expected in _EXPECTED.items():
            if key in config and config[key] != expected:
                raise ValueError(
                    f"T5 config has {key} = {config[key]!r}, only {expected!r} is supported"
                )
        names = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in config.items() if key in names})

    def to_dict(self) -> dict[str, Any]:
        """Return a `config.json` that transformers loads as `T5EncoderModel`."""
        return {
            "architectures": ["T5EncoderModel"],
            **_EXPECTED,
            "is_encoder_decoder": True,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "tie_word_embeddings": False,
            "dropout_rate": 0.0,
            **asdict(self),
        }


class T5Encoder(nn.Module):
    """Token ids [B, L] to hidden states [B, L, D]."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config)
        self.register_load_state_dict_pre_hook(_untie_embedding)

    def forward(self, ids_BL: Tensor) -> Tensor:
        if ids_BL.ndim != 2:
            raise ValueError(f"token ids have shape {tuple(ids_BL.shape)}, expected [B, L]")
        hidden_BLD: Tensor = self.encoder(self.shared(ids_BL))
        return hidden_BLD

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all weights with T5's own scales, in the order of `named_parameters`.

        Queries get the extra factor 1/sqrt(K) that the attention lacks.
        """
        c = self.config
        std = {
            "shared": 1.0,
            "q": (c.d_model * c.d_kv) ** -0.5,
            "k": c.d_model**-0.5,
            "v": c.d_model**-0.5,
            "o": (c.num_heads * c.d_kv) ** -0.5,
            "relative_attention_bias": c.d_model**-0.5,
            "wi_0": c.d_model**-0.5,
            "wi_1": c.d_model**-0.5,
            "wo": c.d_ff**-0.5,
        }
        for name, parameter in self.named_parameters():
            layer = name.split(".")[-2]
            if layer in std:
                draw = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(draw * std[layer])
            else:
                parameter.fill_(1.0)

    def cast(self, dtype: torch.dtype) -> "T5Encoder":
        """Convert the weights in place and return the encoder.

        In float16 the second feed-forward matrix and the residual stream stay in float32, because
        the activations of the large T5 models exceed the float16 range there.
        """
        keep = {} if dtype != torch.float16 else _down_projections(self)
        kept = {name: layer.weight.detach().float() for name, layer in keep.items()}
        self.to(dtype)
        for name, layer in keep.items():
            layer.weight = nn.Parameter(kept[name], requires_grad=layer.weight.requires_grad)
        return self


class Stack(nn.Module):
    """All blocks and the final norm."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            Block(config, has_position_bias=index == 0) for index in range(config.num_layers)
        )
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x_BLD: Tensor) -> Tensor:
        first = self.block[0]
        assert isinstance(first, Block)
        bias_1ALL = first.attention.position_bias(x_BLD.shape[1])
        # float32 when the feed-forward output is (see T5Encoder.cast), else the model's dtype
        x_BLD = x_BLD.to(first.feed_forward.DenseReluDense.wo.weight.dtype)
        for block in self.block:
            x_BLD = block(x_BLD, bias_1ALL)
        normed_BLD: Tensor = self.final_layer_norm(x_BLD)
        return normed_BLD


class Block(nn.Module):
    """Self-attention, then the gated feed-forward, each with a norm before and a residual."""

    def __init__(self, config: T5Config, *, has_position_bias: bool) -> None:
        super().__init__()
        # A two-entry list, because the public weights are named layer.0 and layer.1.
        self.layer = nn.ModuleList(
            [AttentionLayer(config, has_position_bias), FeedForwardLayer(config)]
        )

    @property
    def attention(self) -> "SelfAttention":
        layer = self.layer[0]
        assert isinstance(layer, AttentionLayer)
        return layer.SelfAttention

    @property
    def feed_forward(self) -> "FeedForwardLayer":
        layer = self.layer[1]
        assert isinstance(layer, FeedForwardLayer)
        return layer

    def forward(self, x_BLD: Tensor, bias_1ALL: Tensor) -> Tensor:
        x_BLD = x_BLD + self.layer[0](x_BLD, bias_1ALL)
        x_BLD = x_BLD + self.layer[1](x_BLD)
        return x_BLD


class AttentionLayer(nn.Module):
    """Norm and self-attention."""

    def __init__(self, config: T5Config, has_position_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config, has_position_bias)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x_BLD: Tensor, bias_1ALL: Tensor) -> Tensor:
        out_BLD: Tensor = self.SelfAttention(self.layer_norm(x_BLD), bias_1ALL)
        return out_BLD


class FeedForwardLayer(nn.Module):
    """Norm and gated feed-forward."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = GatedFeedForward(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x_BLD: Tensor) -> Tensor:
        out_BLD: Tensor = self.DenseReluDense(self.layer_norm(x_BLD))
        return out_BLD


class SelfAttention(nn.Module):
    """Unscaled, unmasked attention with an additive position bias."""

    def __init__(self, config: T5Config, has_position_bias: bool) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.heads = config.num_heads
        self.buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if has_position_bias:
            self.relative_attention_bias = nn.Embedding(self.buckets, self.heads)

    def forward(self, x_BLD: Tensor, bias_1ALL: Tensor) -> Tensor:
        q, k, v = (
            rearrange(project(x_BLD), "B L (A K) -> B A L K", A=self.heads)
            for project in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_1ALL, scale=1.0)
        out_BLD: Tensor = self.o(rearrange(mixed, "B A L K -> B L (A K)"))
        return out_BLD

    def position_bias(self, length: int) -> Tensor:
        """Return the score bias [1, A, L, L] (query, key) of this block's table."""
        table = self.relative_attention_bias
        position = torch.arange(length, device=table.weight.device)
        offset_LL = position[None, :] - position[:, None]
        bucket_LL = relative_bucket(offset_LL, self.buckets, self.max_distance)
        return rearrange(table(bucket_LL), "Q L A -> 1 A Q L")


class GatedFeedForward(nn.Module):
    """`wo(gelu_tanh(wi_0 x) * wi_1 x)`."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        gated_BLF = F.gelu(self.wi_0(x_BLD), approximate="tanh") * self.wi_1(x_BLD)
        out_BLD: Tensor = self.wo(gated_BLF.to(self.wo.weight.dtype))
        return out_BLD


class RMSNorm(nn.Module):
    """Scale to unit mean square, in float32, then by a learned weight; no mean, no bias."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_BLD: Tensor) -> Tensor:
        mean_square = x_BLD.float().square().mean(-1, keepdim=True)
        normed_BLD = x_BLD * torch.rsqrt(mean_square + self.eps)
        return self.weight * normed_BLD.to(self.weight.dtype)


def relative_bucket(offset: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Map integer offsets (key minus query) to bucket numbers of the same shape.

    Half of the buckets are for keys after the query. Within a half, the first half holds one
    distance each, the rest grow logarithmically up to `max_distance`, and the last takes all
    that is farther.
    """
    half = buckets // 2
    exact = half // 2
    distance = offset.abs()
    # distances below `exact` never use the logarithm; the clamp only keeps it finite
    ratio = distance.clamp(min=exact).float() / exact
    growth = torch.log(ratio) / math.log(max_distance / exact) * (half - exact)
    far = (exact + growth.long()).clamp(max=half - 1)
    return torch.where(distance < exact, distance, far) + half * (offset > 0)


def _down_projections(encoder: T5Encoder) -> dict[str, nn.Linear]:
    return {
        name: module.wo
        for name, module in encoder.named_modules()
        if isinstance(module, GatedFeedForward)
    }


def _untie_embedding(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Accept checkpoints that store the tied embedding under its second name as well."""
    twin = state.pop(prefix + "encoder.embed_tokens.weight", None)
    if twin is not None:
        state.setdefault(prefix + "shared.weight", twin)
