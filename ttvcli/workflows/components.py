"""Build and load the networks of a model folder: transformer, VAE, text encoder, tokenizer."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ttvcli.artifacts import model_folder
from ttvcli.core.device import DTYPES, pick_device
from ttvcli.core.diffusion.schedules import NoiseSchedule
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.text.t5 import T5Config, T5Encoder
from ttvcli.core.models.text.tokenizer import SentencePieceTokenizer
from ttvcli.core.models.vae.causal3d import CausalVAE
from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.errors import ArtifactError, UsageError

# component -> (config class, network class)
NETWORKS: dict[str, tuple[Any, Any]] = {
    "transformer": (CogVideoXConfig, CogVideoXTransformer),
    "vae": (VAEConfig, CausalVAE),
    "text_encoder": (T5Config, T5Encoder),
}


def build(component: str, values: dict[str, Any], where: Path | None = None) -> nn.Module:
    """The network of a component with PyTorch's default weights.

    Raises:
        ArtifactError: there is no network with this configuration, which was read from `where`.
    """
    config_class, network_class = NETWORKS[component]
    try:
        return network_class(config_class.from_dict(values))
    except (ValueError, TypeError) as error:
        raise ArtifactError(
            f"the {component} cannot be built: {error}",
            where=str(where or "its configuration"),
            fix="check the configuration, or name another model with --model",
        ) from error


def build_from_scratch(component: str, values: dict[str, Any], seed: int) -> nn.Module:
    """The network of a component with its own initial weights, drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(component, values)
        generator = torch.Generator("cpu").manual_seed(seed)
        if component == "vae":
            network.init_weights()  # type: ignore[operator]
        else:
            network.init_weights(generator)  # type: ignore[operator]
    return network


def load(
    folder: Path, component: str, *, dtype: str = "fp32", device: torch.device | None = None
) -> nn.Module:
    """The trained network of a component, in evaluation mode.

    Raises:
        ArtifactError: weights are missing, superfluous or of another shape.
    """
    values = model_folder.read_config(folder, component)
    with torch.device("meta"):
        network = build(component, values, folder / component)
    weights = model_folder.open_weights(folder, component)
    wanted = network.state_dict()
    problems = [f"missing {name}" for name in wanted if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in wanted]
    if problems:
        raise ArtifactError(
            f"{len(problems)} weights do not fit the config: {', '.join(problems[:5])}",
            where=str(folder / component),
            fix="use the config.json the weights were saved with",
        )
    network = network.to_empty(device=device or "cpu")
    _fill(network, weights, folder / component, DTYPES[dtype])
    return network.eval()


def _fill(network: nn.Module, weights: Any, where: Path, dtype: torch.dtype) -> None:
    network.to(dtype)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            value = weights[name]
            if value.shape != tensor.shape:
                raise ArtifactError(
                    f"{name} is {list(value.shape)}, the config asks for {list(tensor.shape)}",
                    where=str(where),
                )
            tensor.copy_(value)


def scaling_factor(vae: dict[str, Any]) -> float:
    """What latents are multiplied by, from a VAE's configuration."""
    return float(vae.get("scaling_factor", VAEConfig.scaling_factor))


def load_schedule(folder: Path) -> NoiseSchedule:
    """The noise schedule of a model folder.

    Raises:
        ArtifactError: it is of a kind that is not known here.
    """
    values = model_folder.read_config(folder, "scheduler")
    try:
        return NoiseSchedule.from_config(values)
    except (ValueError, TypeError) as error:
        raise ArtifactError(str(error), where=str(folder / "scheduler")) from error


def load_tokenizer(folder: Path) -> SentencePieceTokenizer:
    """The tokenizer of a model folder.

    Raises:
        ArtifactError: `tokenizer/spiece.model` is missing or damaged.
    """
    path = folder / "tokenizer" / "spiece.model"
    if not path.is_file():
        raise ArtifactError("the model has no tokenizer", where=str(path))
    try:
        return SentencePieceTokenizer(path)
    except ValueError as error:
        raise ArtifactError("the tokenizer cannot be read", where=str(path)) from error


def device_named(name: str) -> torch.device:
    """The device a setting names; UsageError when it does not exist here."""
    try:
        return pick_device(name)
    except ValueError as error:
        raise UsageError(str(error), fix="--device auto takes what is there") from error
