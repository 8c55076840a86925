"""The text encoder of CLIP through transformers, from a folder on this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttvcli.artifacts import clip_folder
from ttvcli.core.device import DTYPES
from ttvcli.errors import ArtifactError, UsageError


def load(
    folder: Path, max_tokens: int, dtype: str, device: torch.device
) -> tuple[Callable[[str], tuple[list[int], int]], Callable[[Tensor], Tensor], int]:
    """Return (text to ids and tokens needed, ids `[B, L]` to hidden states `[B, L, D]`, ids there).

    The last hidden states after the final norm, padding attended to, as pipelines of diffusers
    take them.

    Raises:
        UsageError: transformers is not installed, or max_tokens is more than CLIP has positions.
        ArtifactError: the folder cannot be read.
    """
    try:
        import transformers
    except ImportError as error:
        raise UsageError(
            f"transformers cannot be imported: {error}", fix="pip install 'ttv[clip]'"
        ) from error
    positions = clip_folder.longest_text(folder)
    if max_tokens > positions:
        raise UsageError(
            f"max_tokens is {max_tokens}, this CLIP has {positions} positions",
            fix=f"--max-tokens {positions}",
        )
    try:
        tokenizer: Any = transformers.CLIPTokenizer.from_pretrained(
            clip_folder.component(folder, "tokenizer"), local_files_only=True
        )
        model: Any = transformers.CLIPTextModel.from_pretrained(
            clip_folder.component(folder, "text_encoder"),
            local_files_only=True,
            dtype=DTYPES[dtype],
        )
    except (OSError, ValueError) as error:
        raise ArtifactError(f"CLIP cannot be loaded: {error}", where=str(folder)) from error
    model = model.to(device).eval()

    def tokens(text: str) -> tuple[list[int], int]:
        full = tokenizer(text, truncation=False, verbose=False).input_ids
        cut = tokenizer(text, truncation=True, padding="max_length", max_length=max_tokens)
        return cut.input_ids, len(full)

    def forward(ids: Tensor) -> Tensor:
        hidden: Tensor = model(input_ids=ids).last_hidden_state
        return hidden

    return tokens, forward, int(model.config.vocab_size)
