"""Build and load the networks of a model folder: transformer, VAE, text encoder, tokenizer."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.tensor_file import Weights
from ttvcli.core.device import DTYPES, check_ttt_backend, pick_device
from ttvcli.core.diffusion.schedules import NoiseSchedule
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.text.t5 import T5Config, T5Encoder
from ttvcli.core.models.text.tokenizer import SentencePieceTokenizer
from ttvcli.core.models.vae.causal3d import CausalVAE
from ttvcli.core.models.vae.config import UNNAMED_SCALING_FACTOR, VAEConfig
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

    Names and shapes are compared from the headers before anything is allocated. Tensors then come
    one at a time: on the CPU those stored in `dtype` stay mapped from their file, and others are
    read and converted, so that there is never a second copy of the model.

    Raises:
        ArtifactError: weights are missing, superfluous or of another shape.
    """
    network, weights = without_data(folder, component)
    place = device or torch.device("cpu")
    state = {
        name: _tensor(weights, name, _stored_as(component, name, DTYPES[dtype]), place)
        for name in network.state_dict()
    }
    network.load_state_dict(state, assign=True)
    return network.eval()


def check_model(folder: Path) -> None:
    """Compare the headers of all weights with the configurations; ArtifactError as in `load`."""
    for component in NETWORKS:
        without_data(folder, component)


def without_data(folder: Path, component: str) -> tuple[nn.Module, Weights]:
    """The network of a component on the device "meta", and weights that fit it.

    Raises:
        ArtifactError: weights are missing, superfluous or of another shape.
    """
    values = model_folder.read_config(folder, component)
    with torch.device("meta"):
        network = build(component, values, folder / component)
    weights = model_folder.open_weights(folder, component)
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    model_folder.check_weights(weights, wanted, where=folder / component)
    return network, weights


def _tensor(weights: Weights, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    stored = weights.like(name)
    if stored.dtype == dtype and device.type == "cpu":
        return weights[name]
    tensor = torch.empty(stored.shape, dtype=dtype, device=device)
    weights.read_into(name, tensor)
    return tensor


def _stored_as(component: str, name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a tensor in a network of `dtype`; see `T5Encoder.cast` for the exception."""
    is_exception = component == "text_encoder" and name.endswith("DenseReluDense.wo.weight")
    return torch.float32 if is_exception and dtype == torch.float16 else dtype


def scaling_factor(vae: dict[str, Any]) -> float:
    """What latents are multiplied by, from a VAE's configuration."""
    return float(vae.get("scaling_factor", UNNAMED_SCALING_FACTOR))


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


def existing_device(name: str) -> torch.device:
    """The device a setting names, for networks without TTT; UsageError if it does not exist."""
    try:
        return pick_device(name)
    except ValueError as error:
        raise UsageError(str(error), fix="--device auto takes what is there") from error


def device_named(name: str) -> torch.device:
    """The device a setting names.

    Raises:
        UsageError: it does not exist here, or cannot run the TTT backend of the environment.
    """
    device = existing_device(name)
    try:
        check_ttt_backend(device)
    except ValueError as error:
        raise UsageError(str(error), fix="unset it: auto takes what can run") from error
    return device
