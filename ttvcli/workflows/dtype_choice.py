"""Which arithmetic a model runs in: what was asked for, or what its weights are stored as.

CogVideoX-5B and all of 1.5 were trained in bf16, whose range is that of fp32: in fp16 they overflow
and make black videos. CogVideoX-2B was trained in fp16, which few CPUs compute with.
"""

from collections import Counter
from pathlib import Path
from typing import Literal, cast

from ttvcli.artifacts import model_folder
from ttvcli.errors import UsageError

Dtype = Literal["fp32", "bf16", "fp16"]
STORED = {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}


def stored_dtype(folder: Path) -> str:
    """What most bytes of the transformer are stored as, read from the headers alone."""
    counts: Counter[str] = Counter()
    for info in model_folder.open_weights(folder, "transformer").infos.values():
        counts[STORED.get(info.dtype, "fp32")] += info.end - info.start
    return max(counts, key=lambda name: counts[name], default="fp32")


def choose_dtype(wanted: str, folder: Path, device: str) -> Dtype:
    """The arithmetic for a model; "auto" takes that of its weights, fp32 for the tiny world.

    Raises:
        UsageError: fp16 for weights that are stored as bf16.
    """
    if wanted in ("fp32", "bf16"):
        return cast(Dtype, wanted)
    if model_folder.read_about(folder).get("world") == "tiny":  # small enough for any arithmetic
        return "fp32" if wanted == "auto" else "fp16"
    stored = stored_dtype(folder)
    if wanted == "fp16" and stored == "bf16":
        raise UsageError(
            "--dtype fp16: this model is stored as bf16 and overflows in fp16, which makes black "
            "videos",
            where=str(folder / "transformer"),
            fix="--dtype bf16, or --dtype fp32 with twice the memory",
        )
    if wanted == "auto" and stored == "fp16" and _is_cpu(device):
        return "bf16"
    return cast(Dtype, stored if wanted == "auto" else wanted)


def _is_cpu(device: str) -> bool:
    if device == "cpu":  # known without torch
        return True
    from ttvcli.workflows.components import device_named

    return device_named(device).type == "cpu"
