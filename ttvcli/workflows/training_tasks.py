"""What differs between training a transformer, a VAE and a text encoder.

A task brings together the network, its objective, where its batches come from, and how the trained
weights become a model folder.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.presets import load_preset
from ttvcli.artifacts.schema import settings_hash
from ttvcli.core.device import DTYPES
from ttvcli.core.models.vae.whitening import whiten
from ttvcli.core.training import objectives
from ttvcli.core.training.loop import Objective, Trainer, step_generator
from ttvcli.errors import UsageError, counted
from ttvcli.workflows import components
from ttvcli.workflows.step import Progress
from ttvcli.workflows.training_data import (
    LabelledCaptions,
    LatentClips,
    PixelClips,
    Source,
    require_folder,
)

if TYPE_CHECKING:
    from ttvcli.workflows.train import TrainConfig

_DATA_STREAM = 1_000_000_007  # keeps the data's random numbers apart from the objective's
_TOKENIZER_CAPTIONS = 5_000
_SCALE_CLIPS = 64


@dataclass(frozen=True)
class Task:
    """Everything the loop needs, whatever is being trained."""

    trainer: Trainer
    source: Source
    made_from: dict[str, str]
    export: Callable[[Path], None]

    def data_generator(self, step: int) -> torch.Generator:
        """The generator for crops and posterior draws of one step."""
        return step_generator(self.trainer.seed + _DATA_STREAM, step)

    def to_device(self, batch: Any) -> Any:
        """Move a batch to the training device."""
        device = self.trainer.device
        if isinstance(batch, Tensor):
            return batch.to(device)
        if isinstance(batch, dict):
            return {key: self.to_device(value) for key, value in batch.items()}
        if is_dataclass(batch) and not isinstance(batch, type):
            moved = {key: value.to(device) for key, value in vars(batch).items()}
            return replace(batch, **moved)
        return batch


def component_values(config: "TrainConfig") -> dict[str, Any]:
    """The architecture of the component to train: from the preset, or from the model's folder."""
    if config.init == "scratch":
        values = dict(load_preset("model", config.architecture)[config.target])
    else:
        values = model_folder.read_config(model_folder.resolve_model(config.model), config.target)
    if config.target == "transformer" and config.ssm:
        values["ssm"] = config.ssm
    if config.ttt_chunk_tokens:
        if config.target != "transformer" or values.get("ssm") != "ttt_large_chunk":
            raise UsageError(
                "ttt_chunk_tokens is a setting of ttt_large_chunk, which is not trained here",
                fix="--set ssm=ttt_large_chunk, or leave ttt_chunk_tokens out",
            )
        values["ttt_chunk_tokens"] = config.ttt_chunk_tokens
    return values


def describe_task(config: "TrainConfig") -> tuple[list[tuple[str, str | int | float]], int]:
    """Lines for the plan and the number of weights; networks are built without memory."""
    with torch.device("meta"):
        network = components.build(config.target, component_values(config))
    weights = sum(p.numel() for p in network.parameters())
    items: list[tuple[str, str | int | float]] = [
        ("target", config.target),
        ("start", f"{config.init} ({_origin(config)})"),
        ("weights", weights),
    ]
    if config.target == "transformer":
        source = _latent_clips(config)
        items.append(("latents", len(source)))
        items += [("warning", text) for text in source.warnings]
    elif config.target == "vae":
        items.append(("clips", len(_pixel_clips(config))))
    return items, weights


def _origin(config: "TrainConfig") -> str:
    return config.architecture if config.init == "scratch" else config.model


def build_task(config: "TrainConfig", device: torch.device, progress: Progress) -> Task:
    """Build the task that `config.target` names."""
    return _TASKS[config.target](config, device, progress)


def _network(config: "TrainConfig", progress: Progress) -> nn.Module:
    """The network to train, fresh or with the model's weights (new TTT layers start fresh)."""
    values = component_values(config)
    if config.init == "scratch":
        return components.build_from_scratch(config.target, values, config.seed)
    folder = model_folder.resolve_model(config.model)
    if values == model_folder.read_config(folder, config.target):
        return components.load(folder, config.target)
    network = components.build_from_scratch(config.target, values, config.seed)
    weights = model_folder.open_weights(folder, config.target)
    with torch.device("meta"):
        plain = components.build(config.target, {**values, "ssm": "none"}).state_dict()
    own = network.state_dict()
    fresh = set(own) - set(plain)  # of the TTT layers and their gates
    fresh = fresh if fresh.isdisjoint(weights) else set()
    wanted = {name: tuple(own[name].shape) for name in own if name not in fresh}
    model_folder.check_weights(weights, wanted, where=folder / config.target)
    with torch.no_grad():
        for name in wanted:
            own[name].copy_(weights[name])
    if fresh:
        progress.note(f"new TTT layers: {counted(len(fresh), 'fresh tensor')}")
    return network


def _trainer(
    config: "TrainConfig", network: nn.Module, objective: Objective, device: torch.device
) -> Trainer:
    _freeze(network, config.freeze)
    return Trainer(
        network.train().to(device),
        objective,
        config.optimizer,
        total_steps=config.steps,
        ema_decay=config.ema_decay,
        precision=config.precision,
        device=device,
        seed=config.seed,
    )


def _freeze(network: nn.Module, beginnings: str) -> None:
    """Take the weights whose names start with one of `beginnings` (commas between) out of training.

    Raises:
        UsageError: a beginning that no weight has, or nothing would be left to train.
    """
    names = [name for name, _ in network.named_parameters()]
    for start in filter(None, (part.strip() for part in beginnings.split(","))):
        if not any(name.startswith(start) for name in names):
            known = sorted({name.split(".")[0] + "." for name in names})
            raise UsageError(
                f"freeze: no weight starts with {start!r}", fix=f"names start with {known}"
            )
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and not name.startswith(start))
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError(f"freeze {beginnings!r} leaves nothing to train", fix="freeze less")


def _transformer(config: "TrainConfig", device: torch.device, progress: Progress) -> Task:
    base = model_folder.resolve_model(config.model)
    source = _latent_clips(config)
    for warning in source.warnings:
        progress.warn(warning)
    null = source.null_text()
    if model_folder.read_about(base).get("null_text") == "zero":
        null = torch.zeros_like(null)
    objective = objectives.DiffusionObjective(
        components.load_schedule(base), null[0].float(), config.caption_dropout
    )
    trainer = _trainer(config, _network(config, progress), objective, device)

    def export(out: Path) -> None:
        model_folder.copy_components(base, out, skip=("transformer",))
        values = trainer.model.config.to_dict()  # type: ignore[operator, union-attr]
        _write_network(out, config, _final_weights(trainer), values)

    made_from = {
        "latents": settings_hash([r.get("sha256", r["id"]) for r in source.records]),
        **source.hashes,
        "start": ""
        if config.init == "scratch"
        else model_folder.component_hash(base, "transformer"),
    }
    return Task(trainer, source, made_from, export)


def _latent_clips(config: "TrainConfig") -> LatentClips:
    base = model_folder.resolve_model(config.model)
    vae = model_folder.read_config(base, "vae")
    latents = require_folder(config.data, "--data")
    text = require_folder(config.text, "--text")
    source = LatentClips(
        latents,
        text,
        scaling_factor=components.scaling_factor(vae),
        vae_hash=model_folder.component_hash(base, "vae"),
        text_encoder_hash=model_folder.component_hash(base, "text_encoder"),
        latent_frames=_latent_frames(config, vae),
        anywhere=config.windows == "anywhere",
        cache_bytes=int(config.cache_gib * 2**30),
    )
    tokens = source.null_text().shape[1]
    sampled = int(component_values(config).get("max_text_seq_length", 226))
    if tokens != sampled:
        source.warnings.append(
            f"the texts in {text} have {tokens} tokens, videos will be sampled with {sampled}: "
            f"`ttv embed-text --set max_tokens={sampled}` makes them agree"
        )
    return source


def _pixel_clips(config: "TrainConfig") -> PixelClips:
    folder = require_folder(config.data, "--data")
    return PixelClips(folder, config.clip_frames, int(config.cache_gib * 2**30))


def _latent_frames(config: "TrainConfig", vae: dict[str, Any]) -> int:
    """Latent frames of `config.frames` pixel frames; 0 for whole clips."""
    ratio = int(vae.get("temporal_compression_ratio", 4))
    if config.frames and (config.frames - 1) % ratio:
        raise UsageError(
            f"frames must be {ratio}k+1, got {config.frames}", fix="1, 49, 145, 289, 481 or 1009"
        )
    return (config.frames - 1) // ratio + 1 if config.frames else 0


def _vae(config: "TrainConfig", device: torch.device, progress: Progress) -> Task:
    source = _pixel_clips(config)
    objective = objectives.VAEObjective(
        l1_weight=config.l1_weight,
        mse_weight=config.mse_weight,
        edge_weight=config.edge_weight,
        kl_weight=config.kl_weight,
    )
    network = _network(config, progress)
    trainer = _trainer(config, network, objective, device)

    def export(out: Path) -> None:
        values = trainer.model.config.to_dict()  # type: ignore[operator, union-attr]
        averaged = _averaged(trainer)
        is_new = any(p.requires_grad for p in network.encoder.parameters())  # type: ignore
        if is_new or config.whiten_latents:
            means, logvars = _posteriors(averaged, source, trainer)
            # Scaled latents have unit variance: all together, or in every direction.
            values["scaling_factor"] = round(1.0 / float(means.std()), 6)
            if config.whiten_latents:
                whiten(averaged, means, logvars)
                values["scaling_factor"] = 1.0
        if config.init == "model":
            base = model_folder.resolve_model(config.model)
            model_folder.copy_components(base, out, skip=("vae",))
        else:
            preset = load_preset("model", config.architecture)
            model_folder.write_config(out, "scheduler", preset["scheduler"])
            model_folder.write_about(out, preset.get("ttv", {}))
        _write_network(out, config, averaged.state_dict(), values)

    made_from = {"clips": settings_hash([r["sha256"] for r in source.records])}
    return Task(trainer, source, made_from, export)


def _averaged(trainer: Trainer) -> Any:
    """A copy of the network with the averaged weights (the trained ones without an average)."""
    network = copy.deepcopy(trainer.model)
    network.load_state_dict(_final_weights(trainer))
    return network


def _posteriors(network: Any, source: Source, trainer: Trainer) -> tuple[Tensor, Tensor]:
    """Means and log-variances [clips, Z, T, H, W] of some training clips, on the CPU."""
    means, logvars = [], []
    for start in range(0, min(_SCALE_CLIPS, len(source)), 8):
        chosen = list(range(start, min(start + 8, len(source))))
        pixels = source.batch(chosen, step_generator(trainer.seed, start))
        with torch.no_grad():
            mean, logvar = network.encode(pixels.to(trainer.device))
        means.append(mean.cpu())
        logvars.append(logvar.cpu())
    return torch.cat(means), torch.cat(logvars)


def _text_encoder(config: "TrainConfig", device: torch.device, progress: Progress) -> Task:
    from ttvcli.core.models.text.tokenizer import SentencePieceTokenizer, train_tokenizer
    from ttvcli.core.world.labels import caption_labels, label_classes

    base = model_folder.resolve_model(config.model)
    values = component_values(config)
    preset = load_preset("model", config.architecture)
    if config.init == "scratch":
        captions = [caption_labels(np.random.default_rng(i))[0] for i in range(_TOKENIZER_CAPTIONS)]
        with TemporaryDirectory() as folder:
            path = Path(folder) / "spiece.model"
            train_tokenizer(captions, path, values["vocab_size"])
            tokenizer, spiece = SentencePieceTokenizer(path), path.read_bytes()
    else:
        tokenizer = components.load_tokenizer(base)
        spiece = (base / "tokenizer" / "spiece.model").read_bytes()
    tokens = preset["transformer"]["max_text_seq_length"]
    source = LabelledCaptions(lambda text: tokenizer.encode(text, tokens))
    network = objectives.CaptionLabels(
        _network(config, progress), values["d_model"], label_classes()
    )
    trainer = _trainer(config, network, objectives.caption_label_objective, device)

    def export(out: Path) -> None:
        model_folder.copy_components(base, out, skip=("text_encoder", "tokenizer"))
        model_folder.write_file(out, "tokenizer/spiece.model", spiece)
        _write_network(out, config, _final_weights(trainer), values, prefix="encoder.")

    made_from = {"tokenizer": settings_hash(list(spiece))}
    return Task(trainer, source, made_from, export)


def _final_weights(trainer: Trainer) -> dict[str, Tensor]:
    """The averaged weights, or the trained ones without an average."""
    network = trainer.model
    return trainer.ema.merged_state_dict(network) if trainer.ema else network.state_dict()


def _write_network(
    out: Path,
    config: "TrainConfig",
    state: dict[str, Tensor],
    values: dict[str, Any],
    prefix: str = "",
) -> None:
    """Write the weights whose names start with `prefix` into a model folder, without it."""
    dtype = DTYPES[config.export_dtype]
    chosen = {
        name.removeprefix(prefix): value.to("cpu", dtype).contiguous()
        for name, value in state.items()
        if name.startswith(prefix)
    }
    shown = asdict(values) if is_dataclass(values) and not isinstance(values, type) else values
    model_folder.write_component(out, config.target, shown, chosen)


_TASKS: dict[str, Callable[["TrainConfig", torch.device, Progress], Task]] = {
    "transformer": _transformer,
    "vae": _vae,
    "text_encoder": _text_encoder,
}
