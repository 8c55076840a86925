"""A CLIP as transformers writes it: one folder, or `text_encoder` and `tokenizer` side by side."""

import json
from pathlib import Path
from typing import Any

from ttvcli.artifacts.model_folder import hash_of_files
from ttvcli.artifacts.weight_files import weight_files
from ttvcli.errors import ArtifactError

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")


def component(folder: Path, name: str) -> Path:
    """Return where the "text_encoder" or the "tokenizer" is."""
    return folder / name if (folder / name).is_dir() else folder


def text_config(folder: Path) -> dict[str, Any]:
    """Return the sizes of the text encoder; ArtifactError if it is none of CLIP."""
    path = component(folder, "text_encoder") / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"the configuration of CLIP cannot be read: {error}",
            where=str(path),
            fix="--model names a folder that transformers wrote, such as clip-vit-large-patch14/",
        ) from error
    kind = found.get("model_type")
    if kind not in ("clip", "clip_text_model"):
        raise ArtifactError(
            f"model_type is {kind!r}, expected clip or clip_text_model",
            where=str(path),
            fix="leave out --encoder clip for a T5",
        )
    inner = found.get("text_config") or {}
    return {**found, **inner} if kind == "clip" else found


def check(folder: Path) -> None:
    """Raise ArtifactError unless a folder has what embedding texts takes."""
    if not folder.is_dir():
        raise ArtifactError(
            f"--encoder clip takes a folder with a CLIP, and {str(folder)!r} is none",
            fix="--model names a folder that transformers wrote, such as clip-vit-large-patch14/",
        )
    text_config(folder)
    tokenizer = component(folder, "tokenizer")
    if not any((tokenizer / name).is_file() for name in TOKENIZER_FILES[:2]):
        raise ArtifactError(
            "CLIP has no tokenizer",
            where=str(tokenizer),
            fix=f"it is {' or '.join(TOKENIZER_FILES[:2])} beside the model",
        )


def longest_text(folder: Path) -> int:
    """Return how many tokens the positions suffice for."""
    return int(text_config(folder).get("max_position_embeddings", 77))


def as_t5(folder: Path) -> dict[str, int]:
    """Return the sizes under the names that T5 has for them, for estimates."""
    found = text_config(folder)
    width = int(found.get("hidden_size", 512))
    return {
        "d_model": width,
        "d_ff": int(found.get("intermediate_size", 2048)) * 2 // 3,  # two matrices, not three
        "num_heads": 1,
        "d_kv": width,
        "num_layers": int(found.get("num_hidden_layers", 12)),
    }


def hash_of(folder: Path, name: str) -> str:
    """Return 16 hex digits over the files of the "text_encoder" or the "tokenizer"."""
    inside = component(folder, name)
    if name == "tokenizer":
        files = [inside / file for file in TOKENIZER_FILES if (inside / file).is_file()]
    else:
        files = [inside / "config.json", *weight_files(inside, "model")]
    return hash_of_files(files, between_runs=True)
