"""Names of the video VAE in its authors' SAT checkpoint (`3d-vae.pt`), and ours, both ways.

All tensors are equal. Stages of the decoder are numbered from the output there, from the latents
here; the losses of training are stored too.
"""

import re
from collections.abc import Iterable

from ttvcli.core.models.rewriting import Recipe, renamed

_LOSS = "loss."


def from_sat_vae(names: Iterable[str]) -> dict[str, Recipe]:
    """Recipes of our tensors from SAT's."""
    every = [name for name in names if not name.startswith(_LOSS)]
    last = max(
        (int(found[1]) for name in every if (found := re.match(r"decoder\.up\.(\d+)\.", name))),
        default=0,
    )
    return {_ours(name, last): renamed(name) for name in every}


def _ours(name: str, last: int) -> str:
    name = re.sub(r"\.mid\.block_(\d)\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}.", name)
    name = re.sub(
        r"^decoder\.up\.(\d+)\.", lambda m: f"decoder.up_blocks.{last - int(m[1])}.", name
    )
    name = re.sub(r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1.", name)
    name = re.sub(r"\.block\.(\d+)\.", r".resnets.\1.", name)
    name = name.replace(".downsample.", ".downsamplers.0.").replace(".upsample.", ".upsamplers.0.")
    return name.replace(".nin_shortcut.", ".conv_shortcut.")


def to_sat_vae(names: Iterable[str]) -> dict[str, Recipe]:
    """Recipes of SAT's tensors from ours."""
    every = list(names)
    last = max(
        (int(found[1]) for name in every if (found := re.search(r"\.up_blocks\.(\d+)\.", name))),
        default=0,
    )
    return {_theirs(name, last): renamed(name) for name in every}


def _theirs(name: str, last: int) -> str:
    name = re.sub(r"\.mid_block\.resnets\.(\d)\.", lambda m: f".mid.block_{int(m[1]) + 1}.", name)
    name = re.sub(r"\.up_blocks\.(\d+)\.", lambda m: f".up.{last - int(m[1])}.", name)
    name = re.sub(r"\.down_blocks\.(\d+)\.", r".down.\1.", name)
    name = re.sub(r"\.resnets\.(\d+)\.", r".block.\1.", name)
    name = name.replace(".downsamplers.0.", ".downsample.").replace(".upsamplers.0.", ".upsample.")
    return name.replace(".conv_shortcut.", ".nin_shortcut.")
