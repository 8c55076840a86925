"""What one piece of work adds to a process at its peak; run as a script, prints JSON.

    python memory_child.py transformer '{"ssm": "none", ...}'
    python memory_child.py vae '{"latent_frames": 13, ...}'
    python memory_child.py ttt_layer '{"kind": "ttt_mlp", ...}'

The baseline is taken after the libraries are warm, the weights are part of the measurement.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.tensor_file import Weights
from ttvcli.artifacts.weight_files import weight_files
from ttvcli.core.memory.streaming import place
from ttvcli.core.memory.tiling import forward_in_tiles
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.ttt.layer import TTTLayer
from ttvcli.core.models.ttt.rotary import table
from ttvcli.core.models.vae.causal3d import CausalVAE
from ttvcli.core.models.vae.config import VAEConfig

DTYPES = {2: torch.bfloat16, 4: torch.float32}


def memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def forget_peak() -> int:
    """Start a new high-water mark; returns what is in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


@torch.inference_mode()
def warm(dtype: torch.dtype) -> None:
    """Load code and start what libraries start once, with networks of next to no size."""
    if importlib.util.find_spec("triton"):  # which torch imports on its way, where it is installed
        importlib.import_module("triton")
    shared: dict[str, Any] = {"num_layers": 1, "time_embed_dim": 8, "text_embed_dim": 8}
    for ssm in ("none", "ttt_linear", "ttt_mlp", "ttt_large_chunk"):
        config = CogVideoXConfig(
            num_attention_heads=2, ssm=ssm, use_rotary_positional_embeddings=True, **shared
        )
        network = CogVideoXTransformer(config).to(dtype).eval()
        batch = torch.randn(1, 2, 16, 16, 16).to(dtype), torch.randn(1, 2, 4, 8).to(dtype)
        network(*batch, torch.tensor([1]))
        forward_in_tiles(network, *batch, torch.tensor([1]), tile=64)
    small = VAEConfig(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1)
    CausalVAE(small).to(dtype).eval().decode(torch.randn(1, 16, 3, 4, 4).to(dtype))


@torch.inference_mode()
def transformer(folder: str, size: int, tile: int, resident: int, clip: dict[str, int]) -> None:
    path = Path(folder)
    config = CogVideoXConfig.from_dict(model_folder.read_config(path, "transformer"))
    with torch.device("meta"):
        network = CogVideoXTransformer(config).to(DTYPES[size]).eval()
    weights = Weights(weight_files(path / "transformer"))
    ring = place(
        network,
        network.transformer_blocks,
        "transformer_blocks.",
        weights.read_into,
        device=torch.device("cpu"),
        resident=resident,
        from_disk=True,
    )
    side = clip["side"] * config.patch_size
    rows = clip["rows"]
    latents = torch.randn(rows, clip["frames"], config.in_channels, side, side)
    text = torch.randn(rows, clip["segments"], clip["text"], config.text_embed_dim)
    batch = latents.to(DTYPES[size]), text.to(DTYPES[size]), torch.full((rows,), 500)
    if tile:
        forward_in_tiles(network, *batch, tile=tile)
    else:
        network(*batch)
    if ring:
        ring.close()


@torch.inference_mode()
def vae(config: dict[str, Any], latent_frames: int, height: int, width: int, size: int) -> None:
    network = CausalVAE(VAEConfig.from_dict(config)).to(DTYPES[size]).eval()
    channels = network.config.latent_channels
    latents = torch.randn(1, channels, latent_frames, height, width).to(DTYPES[size])
    for _ in network.decode_chunks(latents):
        pass


def ttt_layer(kind: str, heads: int, tokens: int, group: int, size: int) -> None:
    """A training step: forward and backward, to the tokens and all weights."""
    layer = TTTLayer(64 * heads, heads, kind).to(DTYPES[size])
    layer.checkpoint_group = group
    x = torch.randn(1, tokens, 64 * heads, dtype=DTYPES[size], requires_grad=True)
    y = layer(x, table(torch.rand(tokens, 32)))
    y.backward(torch.randn_like(y))


if __name__ == "__main__":
    torch.set_num_threads(1)
    arguments = json.loads(sys.argv[2])
    warm(DTYPES[arguments["size"]])
    before = forget_peak()
    globals()[sys.argv[1]](**arguments)
    sys.stdout.write(json.dumps({"before": before, "added": memory("VmHWM") - before}))
