"""Write a model folder of full size with random weights: memory and speed, without a download.

Weights are drawn and written one tensor at a time, so that 20 GB of them need little memory.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.schema import plain
from ttvcli.artifacts.tensor_stream import write_stream
from ttvcli.core.device import DTYPES
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.text.t5 import T5Config
from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.errors import UsageError
from ttvcli.workflows import components
from ttvcli.workflows.free_space import check_free_space
from ttvcli.workflows.step import SILENT, Plan, Progress, StepResult

PIECE = 2**24  # values drawn at once
VARIANTS: dict[str, dict[str, Any]] = {
    "2b": {"num_attention_heads": 30, "num_layers": 30},
    "5b": {
        "num_attention_heads": 48,
        "num_layers": 42,
        "use_rotary_positional_embeddings": True,
    },
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
SNR_SHIFT = {"2b": 3.0, "5b": 1.0}


@dataclass(frozen=True, kw_only=True)
class BenchModelConfig:
    """Settings of `ttv bench model`: which model, and how much of it."""

    out: Path = field(metadata={"help": "folder to write"})
    variant: Literal["2b", "5b"] = field(default="5b", metadata={"help": "CogVideoX-2B or -5B"})
    ssm: str = field(
        default="none", metadata={"help": "none, ttt_linear, ttt_mlp or ttt_large_chunk"}
    )
    dtype: Literal["fp32", "bf16", "fp16"] = field(
        default="bf16", metadata={"help": "of the weights"}
    )
    text_layers: int = field(
        default=24, metadata={"help": "layers of the T5 (24 are 9.5 GB in bf16)"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the weights"})
    shapes: dict[str, dict[str, Any]] = field(
        default_factory=dict,
        metadata={"help": "changes to the configurations of transformer, vae and text_encoder"},
    )

    def __post_init__(self) -> None:
        configurations(self)  # a ValueError for what no network could be built from


def plan(config: BenchModelConfig) -> Plan:
    """Count the weights of each network and the disk that they take.

    Raises:
        UsageError: the folder holds another model.
    """
    missing = _missing(config)
    counts = {
        name: sum(tensor.numel() for tensor in network.state_dict().values())
        for name, network in ((name, _on_meta(name, missing[name])) for name in missing)
    }
    items = [("model", str(config.out)), ("dtype", config.dtype)]
    return Plan(
        "bench model",
        [*items, *((f"{name} weights", count) for name, count in counts.items())],
        {"disk": sum(counts.values()) * DTYPES[config.dtype].itemsize},
    )


def run(config: BenchModelConfig, progress: Progress = SILENT) -> StepResult:
    """Write the folder; a component that is there already is kept.

    Raises:
        UsageError: the folder holds another model.
        WouldNotFit: the disk is too full.
    """
    missing = _missing(config)
    check_free_space(config.out, plan(config).bytes["disk"], "fewer text_layers, or another --out")
    for component, values in missing.items():
        _write(config, component, values, progress)
    scheduler = {**SCHEDULER, "snr_shift_scale": SNR_SHIFT[config.variant]}
    model_folder.write_config(config.out, "scheduler", scheduler)
    spiece = model_folder.BUILTIN / "tiny" / "tokenizer" / model_folder.TOKENIZER_FILE
    model_folder.write_file(config.out, "tokenizer/spiece.model", spiece.read_bytes())
    return StepResult(paths=[config.out])


def _missing(config: BenchModelConfig) -> dict[str, dict[str, Any]]:
    """The configurations of the networks that are not in the folder yet."""
    if config.out.exists() and not config.out.is_dir():
        raise UsageError("the output is a file, not a folder", where=str(config.out))
    wanted = configurations(config)
    there = [name for name in wanted if model_folder.has_component(config.out, name)]
    for name in there:
        found = model_folder.read_config(config.out, name)
        asked = plain(wanted[name])
        if any(found.get(key) != asked[key] for key in asked if not key.startswith("_")):
            raise UsageError(
                f"the folder holds another {name} than the one asked for",
                where=str(config.out),
                fix="choose another --out, or remove the folder",
            )
    return {name: values for name, values in wanted.items() if name not in there}


def configurations(config: BenchModelConfig) -> dict[str, dict[str, Any]]:
    """The configuration of each network."""
    values = {**VARIANTS[config.variant], "ssm": config.ssm, "norm_eps": 1e-5}
    if config.ssm != "none":
        values |= {"norm_eps": 1e-6, "ttt_base_lr": 1.0 if config.ssm == "ttt_linear" else 0.1}
    change = config.shapes
    transformer = CogVideoXConfig(**{**values, **change.get("transformer", {})})
    vae = VAEConfig(**change.get("vae", {}))
    text = T5Config(**{"num_layers": config.text_layers, **change.get("text_encoder", {})})
    return {
        "transformer": transformer.to_dict(),
        "vae": vae.to_dict(),
        "text_encoder": text.to_dict(),
    }


def _write(
    config: BenchModelConfig, component: str, values: dict[str, Any], progress: Progress
) -> None:
    network = _on_meta(component, values)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    dtype = DTYPES[config.dtype]

    def make(name: str, shape: tuple[int, ...]) -> Tensor:
        progress.advance()
        return draw(name, shape, dtype, config.seed)

    stem = model_folder.WEIGHT_STEMS.get(component, model_folder.USUAL_STEM)
    progress.start(f"writing {component}", total=len(shapes), unit="tensors")
    write_stream(config.out / component, stem, shapes, str(dtype).removeprefix("torch."), make)
    progress.finish()
    model_folder.write_config(config.out, component, values)  # last: what has it is whole


def _on_meta(component: str, values: dict[str, Any]) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        network: nn.Module = components.build(component, values)
    return network


def draw(name: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """A weight that keeps activations finite: matrices uniform, norms the identity, biases 0."""
    if "_gate_" in name:
        return torch.full(shape, 0.1, dtype=dtype)
    if name.endswith(("bias", "b1", "b2")) and "relative" not in name:
        return torch.full(shape, float(name.endswith("conv_y.conv.bias")), dtype=dtype)
    if len(shape) == 1 or name.endswith("ttt_norm_weight"):
        return torch.ones(shape, dtype=dtype)
    generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
    tensor = torch.empty(shape, dtype=dtype)
    width = 0.5 * (3 / tensor[0].numel()) ** 0.5
    for piece in tensor.view(-1).split(PIECE):
        piece.copy_(torch.empty(len(piece)).uniform_(-width, width, generator=generator))
    return tensor
