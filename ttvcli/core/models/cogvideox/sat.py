"""Names of the CogVideoX transformer in its authors' SAT checkpoints, and ours, both ways.

The format is that of `sat/` in https://github.com/zai-org/CogVideo. Three things are cut otherwise
there: query, key and value are one matrix; the modulation of a block is one matrix of twelve parts
(shift, scale and gate of video for attention, of video for the MLP, of text for attention, of text
for the MLP); and tables of positions that can be computed are stored.
"""

import re
from collections.abc import Iterable

from ttvcli.core.models.cogvideox.layouts import SAT_FUSED
from ttvcli.core.models.rewriting import Recipe, joined, renamed, share

PREFIX = "model.diffusion_model."
SAT_NORM_EPS = 1e-6  # their LayerNorms everywhere; diffusers has 1e-5

# (ours, SAT's); names of a block are relative to `transformer_blocks.{i}.`.
_OUTSIDE = (
    ("patch_embed.proj.", "mixins.patch_embed.proj."),
    ("patch_embed.text_proj.", "mixins.patch_embed.text_proj."),
    ("patch_embed.pos_embedding", "mixins.pos_embed.pos_embedding"),
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("ofs_embedding.linear_1.", "ofs_embed.0."),
    ("ofs_embedding.linear_2.", "ofs_embed.2."),
    ("norm_final.", "transformer.final_layernorm."),
    ("norm_out.linear.", "mixins.final_layer.adaLN_modulation.1."),
    ("norm_out.norm.", "mixins.final_layer.norm_final."),
    ("proj_out.", "mixins.final_layer.linear."),
)
_BLOCK = (
    ("norm1.norm.", "transformer.layers.{}.input_layernorm."),
    ("norm2.norm.", "transformer.layers.{}.post_attention_layernorm."),
    ("attn1.to_out.0.", "transformer.layers.{}.attention.dense."),
    ("ff.net.0.proj.", "transformer.layers.{}.mlp.dense_h_to_4h."),
    ("ff.net.2.", "transformer.layers.{}.mlp.dense_4h_to_h."),
    ("attn1.norm_q.", "mixins.adaln_layer.query_layernorm_list.{}."),
    ("attn1.norm_k.", "mixins.adaln_layer.key_layernorm_list.{}."),
)
_QKV = ("attn1.to_q.", "attn1.to_k.", "attn1.to_v.")
_MODULATION = "mixins.adaln_layer.adaLN_modulations.{}.1."
# Which of the twelve parts are ours; and where ours (six of each norm) go among the twelve.
_NORMS = {"norm1.linear.": (0, 1, 2, 6, 7, 8), "norm2.linear.": (3, 4, 5, 9, 10, 11)}

_COMPUTED = ("freqs_sin", "freqs_cos", "embed_tokens", "word_embeddings", "position_embedding")


def from_sat(names: Iterable[str], *, keep_positions: bool) -> dict[str, Recipe]:
    """Recipes of our tensors from SAT's.

    Args:
        names: of the checkpoint, with or without their prefix; a VAE or text encoder that was saved
            along is left out.
        keep_positions: keep the table of positions, which is learned in 5B-I2V and in no other.

    Raises:
        ValueError: a name has no counterpart.
    """
    every = list(names)
    prefix = PREFIX if any(name.startswith(PREFIX) for name in every) else ""
    recipes: dict[str, Recipe] = {}
    for name in every:
        bare = name.removeprefix(prefix)
        is_table = bare.endswith("pos_embedding") and not keep_positions
        if name.startswith(prefix) and not is_table and not any(x in bare for x in _COMPUTED):
            recipes |= _of_sat(name, bare)
    return recipes


def _of_sat(name: str, bare: str) -> dict[str, Recipe]:
    leaf = bare.rpartition(".")[2]
    number = re.search(r"\.(\d+)\.", bare)
    if number:
        index = number[1]
        head = f"transformer_blocks.{index}."
        if bare == SAT_FUSED.format(index) + leaf:
            return {head + part + leaf: share(name, (i,), 3) for i, part in enumerate(_QKV)}
        if bare == _MODULATION.format(index) + leaf:
            return {head + norm + leaf: share(name, parts, 12) for norm, parts in _NORMS.items()}
        for ours, theirs in _BLOCK:
            if bare == theirs.format(index) + leaf:
                return {head + ours + leaf: renamed(name)}
    for ours, theirs in _OUTSIDE:
        if bare.startswith(theirs):
            return {ours + bare.removeprefix(theirs): renamed(name)}
    raise ValueError(f"no counterpart for the weight {name!r}")


def to_sat(names: Iterable[str]) -> dict[str, Recipe]:
    """Recipes of SAT's tensors, prefix included, from ours.

    Raises:
        ValueError: a name has no counterpart, as those of TTT layers.
    """
    recipes: dict[str, Recipe] = {}
    for name in names:
        block = re.match(r"transformer_blocks\.(\d+)\.", name)
        tail = name[block.end() :] if block else name
        made = _to_sat_block(block[0], block[1], tail) if block else _to_sat_outside(name)
        if not made:
            raise ValueError(f"no counterpart for the weight {name!r}")
        recipes |= {PREFIX + theirs: recipe for theirs, recipe in made.items()}
    return recipes


def _to_sat_outside(name: str) -> dict[str, Recipe]:
    for ours, theirs in _OUTSIDE:
        if name.startswith(ours):
            return {theirs + name.removeprefix(ours): renamed(name)}
    return {}


def _to_sat_block(head: str, index: str, tail: str) -> dict[str, Recipe]:
    leaf = tail.rpartition(".")[2]
    if tail.removesuffix(leaf) in _QKV:
        sources = (head + part + leaf for part in _QKV)
        return {SAT_FUSED.format(index) + leaf: joined(*sources)}
    if tail.removesuffix(leaf) in _NORMS:
        return {_MODULATION.format(index) + leaf: _modulation(head, leaf)}
    for ours, theirs in _BLOCK:
        if tail.startswith(ours):
            return {theirs.format(index) + tail.removeprefix(ours): renamed(head + tail)}
    return {}


def _modulation(head: str, leaf: str) -> Recipe:
    """The twelve parts from the six of each norm: theirs are halves of three parts."""
    import torch

    order = [place for parts in _NORMS.values() for place in parts]  # ours, one behind the other
    sources = tuple(head + norm + leaf for norm in _NORMS)
    return Recipe(
        sources,
        lambda *norms: torch.cat([torch.cat(norms).chunk(12)[order.index(i)] for i in range(12)]),
    )
