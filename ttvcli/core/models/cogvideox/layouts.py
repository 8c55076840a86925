"""Whose checkpoint it is, by the names of its tensors. Importing this does not import torch."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

PUBLIC_PREFIX = "dit."
# SAT's name of the matrix of query, key and value of a block
SAT_FUSED = "transformer.layers.{}.attention.query_key_value."


def is_public(names: Iterable[str]) -> bool:
    """Tell whether names are those of a TTT-Video DiT."""
    return any(name.endswith("patch_embedding.vid_proj.weight") for name in names)


def is_sat(names: Iterable[str]) -> bool:
    """Tell whether names are those of a SAT transformer."""
    return any(SAT_FUSED.format(0) in name for name in names)


def is_sat_vae(names: Iterable[str]) -> bool:
    """Tell whether names are those of a SAT VAE."""
    return any(name.startswith("encoder.down.") for name in names)


def public_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What shapes say about a TTT-Video DiT, named as in our `transformer/config.json`."""

    def ending(tail: str) -> tuple[int, ...] | None:
        return next((shape for name, shape in shapes.items() if name.endswith(tail)), None)

    layers = {found[1] for name in shapes if (found := re.search(r"\blayers\.(\d+)\.", name))}
    sizes: dict[str, Any] = {"num_layers": len(layers)}
    head = ending(".seq_modeling_block.q_norm.weight")
    query = ending(".seq_modeling_block.q.weight")
    if head and query:
        sizes |= {"num_attention_heads": query[0] // head[0], "attention_head_dim": head[0]}
    kind = "ttt_mlp" if ending(".ttt.W2") else "ttt_linear" if ending(".ttt.W1") else "none"
    return {**sizes, "ssm": kind}
