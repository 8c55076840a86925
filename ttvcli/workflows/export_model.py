"""Models from one layout to another: diffusers folders, SAT and TTT-Video checkpoints.

Tensors are read, renamed and written one at a time, except into a `.pt` file, which PyTorch writes
from memory.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.atomic import write_bytes, write_text
from ttvcli.artifacts.distributed_checkpoint import write_distributed
from ttvcli.artifacts.torch_file import write_torch
from ttvcli.core.device import DTYPES
from ttvcli.core.models.cogvideox.layouts import PUBLIC_PREFIX
from ttvcli.core.models.cogvideox.published import family
from ttvcli.core.models.cogvideox.sat import to_sat
from ttvcli.core.models.cogvideox.weights import to_public
from ttvcli.core.models.rewriting import Rewritten, in_dtype
from ttvcli.core.models.vae.sat import to_sat_vae
from ttvcli.errors import UsageError
from ttvcli.workflows.export import ExportConfig, Job
from ttvcli.workflows.export_sources import Model, open_model
from ttvcli.workflows.step import Progress

if TYPE_CHECKING:
    import torch

SAT_TRANSFORMER = "transformer/1/mp_rank_00_model_states.pt"
SAT_VAE = "vae/3d-vae.pt"


def model_job(config: ExportConfig, kind: str, form: str) -> Job:
    """Open a model of any kind and plan how it is written.

    Raises:
        UsageError: the model has no such form.
        ArtifactError: its weights do not fit its configuration.
    """
    model = open_model(config, kind)
    _check_form(model, form)
    networks = {name: _in_dtype(config, part.tensors) for name, part in model.networks.items()}
    if form != "diffusers":
        networks.pop("text_encoder", None)
    if form == "ttt-video":
        networks.pop("vae", None)
    likes = {name: [like(tensors, key) for key in tensors] for name, tensors in networks.items()}
    sizes = {
        name: sum(tensor.numel() * tensor.element_size() for tensor in parts)
        for name, parts in likes.items()
    }
    writers = {"diffusers": _write_diffusers, "sat": _write_sat, "ttt-video": _write_public}

    def write(folder: Path, progress: Progress) -> None:
        progress.start("exporting", total=sum(map(len, networks.values())), unit="tensors")
        counted = {name: Counted(tensors, progress) for name, tensors in networks.items()}
        writers[form](model, counted, folder)
        progress.finish()

    return Job(
        items=[
            ("family", family(model.values("transformer"), model.about)),
            *[(name, f"{len(parts)} tensors") for name, parts in likes.items()],
        ],
        size=sum(sizes.values()),
        identity={"format": form, "dtype": config.dtype, **model.identity},
        write=write,
        about=model.about if form == "diffusers" else None,
        warnings=_warnings(config, model),
    )


class Counted(Mapping[str, Tensor]):
    """A lazy state dict that counts what was taken."""

    def __init__(self, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        self.tensors = tensors
        self.progress = progress

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.tensors[name]
        self.progress.advance()
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def like(self, name: str) -> Tensor:
        """Shape and dtype of a tensor."""
        return like(self.tensors, name)


def like(tensors: Mapping[str, Tensor], name: str) -> "torch.Tensor":
    """Shape and dtype of a tensor of a lazy state dict."""
    found: Tensor = tensors.like(name)  # type: ignore[attr-defined]
    return found


def _check_form(model: Model, form: str) -> None:
    ssm = model.values("transformer").get("ssm", "none")
    if form == "ttt-video" and ssm == "none":
        raise UsageError(
            "a TTT-Video checkpoint needs TTT layers, and this model has none",
            where=model.where,
            fix="train them first: ttv train --stage 3s --model MODEL",
        )
    if form == "ttt-video" and ssm == "ttt_large_chunk":
        raise UsageError(
            "TTT-Video has no layers of large chunks, and this model does",
            where=model.where,
            fix="--format diffusers keeps them, under names of ours",
        )
    if form == "sat" and ssm != "none":
        raise UsageError(
            "SAT checkpoints have no TTT layers, and this model does",
            where=model.where,
            fix="--format ttt-video",
        )


def _in_dtype(config: ExportConfig, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return tensors if config.dtype == "stored" else in_dtype(tensors, DTYPES[config.dtype])


def _warnings(config: ExportConfig, model: Model) -> list[str]:
    import torch

    tensors = model.networks["transformer"].tensors
    stored = {like(tensors, name).dtype for name in tensors}
    if config.dtype == "fp16" and torch.bfloat16 in stored:
        return ["weights trained in bf16 may overflow in fp16: such a model makes black videos"]
    return []


def _write_diffusers(model: Model, networks: Mapping[str, Counted], folder: Path) -> None:
    for component, tensors in networks.items():
        config = model.networks[component].config
        model_folder.write_component(folder, component, config, tensors)
    for component, source in model.files.items():
        model_folder.copy_files(source, folder, component)
    if model.index is not None:  # names the pipeline and the sampler of the download
        write_bytes(folder / "model_index.json", model.index)


def _write_sat(model: Model, networks: Mapping[str, Counted], folder: Path) -> None:
    tensors = networks["transformer"]
    path = folder / SAT_TRANSFORMER
    write_torch(path, {"module": Rewritten(tensors, to_sat(tensors))})
    write_text(path.parent.parent / "latest", path.parent.name)
    if "vae" in networks:
        tensors = networks["vae"]
        write_torch(folder / SAT_VAE, {"state_dict": Rewritten(tensors, to_sat_vae(tensors))})


def _write_public(model: Model, networks: Mapping[str, Counted], folder: Path) -> None:
    tensors = networks["transformer"]
    write_distributed(folder, to_public(tensors, PUBLIC_PREFIX))
    # The public program takes these from its own settings.
    values = model.values("transformer")
    notes = {key: values[key] for key in sorted(values) if key.startswith(("ttt_", "norm_eps"))}
    write_text(folder / "settings.json", json.dumps(notes, indent=2) + "\n")
