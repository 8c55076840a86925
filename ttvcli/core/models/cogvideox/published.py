"""The CogVideoX models there are, told apart by their configuration alone; needs no torch.

Sizes and rates are those of the model cards of https://github.com/zai-org/CogVideo.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SEGMENT_FPS = 16  # of 3 s segments, which models with TTT layers make
SSM_NAMES = {
    "ttt_mlp": "TTT-MLP",
    "ttt_linear": "TTT-Linear",
    "ttt_large_chunk": "large-chunk TTT",
}


@dataclass(frozen=True)
class Published:
    """A published model: what marks its `transformer/config.json`, and the clip it was made for.

    `width` and `height` are pixels, `frames` pixel frames.
    """

    name: str
    heads: int
    layers: int
    frames: int
    fps: int
    width: int
    height: int
    in_channels: int = 16
    rotary: bool = True
    learned: bool = False
    patch_size_t: int | None = None
    ofs: bool = False

    def fits(self, config: Mapping[str, Any]) -> bool:
        """Tell whether a configuration is of this model; keys that old files lack count as off."""
        return (
            config.get("num_attention_heads", 30) == self.heads
            and config.get("num_layers", 30) == self.layers
            and config.get("in_channels", 16) == self.in_channels
            and bool(config.get("use_rotary_positional_embeddings")) == self.rotary
            and bool(config.get("use_learned_positional_embeddings")) == self.learned
            and config.get("patch_size_t") == self.patch_size_t
            and (config.get("ofs_embed_dim") is not None) == self.ofs
        )


PUBLISHED = (
    Published("CogVideoX-2B", 30, 30, 49, 8, 720, 480, rotary=False),
    Published("CogVideoX-5B", 48, 42, 49, 8, 720, 480),
    Published("CogVideoX-5B-I2V", 48, 42, 49, 8, 720, 480, in_channels=32, learned=True),
    Published("CogVideoX1.5-5B", 48, 42, 81, 16, 1360, 768, patch_size_t=2),
    Published(
        "CogVideoX1.5-5B-I2V", 48, 42, 81, 16, 1360, 768, in_channels=32, patch_size_t=2, ofs=True
    ),
)


def recognise(config: Mapping[str, Any]) -> Published | None:
    """Return the published model whose transformer has this configuration; TTT may be added."""
    return next((model for model in PUBLISHED if model.fits(config)), None)


def generation(config: Mapping[str, Any]) -> Published:
    """Return the published model of the same generation: 1.5 has patches in time, 1.0 has not."""
    second = config.get("patch_size_t") is not None
    return next(model for model in PUBLISHED[1:] if (model.patch_size_t is not None) == second)


def family(config: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Return what a person would call a model, such as "CogVideoX-5B with TTT-MLP".

    Args:
        config: content of `transformer/config.json`.
        about: what ttv noted about the model.
    """
    known = recognise(config)
    if known is not None:
        name = known.name
    elif about.get("world") == "tiny":
        name = "tiny"
    else:
        name = "CogVideoX of other sizes"
    added = SSM_NAMES.get(str(config.get("ssm", "none")))
    return f"{name} with {added}" if added else name


def default_clip(
    config: Mapping[str, Any], about: Mapping[str, Any], spatial_ratio: int
) -> dict[str, Any]:
    """Return `size`, `frames` and `fps` of the clip that a model was made for.

    `spatial_ratio` is pixels per latent, for models that are not published ones.
    """
    known = recognise(config)
    if known is not None:
        size, frames = f"{known.width}x{known.height}", known.frames
    else:
        sides = (config.get("sample_width", 90), config.get("sample_height", 60))
        size = "x".join(str(side * spatial_ratio) for side in sides)
        frames = int(config.get("sample_frames", 49))
    has_segments = config.get("ssm", "none") != "none"
    fps = SEGMENT_FPS if has_segments else generation(config).fps
    return {"size": size, "frames": frames, "fps": int(about.get("fps", fps))}
