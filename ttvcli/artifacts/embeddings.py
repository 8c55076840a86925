"""Text embeddings of one clip: `<id>.safetensors` with `embeddings` bf16 and `lengths`.

Shape legend: S segments of 3 s, L tokens, D width of the text encoder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts.safetensors_file import read_about, read_artifact, write_artifact
from ttvcli.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

KIND = "embeddings"
EMPTY_NAME = "empty.safetensors"  # the empty prompt, in every folder of embeddings
REQUIRED = ("settings_hash", "encoder", "encoder_hash", "max_tokens", "captions")


def save_embeddings(
    path: str | Path, embeddings: "Tensor", lengths: "Tensor", metadata: Mapping[str, Any]
) -> None:
    """Write the embeddings of one clip atomically.

    Args:
        path: file to write.
        embeddings: `[S, L, D]`, one row of tokens a segment, padding included.
        lengths: `[S]`, tokens before the padding.
        metadata: at least the keys of REQUIRED; `captions` holds the S texts.

    Raises:
        ValueError: shapes that do not belong together, or a missing key.
    """
    import torch

    missing = [key for key in REQUIRED if key not in metadata]
    if missing:
        raise ValueError(f"metadata lacks {', '.join(missing)}")
    segments = len(metadata["captions"])
    if embeddings.ndim != 3 or embeddings.shape[0] != segments or lengths.shape != (segments,):
        raise ValueError(
            f"embeddings {list(embeddings.shape)} and lengths {list(lengths.shape)} must be "
            f"[S, L, D] and [S] with S = {segments} captions"
        )
    tensors = {
        "embeddings": embeddings.detach().to("cpu", torch.bfloat16).contiguous(),
        "lengths": lengths.detach().to("cpu", torch.int32).contiguous(),
    }
    write_artifact(path, KIND, tensors, metadata)


def load_embeddings(path: str | Path) -> "tuple[Tensor, Tensor, dict[str, Any]]":
    """Return (embeddings `[S, L, D]` bf16, lengths `[S]` int32, metadata).

    Raises:
        ArtifactError: missing, damaged, or not text embeddings.
    """
    tensors, about = read_artifact(path, KIND)
    if set(tensors) != {"embeddings", "lengths"}:
        found = sorted(tensors)
        raise ArtifactError(f"holds {found}, expected embeddings and lengths", where=str(path))
    return tensors["embeddings"], tensors["lengths"], about


def read_embeddings_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata alone; checks that the file is whole, needs no torch."""
    return read_about(path, KIND)
