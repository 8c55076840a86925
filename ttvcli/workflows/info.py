"""Describe any artifact from its headers: nothing is loaded, torch is not imported."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttvcli.artifacts import checkpoint, model_folder
from ttvcli.artifacts.distributed_checkpoint import METADATA, is_distributed_checkpoint
from ttvcli.artifacts.manifest import MANIFEST_NAME, Record, read_manifest
from ttvcli.artifacts.runs import last_metrics
from ttvcli.artifacts.schema import HEADER_NAME, KINDS, Header, read_header
from ttvcli.artifacts.storyboard import read_storyboards
from ttvcli.artifacts.tensor_file import Weights, read_layout
from ttvcli.artifacts.video import read_sidecar, sidecar_path
from ttvcli.artifacts.weight_files import weight_files
from ttvcli.core.models.cogvideox import published
from ttvcli.errors import ArtifactError
from ttvcli.workflows import info_foreign
from ttvcli.workflows.dtype_choice import choose_dtype
from ttvcli.workflows.step import SILENT, Progress

Facts = dict[str, Any]
NETWORKS = ("transformer", "vae", "text_encoder")
SIZES = {
    "transformer": ("num_layers", "num_attention_heads", "attention_head_dim", "ssm"),
    "vae": ("block_out_channels", "latent_channels"),
    "text_encoder": ("num_layers", "d_model", "vocab_size"),
}
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
STORYBOARD_SUFFIXES = (".json", ".jsonl", ".txt")


@dataclass(frozen=True)
class InfoConfig:
    """What to describe: a path, or the name of a built-in model."""

    artifact: str = field(metadata={"help": "path of an artifact, or a built-in model"})


@dataclass(frozen=True)
class InfoResult:
    """Kind, path and facts, in reading order."""

    kind: str
    path: Path
    facts: Facts

    def to_json(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        return {"kind": self.kind, "path": str(self.path), **self.facts}


def run(config: InfoConfig, progress: Progress = SILENT) -> InfoResult:
    """Describe an artifact; ArtifactError if there is none, or it is damaged."""
    path = Path(config.artifact)
    if not path.exists() and config.artifact in model_folder.builtin_names():
        path = model_folder.resolve_model(config.artifact)
    if not path.exists():
        names = ", ".join(model_folder.builtin_names()) or "none"
        raise ArtifactError(
            "there is no such file or folder", where=str(path), fix=f"built-in models: {names}"
        )
    kind, facts = _folder(path) if path.is_dir() else _file(path)
    return InfoResult(kind, path, facts)


def _folder(path: Path) -> tuple[str, Facts]:
    if (path / checkpoint.COMPLETE).is_file() and (path / "state.json").is_file():
        return "checkpoint", _checkpoint(path)
    if model_folder.is_model_folder(path):
        return "model", _model(path)
    if (path / HEADER_NAME).is_file():
        found = read_header(path)
        kind = str(found.get("kind"))
        return kind, {**_of_header(found), **_content(kind, path)}
    if is_distributed_checkpoint(path):
        return info_foreign.dcp_folder(path)
    if (path / MANIFEST_NAME).is_file():
        return "clips", _clips(path)
    if (path / "config.json").is_file() and list(path.glob("*.safetensors*")):
        return "weights", _weights(Weights(weight_files(path)))
    if checkpoint.complete_checkpoints(path):
        return "run", _run(path)
    sat = info_foreign.sat_folder(path)
    if sat is not None:
        return sat
    raise ArtifactError(
        "nothing that ttv knows",
        where=str(path),
        fix=f"give a file of it, or one of: {', '.join(KINDS.values())}",
    )


def _content(kind: str, path: Path) -> Facts:
    """What lies beside a header of that kind."""
    if kind == "export":
        return info_foreign.dcp_folder(path)[1] if is_distributed_checkpoint(path) else {}
    return _run(path) if kind == "run" else _clips(path)


def _file(path: Path) -> tuple[str, Facts]:
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _tensor_file(path)
    if path.name == MANIFEST_NAME:
        return "manifest", _records(read_manifest(path))
    if path.name == HEADER_NAME:
        return _folder(path.parent)
    if suffix == ".pt":
        return info_foreign.pt_file(path)
    if (path.name == METADATA or suffix == ".distcp") and is_distributed_checkpoint(path.parent):
        return info_foreign.dcp_folder(path.parent)
    if suffix in STORYBOARD_SUFFIXES:
        return _text_file(path)
    return "video", _video(path)


def _of_header(found: Header) -> Facts:
    names = ("producer", "schema_version", "settings_hash", "settings", "made_from")
    return {name: found[name] for name in names if found.get(name)}


def _clips(path: Path) -> Facts:
    return _records(read_manifest(path)) if (path / MANIFEST_NAME).is_file() else {"clips": 0}


def _records(records: list[Record]) -> Facts:
    """Count clips, and say which sizes, rates and lengths occur."""
    facts: Facts = {"clips": len(records)}
    dropped = [record for record in records if record.get("keep") is False]
    if dropped:
        # "too_short: 1.5 s, the limit is 3 s": the numbers are those of one clip
        every = (why for record in dropped for why in record.get("reasons") or ["?"])
        reasons = Counter(str(why).partition(":")[0] for why in every)
        facts |= {"dropped": len(dropped), "reasons": dict(reasons.most_common())}
    seconds = sum(record.get("duration") or 0 for record in records)
    if seconds:
        facts["seconds"] = round(seconds, 3)
    tell: dict[str, Callable[[Record], Any]] = {
        "sizes": lambda record: f"{record['width']}x{record['height']}",
        "fps": lambda record: f"{record['fps']:g}",
        "frames": lambda record: str(record["frames"]),
    }
    for name, describe in tell.items():
        counts: Counter[str] = Counter()
        for record in records:
            try:
                counts[describe(record)] += 1
            except (KeyError, TypeError, ValueError):
                continue
        if counts:
            facts[name] = dict(counts.most_common(8))
    segments = [entry for record in records for entry in record.get("segments") or []]
    if segments:
        captioned = sum(1 for entry in segments if entry.get("caption"))
        facts |= {"segments": len(segments), "captioned": captioned}
    return facts


def _tensor_file(path: Path) -> tuple[str, Facts]:
    layout = read_layout(path)
    about = layout.metadata.get("ttv")
    header: Header = json.loads(about) if about else {}
    tensors = {
        name: {"dtype": info.dtype, "shape": list(info.shape)}
        for name, info in layout.tensors.items()
    }
    facts = {key: value for key, value in header.items() if key != "kind"}
    if header.get("kind"):
        return str(header["kind"]), {**facts, "tensors": tensors}
    shown = tensors if len(tensors) <= 8 else len(tensors)
    return "weights", {
        "parameters": layout.elements,
        "dtypes": layout.dtypes,
        "tensors": shown,
        "bytes": path.stat().st_size,
    }


def _weights(weights: Weights) -> Facts:
    infos = weights.infos.values()
    return {
        "parameters": sum(info.elements for info in infos),
        "dtypes": sorted({info.dtype for info in infos}),
        "bytes": sum(info.end - info.start for info in infos),
    }


def _model(path: Path) -> Facts:
    facts: Facts = {**_family(path), **model_folder.read_about(path)}
    resident: dict[str, int] = {}
    for component in NETWORKS:
        if not model_folder.has_component(path, component):
            facts[component] = "absent"
            continue
        config = model_folder.read_config(path, component)
        sizes = {name: config[name] for name in SIZES[component] if name in config}
        weights = _weights(model_folder.open_weights(path, component))
        facts[component] = {**weights, **sizes}
        resident[component] = weights["parameters"] * BYTES.get(facts.get("runs in", ""), 4)
    for component in ("tokenizer", "scheduler"):
        facts[component] = "present" if model_folder.has_component(path, component) else "absent"
    if len(resident) > 1:
        largest = max(resident, key=lambda name: resident[name])
        facts["weights in memory"] = {
            "largest": largest,
            "bytes one network at a time": resident[largest],
            "bytes all together": sum(resident.values()),
        }
    return facts


def _family(path: Path) -> Facts:
    """What the model is called, the clip it was made for, and the arithmetic it runs in."""
    if not model_folder.has_component(path, "transformer"):
        return {}
    config, about = model_folder.read_config(path, "transformer"), model_folder.read_about(path)
    vae = model_folder.has_component(path, "vae") and model_folder.read_config(path, "vae")
    ratio = 2 ** (len((vae or {}).get("block_out_channels", (0,) * 4)) - 1)
    return {
        "family": published.family(config, about),
        "made for": published.default_clip(config, about, ratio),
        "runs in": choose_dtype("auto", path, "cpu"),
    }


def _checkpoint(path: Path) -> Facts:
    about = checkpoint.read_state(path)
    facts = {"step": about["step"], "state": about["state"], **_of_header(about)}
    facts["weights"] = _weights(Weights(weight_files(path, "model")))
    facts["averaged weights"] = bool(list(path.glob("ema*.safetensors")))
    facts["optimizer"] = (path / "optimizer").is_dir()
    return facts


def _run(path: Path) -> Facts:
    steps = [int(saved.name.partition("-")[2]) for saved in checkpoint.complete_checkpoints(path)]
    facts: Facts = {"checkpoints": steps}
    if (path / "metrics.jsonl").is_file():
        facts["last metrics"] = last_metrics(path)
    facts["finished"] = (path / "model").is_dir()
    return facts


def _text_file(path: Path) -> tuple[str, Facts]:
    """Describe a sidecar, another JSON artifact, a manifest under another name, or a storyboard."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix.lower() == ".json":
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ArtifactError(f"not valid JSON: {error}", where=str(path)) from None
        if isinstance(value, dict) and "kind" in value and "producer" in value:
            return str(value["kind"]), {key: v for key, v in value.items() if key != "kind"}
    if path.suffix.lower() == ".jsonl" and '"vid_emb"' in text.partition("\n")[0]:
        return info_foreign.dataset_file(path, text.splitlines())
    if path.suffix.lower() == ".jsonl" and text.lstrip().startswith("{"):
        return "manifest", _records(read_manifest(path))
    boards = read_storyboards(path)
    return "storyboard", {
        "videos": len(boards),
        "seconds": [board.seconds for board in boards],
        "segments": [board.to_json()["segments"] for board in boards],
    }


def _video(path: Path) -> Facts:
    from ttvcli.core.video.decode import probe
    from ttvcli.core.video.errors import UnreadableVideo

    try:
        info = probe(path)
    except UnreadableVideo as error:
        raise ArtifactError(
            f"neither an artifact of ttv nor a readable video: {error}", where=str(path)
        ) from None
    facts: Facts = {
        "size": f"{info.width}x{info.height}",
        "fps": float(info.fps) if info.fps else None,
        "seconds": info.duration,
        "codec": info.codec,
        "pixel format": info.pixel_format,
        "container": info.container,
        "rotation": info.rotation,
        "bytes": path.stat().st_size,
    }
    if sidecar_path(path).is_file():
        sidecar = read_sidecar(path)
        facts |= {key: value for key, value in sidecar.items() if key != "kind"}
    return facts
