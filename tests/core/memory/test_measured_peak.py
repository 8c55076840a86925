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
from helpers import REPOSITORY

from ttvcli.artifacts import model_folder
from ttvcli.core.memory.footprint import Clip
from ttvcli.core.memory.plan import Limits, Stage, plan_transformer, plan_vae
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
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


def test_decoding_takes_what_was_planned_and_no_more_for_a_minute() -> None:
    values = model_folder.read_config(model_folder.BUILTIN / "tiny", "vae")
    weights = network_bytes(model_folder.BUILTIN / "tiny", "vae", 4).total
    added = []
    for frames in (13, 253):
        stage = plan_vae(VAEConfig.from_dict(values), weights, (frames, 8, 8), 4, gpu=False)
        added.append(
            measured("vae", config=values, latent_frames=frames, height=8, width=8, size=4)
        )
        check(stage, added[-1])
    assert added[1] < 1.05 * added[0] + 10 * 2**20
