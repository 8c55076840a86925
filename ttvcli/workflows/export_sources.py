"""Open a model in any layout: every network as our configuration and our names, lazily."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.distributed_checkpoint import SavedTensors, is_distributed_checkpoint
from ttvcli.artifacts.torch_file import read_torch, tensors_in
from ttvcli.core.models.cogvideox import weights as public
from ttvcli.core.models.cogvideox.layouts import PUBLIC_PREFIX, is_public, is_sat, is_sat_vae
from ttvcli.core.models.cogvideox.sat import SAT_NORM_EPS, from_sat
from ttvcli.core.models.rewriting import Recipe, Rewritten, renamed
from ttvcli.core.models.vae.sat import from_sat_vae
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows import components
from ttvcli.workflows.export import ExportConfig

NETWORKS = ("transformer", "vae", "text_encoder")
FILES = ("tokenizer", "scheduler")
# How the public TTT-Video samples; its guidance is CogVideoX's own.
PUBLIC_SAMPLE = {
    "sampler": "dpm++2m-sde",
    "steps": 50,
    "guidance": 6.0,
    "guidance_mode": "legacy",
}


@dataclass(frozen=True)
class Network:
    """One network: content of its `config.json`, and a lazy state dict in our names."""

    config: dict[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Model:
    """A whole model, whatever it was read from.

    Attributes:
        where: for messages.
        networks: those that are there.
        files: components that are copied as they are, and the model folder they come from.
        about: what `ttv.json` says.
        index: content of `model_index.json`, if the source has one.
        identity: hashes of everything the model is made of.
    """

    where: str
    networks: dict[str, Network]
    files: dict[str, Path]
    about: dict[str, Any]
    index: bytes | None
    identity: dict[str, Any]

    def values(self, component: str) -> dict[str, Any]:
        """The configuration of a network; {} if the model lacks it."""
        return self.networks[component].config if component in self.networks else {}


def open_model(config: ExportConfig, kind: str) -> Model:
    """Open the source of an export and check all shapes against the configurations.

    Raises:
        UsageError: the source lacks parts and there is no `--base`.
        ArtifactError: names or shapes do not fit.
    """
    if kind == "model":
        model = _from_folder(model_folder.resolve_model(config.source))
    elif kind == "SAT checkpoint":
        model = _from_sat(Path(config.source), _base(config, kind))
    else:
        model = _from_public(config, Path(config.source), _base(config, kind))
    if "transformer" not in model.networks:
        raise ArtifactError("the model has no transformer", where=model.where)
    for component, network in model.networks.items():
        _check(component, network, model.where)
    return model


def _base(config: ExportConfig, kind: str) -> Model:
    if not config.base:
        raise UsageError(
            f"a {kind} holds no text encoder, tokenizer and scheduler: --base has to name a "
            "model folder that does",
            where=config.source,
            fix="--base path/to/CogVideoX-5b",
        )
    return _from_folder(model_folder.resolve_model(config.base))


def _check(component: str, network: Network, where: str) -> None:
    import torch

    with torch.device("meta"):
        built = components.build(component, network.config, Path(where))
    expected = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    tensors: Any = network.tensors
    found = {name: tuple(tensors.like(name).shape) for name in tensors}
    model_folder.check_shapes(found, expected, where=f"{where} ({component})")


def _from_folder(folder: Path) -> Model:
    networks, hashes = {}, {}
    for component in NETWORKS:
        if model_folder.has_component(folder, component):
            text = model_folder.config_path(folder, component).read_text(encoding="utf-8")
            model_folder.read_config(folder, component)  # says what is wrong with it
            tensors = model_folder.open_weights(folder, component)
            networks[component] = Network(json.loads(text), tensors)
            hashes[component] = model_folder.component_hash(folder, component)
    files = {name: folder for name in FILES if model_folder.has_component(folder, name)}
    hashes |= {name: model_folder.component_hash(folder, name) for name in files}
    about = model_folder.read_about(folder)
    about.pop("hashes", None)
    index = folder / "model_index.json"
    return Model(
        where=str(folder),
        networks=networks,
        files=files,
        about=about,
        index=index.read_bytes() if index.is_file() else None,
        identity={"source": hashes},
    )


def _from_public(config: ExportConfig, path: Path, base: Model) -> Model:
    """A TTT-Video checkpoint: a DCP folder, or a `.pt` file of the same names."""
    if is_distributed_checkpoint(path):
        tensors: Any = SavedTensors(path)
        if not any(name.startswith(PUBLIC_PREFIX) for name in tensors):
            tensors = SavedTensors(path, "model.")  # saved by training, with its optimizer
        files = sorted(file for file in path.iterdir() if file.is_file())
    else:
        tensors = _Held(tensors_in(read_torch(path), path))
        files = [path]
    if not is_public(tensors):
        raise ArtifactError(
            "not a TTT-Video checkpoint: it has no patch_embedding.vid_proj",
            where=str(path),
            fix="give the folder step-N or the one of converted weights",
        )
    try:
        ours = public.from_public(tensors)
    except ValueError as error:
        raise ArtifactError(str(error), where=str(path)) from error
    values = base.values("transformer") | _public_values(config, ours)
    vae = base.networks.get("vae")
    networks = {**base.networks, "transformer": Network(_named(values), ours)}
    if vae is not None:
        networks["vae"] = Network(
            {**vae.config, "scaling_factor": config.latent_scale}, vae.tensors
        )
    about = {**base.about, "null_text": "empty", "fps": 16, "sample": PUBLIC_SAMPLE}
    identity = {
        "base": base.identity["source"],
        "checkpoint": model_folder.hash_of_files(files),
        "ttt_mini_batch": config.ttt_mini_batch,
        "latent_scale": config.latent_scale,
    }
    return Model(str(path), networks, base.files, about, base.index, identity)


def _public_values(config: ExportConfig, ours: Rewritten) -> dict[str, Any]:
    """What the tensors of a TTT-Video checkpoint say about its transformer."""
    layers = {
        found[1] for name in ours if (found := re.match(r"transformer_blocks\.(\d+)\.", name))
    }
    norm = "transformer_blocks.0.ttt.ttt_norm_weight"
    if norm not in ours:
        return {"ssm": "none", "norm_eps": public.PUBLIC_NORM_EPS, "num_layers": len(layers)}
    heads, head_width = ours.like(norm).shape
    kind = "ttt_mlp" if "transformer_blocks.0.ttt.W2" in ours else "ttt_linear"
    mini_batch, base_lr = public.PUBLIC_TTT[kind]
    return {
        "num_layers": len(layers),
        "num_attention_heads": heads,
        "attention_head_dim": head_width,
        "norm_eps": public.PUBLIC_NORM_EPS,
        "ssm": kind,
        "ttt_mini_batch": config.ttt_mini_batch or mini_batch,
        "ttt_base_lr": base_lr,
        # What the public GPU kernels compute, with which such checkpoints were trained.
        "ttt_lr_mode": "last-row",
        "ttt_norm_eps": 1e-6,
    }


def _named(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration in full, under the class name that goes with it."""
    from ttvcli.core.models.cogvideox.config import CogVideoXConfig

    return CogVideoXConfig.from_dict(values).to_dict()


def _from_sat(path: Path, base: Model) -> Model:
    networks, files = dict(base.networks), sat_files(path)
    for component, file in files.items():
        tensors = _Held(tensors_in(read_torch(file), file))
        values = base.values(component)
        try:
            recipes, values = _sat_recipes(component, tensors, values)
            networks[component] = Network(values, Rewritten(tensors, recipes))
        except ValueError as error:
            raise ArtifactError(str(error), where=str(file)) from error
    # Its authors train with zeros for "no text".
    about = {**base.about, "null_text": "zero"}
    identity = {
        "base": base.identity["source"],
        "checkpoint": model_folder.hash_of_files(sorted(files.values())),
    }
    return Model(str(path), networks, base.files, about, base.index, identity)


def _sat_recipes(
    component: str, names: Mapping[str, Tensor], values: dict[str, Any]
) -> tuple[dict[str, Recipe], dict[str, Any]]:
    if component == "vae":
        return from_sat_vae(names), values
    keeps = bool(values.get("use_learned_positional_embeddings"))
    return from_sat(names, keep_positions=keeps), {**values, "norm_eps": SAT_NORM_EPS}


def sat_files(path: Path) -> dict[str, Path]:
    """The files of a SAT release: a folder of it, or one of its `.pt` files.

    Raises:
        ArtifactError: neither transformer nor VAE, several of them, or split over machines.
    """
    if path.is_file():
        names = tensors_in(read_torch(path), path)
        if not is_sat(names) and not is_sat_vae(names):
            raise ArtifactError(
                "neither a transformer nor a VAE of SAT", where=str(path), fix="ttv info PATH"
            )
        return {"transformer" if is_sat(names) else "vae": path}
    if any(path.rglob("mp_rank_01_model_states.pt")):
        raise ArtifactError(
            "the checkpoint is split over several machines (mp_rank_01)",
            where=str(path),
            fix="join its parts with the program that wrote it",
        )
    found = {
        "transformer": sorted(path.rglob("mp_rank_00_model_states.pt")),
        "vae": sorted(path.rglob("3d-vae.pt")),
    }
    for files in found.values():
        if len(files) > 1:
            raise ArtifactError(
                f"{len(files)} checkpoints: {files[0]}, {files[1]}",
                where=str(path),
                fix="give one of the files",
            )
    return {component: files[0] for component, files in found.items() if files}


class _Held(Rewritten):
    """Tensors that are there already, with the `like` of a lazy state dict."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors, {name: renamed(name) for name in tensors})
