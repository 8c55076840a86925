"""Settings of the CogVideoX transformer, with the names of diffusers' `transformer/config.json`."""

import difflib
from dataclasses import asdict, dataclass, fields
from typing import Any

SSM_KINDS = ("none", "ttt_linear", "ttt_mlp", "ttt_large_chunk")
LR_MODES = ("per-token", "last-row")

# ssm -> the keys of ours that mean something for it
_TTT_KEYS = ("ttt_mini_batch", "ttt_base_lr", "ttt_lr_mode", "ttt_norm_eps")
_OUR_KEYS: dict[str, tuple[str, ...]] = {
    "none": (),
    "ttt_linear": ("ssm", *_TTT_KEYS),
    "ttt_mlp": ("ssm", *_TTT_KEYS),
    "ttt_large_chunk": ("ssm", "ttt_base_lr", "ttt_chunk_tokens", "ttt_muon_steps"),
}

# Settings diffusers has a switch for and every published checkpoint agrees on.
_FIXED = {
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "activation_fn": "gelu-approximate",
    "timestep_activation_fn": "silu",
}


@dataclass(frozen=True, kw_only=True)
class CogVideoXConfig:
    """Architecture of `CogVideoXTransformer`; defaults are those of diffusers (CogVideoX-2B).

    The last fields, from `ssm` on, are ours. A plain CogVideoX has `ssm="none"`. Checkpoints in the
    line of TTT-Video have `norm_eps=1e-6`, those of diffusers 1e-5: take it from the checkpoint.
    `ttt_chunk_tokens` and `ttt_muon_steps` are of `ttt_large_chunk`, `ttt_mini_batch`,
    `ttt_lr_mode` and `ttt_norm_eps` of the others.

    Raises:
        ValueError: a value no implementation exists for, or values that contradict each other.
    """

    num_attention_heads: int = 30
    attention_head_dim: int = 64
    in_channels: int = 16
    out_channels: int = 16
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    time_embed_dim: int = 512
    ofs_embed_dim: int | None = None
    text_embed_dim: int = 4096
    num_layers: int = 30
    dropout: float = 0.0
    attention_bias: bool = True
    sample_width: int = 90
    sample_height: int = 60
    sample_frames: int = 49
    patch_size: int = 2
    patch_size_t: int | None = None
    temporal_compression_ratio: int = 4
    max_text_seq_length: int = 226
    activation_fn: str = "gelu-approximate"
    timestep_activation_fn: str = "silu"
    norm_elementwise_affine: bool = True
    norm_eps: float = 1e-5
    spatial_interpolation_scale: float = 1.875
    temporal_interpolation_scale: float = 1.0
    use_rotary_positional_embeddings: bool = False
    use_learned_positional_embeddings: bool = False
    patch_bias: bool = True

    ssm: str = "none"
    ttt_mini_batch: int = 64
    ttt_base_lr: float = 0.1
    ttt_lr_mode: str = "per-token"
    ttt_norm_eps: float = 1e-8
    ttt_chunk_tokens: int = 4096
    ttt_muon_steps: int = 5

    def __post_init__(self) -> None:
        for key, expected in _FIXED.items():
            if getattr(self, key) != expected:
                raise ValueError(f"{key} must be {expected!r}, got {getattr(self, key)!r}")
        if self.ssm not in SSM_KINDS:
            raise ValueError(f"ssm must be one of {SSM_KINDS}, got {self.ssm!r}")
        if self.ttt_lr_mode not in LR_MODES:
            raise ValueError(f"ttt_lr_mode must be one of {LR_MODES}, got {self.ttt_lr_mode!r}")
        if self.ssm == "ttt_large_chunk" and self.ttt_lr_mode != "per-token":
            raise ValueError("ttt_lr_mode 'last-row' is one of mini-batches, not of large chunks")
        if self.ttt_chunk_tokens < 1 or self.ttt_muon_steps < 0:
            raise ValueError(
                f"ttt_chunk_tokens must be at least 1 and ttt_muon_steps at least 0, "
                f"got {self.ttt_chunk_tokens} and {self.ttt_muon_steps}"
            )
        if self.needs_rotary and self.attention_head_dim % 16:
            raise ValueError(
                f"rotary positions need attention_head_dim divisible by 16, "
                f"got {self.attention_head_dim}"
            )
        if self.width % 8:
            raise ValueError(f"heads x head width must be divisible by 8, got {self.width}")
        if self.use_learned_positional_embeddings and not self.use_rotary_positional_embeddings:
            raise ValueError("a learned position table is only known together with rotary ones")
        if self.ofs_embed_dim not in (None, self.time_embed_dim):
            raise ValueError(
                f"ofs_embed_dim {self.ofs_embed_dim} must equal time_embed_dim "
                f"{self.time_embed_dim}: the two are added"
            )

    @property
    def width(self) -> int:
        """Width of a token."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def needs_rotary(self) -> bool:
        """Whether attention or TTT rotates queries and keys."""
        return self.use_rotary_positional_embeddings or self.ssm != "none"

    @property
    def update_tokens(self) -> int:
        """Tokens of one update of the inner networks: a mini-batch or a large chunk."""
        is_large = self.ssm == "ttt_large_chunk"
        return self.ttt_chunk_tokens if is_large else self.ttt_mini_batch

    @property
    def sample_latent_frames(self) -> int:
        """`sample_frames` counts pixel frames; this is its number of latent frames."""
        return (self.sample_frames - 1) // self.temporal_compression_ratio + 1

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CogVideoXConfig":
        """Build from the content of a `transformer/config.json`, older ones included.

        Raises:
            ValueError: a key is unknown, so that a setting is never dropped in silence.
        """
        known = [field.name for field in fields(cls)]
        chosen = {key: value for key, value in values.items() if not key.startswith("_")}
        for key in chosen:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"unknown key {key!r} in the transformer config{hint}")
        return cls(**chosen)

    def to_dict(self) -> dict[str, Any]:
        """Values for `transformer/config.json`; plain CogVideoX gets only what diffusers knows."""
        own = _OUR_KEYS[self.ssm]
        every = {key for keys in _OUR_KEYS.values() for key in keys}
        values = {k: v for k, v in asdict(self).items() if k in own or k not in every}
        name = "CogVideoXTransformer3DModel" if self.ssm == "none" else "CogVideoXTransformer"
        return {"_class_name": name, **values}
