"""Names of the public TTT-Video checkpoint and ours, both ways.

Ours are those of diffusers plus `transformer_blocks.{i}.ttt.*` and the four gate vectors; the
public ones are those of https://github.com/test-time-training/ttt-video-dit, relative to the DiT.
All tensors are equal but two: the public learning-rate weight is `[H, 1, D]` and its bias `[H, 1]`,
ours `[H, D]` and `[H]`. The six parts of the adaLN vectors come in the same order in both: shift,
scale, gate of video, then of text.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from ttvcli.core.models.cogvideox.layouts import PUBLIC_PREFIX
from ttvcli.core.models.rewriting import Recipe, Rewritten, renamed

PUBLIC_NORM_EPS = 1e-6
# kind -> (mini-batch, base learning rate) of the public training settings
PUBLIC_TTT = {"ttt_mlp": (64, 0.1), "ttt_linear": (16, 1.0)}

# (ours, public); a block's names are relative to `transformer_blocks.{i}.` and `layers.{i}.`.
_OUTSIDE = (
    ("patch_embed.proj.", "patch_embedding.vid_proj."),
    ("patch_embed.text_proj.", "patch_embedding.text_proj."),
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("norm_final.", "transformer_norm."),
    ("norm_out.linear.", "final_layer.adaLN_modulation.1."),
    ("norm_out.norm.", "final_layer.norm."),
    ("proj_out.", "final_layer.linear."),
)
_BLOCK = (
    ("norm1.linear.", "pre_seq_adaLN_modulation.1."),
    ("norm1.norm.", "pre_seq_layernorm."),
    ("norm2.linear.", "pre_mlp_adaLN_modulation.1."),
    ("norm2.norm.", "pre_mlp_layernorm."),
    ("attn1.norm_q.", "seq_modeling_block.q_norm."),
    ("attn1.norm_k.", "seq_modeling_block.k_norm."),
    ("attn1.to_q.", "seq_modeling_block.q."),
    ("attn1.to_k.", "seq_modeling_block.k."),
    ("attn1.to_v.", "seq_modeling_block.v."),
    ("attn1.to_out.0.", "seq_modeling_block.o."),
    ("ff.net.0.proj.", "mlp.layer1."),
    ("ff.net.2.", "mlp.layer2."),
    ("forward_gate_video", "seq_modeling_block.forward_ssm_gating_video.gating_alpha"),
    ("forward_gate_text", "seq_modeling_block.forward_ssm_gating_text.gating_alpha"),
    ("backward_gate_video", "seq_modeling_block.backward_ssm_gating_video.gating_alpha"),
    ("backward_gate_text", "seq_modeling_block.backward_ssm_gating_text.gating_alpha"),
    ("ttt.lr_", "seq_modeling_block.ssm.ttt.learnable_ttt_lr_"),
    ("ttt.", "seq_modeling_block.ssm.ttt."),
)


def public_name(name: str) -> str:
    """Our name to the public one.

    Raises:
        ValueError: the public model has no such part.
    """
    return _translate(name, r"transformer_blocks\.(\d+)\.", "layers.{}.", ours=True)


def our_name(name: str) -> str:
    """The public name to ours.

    Raises:
        ValueError: the name is not one of a TTT-Video DiT.
    """
    return _translate(name, r"layers\.(\d+)\.", "transformer_blocks.{}.", ours=False)


def to_public(state: Mapping[str, Tensor], prefix: str = "") -> Rewritten:
    """Our state dict as the public one, made tensor by tensor."""
    recipes = {
        prefix + public_name(name): Recipe((name,), lambda tensor: tensor.unsqueeze(1))
        if ".ttt.lr_" in name
        else renamed(name)
        for name in state
    }
    return Rewritten(state, recipes)


def from_public(state: Mapping[str, Tensor]) -> Rewritten:
    """The public state dict, with or without the prefix `dit.`, as ours, tensor by tensor."""
    recipes = {
        our_name(name.removeprefix(PUBLIC_PREFIX)): Recipe((name,), lambda t: t.squeeze(1))
        if ".learnable_ttt_lr_" in name
        else renamed(name)
        for name in state
    }
    return Rewritten(state, recipes)


def _translate(name: str, block_pattern: str, block_format: str, *, ours: bool) -> str:
    block = re.match(block_pattern, name)
    table = _BLOCK if block else _OUTSIDE
    head = block_format.format(block[1]) if block else ""
    tail = name[block.end() :] if block else name
    for our_part, public_part in table:
        source, target = (our_part, public_part) if ours else (public_part, our_part)
        if tail.startswith(source):
            return head + target + tail.removeprefix(source)
    raise ValueError(f"no counterpart for the weight {name!r}")
