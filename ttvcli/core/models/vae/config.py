"""Settings of the CogVideoX causal video VAE, with the names of diffusers' `vae/config.json`."""

from dataclasses import asdict, dataclass, fields
from typing import Any

# Present in published configs, but of no influence on what the network computes.
_IGNORED = {
    "down_block_types",
    "up_block_types",
    "force_upcast",
    "latents_mean",
    "latents_std",
    "shift_factor",
    "sample_height",
    "sample_size",
    "sample_width",
}

# What diffusers takes where a file does not say: that of CogVideoX-2B, the first there was.
UNNAMED_SCALING_FACTOR = 1.15258426


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Architecture of `CausalVAE`; defaults are those of CogVideoX-5B (`facts`: 215.6 M weights).

    Spatial compression is `2 ** (len(block_out_channels) - 1)`, temporal compression
    `temporal_compression_ratio`; both stages that halve time come first in the encoder.
    """

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 256, 512)
    latent_channels: int = 16
    layers_per_block: int = 3
    act_fn: str = "silu"
    norm_eps: float = 1e-6
    norm_num_groups: int = 32
    temporal_compression_ratio: int = 4
    scaling_factor: float = 0.7
    use_quant_conv: bool = False
    use_post_quant_conv: bool = False
    invert_scale_latents: bool = False

    def __post_init__(self) -> None:
        ratio = self.temporal_compression_ratio
        if ratio < 1 or ratio & (ratio - 1):
            raise ValueError(f"temporal_compression_ratio must be a power of two, got {ratio}")
        if self.time_stages > len(self.block_out_channels) - 1:
            raise ValueError(
                f"temporal_compression_ratio {ratio} needs {self.time_stages} down stages, "
                f"block_out_channels has {len(self.block_out_channels) - 1}"
            )
        for width in self.block_out_channels:
            if width % self.norm_num_groups:
                raise ValueError(
                    f"block_out_channels {width} is not divisible by "
                    f"norm_num_groups {self.norm_num_groups}"
                )
        if self.use_quant_conv or self.use_post_quant_conv:
            raise ValueError("quant convolutions are not part of any published CogVideoX VAE")
        if self.act_fn != "silu":
            raise ValueError(f"act_fn must be 'silu', got {self.act_fn!r}")

    @property
    def time_stages(self) -> int:
        """Number of stages that halve (encoder) or double (decoder) time."""
        return self.temporal_compression_ratio.bit_length() - 1

    @property
    def spatial_compression_ratio(self) -> int:
        """Pixels per latent along height and width."""
        return 2 ** (len(self.block_out_channels) - 1)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "VAEConfig":
        """Build from the content of a `vae/config.json`.

        Raises:
            ValueError: a key is unknown, so that a setting is never dropped in silence.
        """
        known = {field.name for field in fields(cls)}
        chosen: dict[str, Any] = {"scaling_factor": UNNAMED_SCALING_FACTOR}
        for key, value in values.items():
            if key in known:
                chosen[key] = tuple(value) if isinstance(value, list) else value
            elif not key.startswith("_") and key not in _IGNORED:
                raise ValueError(f"unknown key {key!r} in the VAE config; known: {sorted(known)}")
        return cls(**chosen)

    def to_dict(self) -> dict[str, Any]:
        """Values for `vae/config.json`, with the class name diffusers looks for."""
        values = asdict(self)
        values["block_out_channels"] = list(self.block_out_channels)
        stages = len(self.block_out_channels)
        values["down_block_types"] = ["CogVideoXDownBlock3D"] * stages
        values["up_block_types"] = ["CogVideoXUpBlock3D"] * stages
        return {"_class_name": "AutoencoderKLCogVideoX", **values}
