"""What a process really takes at its peak, against the plan: within a tenth.

Each case runs in a process of its own, which is told to give freed memory back at once, and counts
from what the libraries take when they are warm.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import REPOSITORY

from ttvcli.artifacts import model_folder
from ttvcli.core.memory.footprint import Clip
from ttvcli.core.memory.plan import Limits, Stage, plan_image, plan_transformer, plan_vae
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.vae.causal3d import CausalVAE
from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.workflows.bench_model import BenchModelConfig, run
from ttvcli.workflows.memory_plan import network_bytes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
PLENTY = Limits(2**40, 2**40, gpu=False)
FREE_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def measured(kind: str, **arguments: Any) -> int:
    """Bytes that the work added to a process."""
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tests" / "memory_child.py", kind, json.dumps(arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **FREE_AT_ONCE},
    )
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["added"])


def check(stage: Stage, added: int) -> None:
    assert stage.peak == pytest.approx(added, rel=0.1), (
        f"planned {stage.peak / 2**20:.1f} MiB {stage}, measured {added / 2**20:.1f} MiB"
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A transformer of 350 MB in fp32, and those with TTT in bf16."""
    found = {}
    for ssm, dtype in (("none", "fp32"), ("ttt_mlp", "bf16"), ("ttt_large_chunk", "bf16")):
        transformer = {
            "num_attention_heads": 12,
            "num_layers": 8,
            "text_embed_dim": 512,
            "use_rotary_positional_embeddings": True,
            "ttt_chunk_tokens": 600,
        }
        small: dict[str, Any] = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4}
        out = tmp_path_factory.mktemp(ssm)
        shapes = {
            "transformer": transformer,
            "vae": small,
            "text_encoder": {"vocab_size": 256, "d_model": 512, "d_ff": 64, "num_heads": 2},
        }
        config: dict[str, Any] = {"ssm": ssm, "dtype": dtype, "text_layers": 1, "shapes": shapes}
        run(BenchModelConfig(out=out, **config))
        found[ssm] = out
    return found


@pytest.mark.parametrize(
    ("ssm", "size", "offload", "tile", "frames", "segments"),
    [
        ("none", 4, "none", 0, 5, 1),
        ("none", 4, "disk", 512, 5, 1),
        ("ttt_mlp", 2, "disk", 0, 3, 1),
        ("ttt_mlp", 2, "none", 512, 5, 2),
        ("ttt_large_chunk", 2, "disk", 0, 5, 2),
        ("ttt_large_chunk", 2, "none", 512, 5, 2),
    ],
    ids=["resident", "disk-tiles", "ttt-disk", "ttt-tiles", "chunk-disk", "chunk-tiles"],
)
def test_a_pass_takes_what_was_planned(
    folders: dict[str, Path],
    ssm: str,
    size: int,
    offload: str,
    tile: int,
    frames: int,
    segments: int,
) -> None:
    folder = folders[ssm]
    config = CogVideoXConfig.from_dict(model_folder.read_config(folder, "transformer"))
    clip = Clip(rows=2, segments=segments, text=32, frames=frames, frame=16**2)
    network = network_bytes(folder, "transformer", size)
    stage = plan_transformer(
        config, network, clip, size, PLENTY, offload, fill=False, tiles=(tile,)
    )
    arguments: dict[str, Any] = {
        "folder": str(folder),
        "size": size,
        "tile": tile,
        "resident": stage.resident,
    }
    sizes = {"rows": 2, "frames": frames, "segments": segments, "text": 32, "side": 16}
    check(stage, measured("transformer", clip=sizes, **arguments))


def vae_of(widths: tuple[int, ...]) -> tuple[dict[str, Any], int]:
    """A VAE's settings, one residual block for each width, and its number of weights."""
    values = model_folder.read_config(model_folder.BUILTIN / "tiny", "vae")
    values |= {"block_out_channels": widths}
    with torch.device("meta"):
        network = CausalVAE(VAEConfig.from_dict(values))
    return values, sum(parameter.numel() for parameter in network.parameters())


NARROW, WIDE = (32, 32, 64, 64), (64, 64, 128, 128)


@pytest.mark.parametrize("size", [4, 2], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("widths", "latents"),
    [(NARROW, (5, 16, 16)), (NARROW, (4, 20, 24)), (WIDE, (5, 8, 8)), (WIDE, (1, 16, 12))],
    ids=["chunk-of-nine", "blocks-of-rows", "wide", "one-frame"],
)
def test_decoding_takes_what_was_planned(
    widths: tuple[int, ...], latents: tuple[int, int, int], size: int
) -> None:
    values, weights = vae_of(widths)
    stage = plan_vae(VAEConfig.from_dict(values), weights * size, latents, size, gpu=False)
    frames, height, width = latents
    sizes = {"latent_frames": frames, "height": height, "width": width, "size": size}
    check(stage, measured("vae", config=values, **sizes))


@pytest.mark.parametrize("size", [4, 2], ids=["fp32", "bf16"])
def test_encoding_a_first_frame_takes_what_was_planned(size: int) -> None:
    values, weights = vae_of(WIDE)
    stage = plan_image(VAEConfig.from_dict(values), weights * size, (240, 320), size, gpu=False)
    check(stage, measured("vae_image", config=values, height=240, width=320, size=size))


def test_decoding_takes_no_more_for_a_minute() -> None:
    values, numbers = vae_of(NARROW)
    weights, added = 4 * numbers, []
    for frames in (13, 253):
        stage = plan_vae(VAEConfig.from_dict(values), weights, (frames, 8, 8), 4, gpu=False)
        added.append(
            measured("vae", config=values, latent_frames=frames, height=8, width=8, size=4)
        )
        check(stage, added[-1])
    assert added[1] < 1.05 * added[0] + 10 * 2**20


@pytest.mark.parametrize("offload", ["none", "disk"])
@pytest.mark.parametrize("size", ["128x128", "320x320"], ids=["transformer", "decoding"])
def test_a_whole_command_takes_what_its_dry_run_says(
    tmp_path: Path, size: str, offload: str
) -> None:
    shapes: dict[str, Any] = {
        "transformer": {"num_attention_heads": 12, "num_layers": 8, "text_embed_dim": 512},
        "vae": {"block_out_channels": (64, 64, 128, 128)},
        "text_encoder": {"vocab_size": 256, "d_model": 512, "d_ff": 64, "num_heads": 2},
    }
    run(BenchModelConfig(out=tmp_path / "model", dtype="fp32", text_layers=1, shapes=shapes))
    command = [sys.executable, "-m", "ttvcli", "sample", "a dog", "--model", tmp_path / "model"]
    command += ["--size", size, "--frames", "9", "--steps", "1", "--dtype", "fp32", "--quiet"]
    command += ["--device", "cpu", "--threads", "1", "--offload", offload, "-o"]
    environment = {**os.environ, **FREE_AT_ONCE}
    dry = [*command, tmp_path / "plan.mp4", "--dry-run", "--json"]
    shown = subprocess.run(dry, capture_output=True, text=True, env=environment, check=True)
    planned = json.loads(shown.stdout)["plan"]["bytes"]["peak"]
    child = subprocess.Popen([*command, tmp_path / "out.mp4"], env=environment)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    assert planned == pytest.approx(used.ru_maxrss * 1024, rel=0.1)
