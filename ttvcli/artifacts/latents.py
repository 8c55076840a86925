"""Latents of one clip: `<id>.safetensors` with `mean` and `logvar`, bf16, unscaled.

Shape legend: C latent channels, T latent frames, H W latent height and width.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts.safetensors_file import read_about, read_artifact, write_artifact
from ttvcli.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

KIND = "latents"
# What every latents file says about itself, besides kind, schema version and producer.
REQUIRED = ("settings_hash", "vae", "vae_hash", "fps", "width", "height", "frames", "source_sha256")


def save_latents(
    path: str | Path, mean: "Tensor", logvar: "Tensor", metadata: Mapping[str, Any]
) -> None:
    """Write the posterior of one clip atomically.

    Args:
        path: file to write.
        mean: posterior mean `[C, T, H, W]`, not multiplied by the scaling factor.
        logvar: posterior log-variance, of the same shape.
        metadata: at least the keys of REQUIRED; `width` and `height` in pixels, `frames` in pixel
            frames, `vae_hash` that of the weights.

    Raises:
        ValueError: wrong rank, different shapes, or a missing key.
    """
    import torch

    if mean.ndim != 4 or mean.shape != logvar.shape:
        raise ValueError(
            f"mean and logvar must be [C, T, H, W] alike, got {list(mean.shape)} "
            f"and {list(logvar.shape)}"
        )
    missing = [key for key in REQUIRED if key not in metadata]
    if missing:
        raise ValueError(f"metadata lacks {', '.join(missing)}")
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in (("mean", mean), ("logvar", logvar))
    }
    write_artifact(path, KIND, tensors, metadata)


def load_latents(path: str | Path) -> "tuple[Tensor, Tensor, dict[str, Any]]":
    """Return (mean, logvar, metadata), tensors `[C, T, H, W]` bf16.

    Raises:
        ArtifactError: missing, damaged, or not latents.
    """
    tensors, about = read_artifact(path, KIND)
    if set(tensors) != {"mean", "logvar"}:
        raise ArtifactError(f"holds {sorted(tensors)}, expected mean and logvar", where=str(path))
    return tensors["mean"], tensors["logvar"], about


def read_latents_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata alone; checks that the file is whole, needs no torch."""
    return read_about(path, KIND)
