"""Training checkpoints: folders that are either complete or ignored.

    step-000500/
      config.toml               settings of the run
      model.safetensors         weights (or shards and an index)
      ema.safetensors           averaged weights, where the run keeps them
      optimizer/state.json      the optimizer's state; its tensors in state.safetensors beside it
      state.json                step, seed, position in the data
      rng/state.json            random states, where the run draws from any
      COMPLETE                  SHA-256 of every file above; written last

Nothing is pickled, so a checkpoint from elsewhere cannot run code.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts.atomic import (
    replacing_folder,
    sha256_file,
    write_json,
    write_text,
)
from ttvcli.artifacts.schema import check_header, header
from ttvcli.artifacts.tensor_file import Weights, write_sharded, write_tensors
from ttvcli.artifacts.weight_files import weight_files
from ttvcli.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    import torch

COMPLETE = "COMPLETE"
_NAME = re.compile(r"^step-(\d{6,})$")


@dataclass
class Checkpoint:
    """A loaded checkpoint: state dicts on the CPU, and the plain values of `state.json`."""

    path: Path
    step: int
    model: "dict[str, torch.Tensor]"
    ema: "dict[str, torch.Tensor] | None" = None
    optimizer: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    rng: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    folder: str | Path,
    step: int,
    *,
    model: "Mapping[str, torch.Tensor]",
    ema: "Mapping[str, torch.Tensor] | None" = None,
    optimizer: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    rng: Mapping[str, Any] | None = None,
) -> Path:
    """Write `<folder>/step-NNNNNN`, atomically; a checkpoint of the same step is replaced.

    `optimizer` and `rng` may nest dicts, lists, tuples, numbers, text, None and tensors; `state`
    holds what JSON can, `config` what TOML can (None is left out).
    """
    path = Path(folder) / f"step-{step:06d}"
    settings = dict(config or {})
    with replacing_folder(path) as inside:
        write_text(inside / "config.toml", _toml(settings))
        write_sharded(inside, "model", model)
        if ema is not None:
            write_sharded(inside, "ema", ema)
        for name, values in (("optimizer", optimizer), ("rng", rng)):
            if values is not None:
                _write_nested(inside / name, values)
        about = {**header("checkpoint", settings), "step": step}
        write_json(inside / "state.json", {**about, "state": dict(state or {})})
        files = sorted(file for file in inside.rglob("*") if file.is_file())
        hashes = {file.relative_to(inside).as_posix(): sha256_file(file) for file in files}
        write_json(inside / COMPLETE, hashes)
    return path


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Load a checkpoint; ArtifactError if it is incomplete or any file was changed since."""
    path = Path(path)
    verify(path)
    about = read_state(path)
    ema = Weights(weight_files(path, "ema")).load() if list(path.glob("ema*.safetensors")) else None
    return Checkpoint(
        path=path,
        step=int(about["step"]),
        model=Weights(weight_files(path, "model")).load(),
        ema=ema,
        optimizer=_read_nested(path / "optimizer"),
        state=about["state"],
        rng=_read_nested(path / "rng"),
    )


def read_state(path: str | Path) -> dict[str, Any]:
    """Return the header, `step` and `state` of a checkpoint; needs no torch."""
    file = Path(path) / "state.json"
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"not a checkpoint: {error}", where=str(file)) from error
    check_header(about, kind="checkpoint", where=path)
    return about


def verify(path: str | Path) -> None:
    """Compare every file of a checkpoint with the hash written when it was saved."""
    path = Path(path)
    if not path.is_dir():
        raise ArtifactError(
            "there is no such checkpoint", where=str(path), fix="--resume latest takes the newest"
        )
    try:
        hashes = json.loads((path / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ArtifactError(
            f"the checkpoint is not complete: {COMPLETE} is missing or damaged",
            where=str(path),
            fix="--resume latest takes the newest complete one",
        ) from None
    for name, expected in hashes.items():
        file = path / name
        if not file.is_file() or sha256_file(file) != expected:
            problem = "has changed since it was written" if file.is_file() else "is missing"
            raise ArtifactError(
                f"{name} {problem}", where=str(path), fix="resume from another checkpoint"
            )


def complete_checkpoints(folder: str | Path) -> list[Path]:
    """Return the complete checkpoints of a run (or of its `checkpoints/`), oldest first."""
    folder = Path(folder)
    inside = folder / "checkpoints"
    found = [
        (int(match.group(1)), path)
        for path in (inside if inside.is_dir() else folder).glob("step-*")
        if (match := _NAME.match(path.name)) and (path / COMPLETE).is_file()
    ]
    return [path for _, path in sorted(found)]


def step_of(path: str | Path) -> int:
    """Return the step in the name of a checkpoint folder."""
    match = _NAME.match(Path(path).name)
    if match is None:
        raise ValueError(f"{path} is not named like a checkpoint")
    return int(match.group(1))


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest complete checkpoint, or None if there is none."""
    paths = complete_checkpoints(folder)
    return paths[-1] if paths else None


def prune(folder: str | Path, keep: int) -> list[Path]:
    """Delete all but the newest `keep` checkpoints, and what killed runs left half written."""
    if keep < 1:
        raise UsageError(f"at least one checkpoint has to be kept, got {keep}")
    complete = complete_checkpoints(folder)
    doomed = complete[:-keep]
    inside = Path(folder) / "checkpoints"
    for path in (inside if inside.is_dir() else Path(folder)).glob("step-*"):
        if ".tmp-" in path.name:
            doomed.append(path)
    for path in doomed:
        (path / COMPLETE).unlink(missing_ok=True)  # from here on it is not a checkpoint any more
        shutil.rmtree(path)
    return doomed


def capture_rng() -> dict[str, Any]:
    """Return the states of torch's own generators, for `save_checkpoint(rng=...)`."""
    import torch

    cuda = list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_rng(rng: Mapping[str, Any]) -> None:
    """Put torch's own generators back into the states of `capture_rng`."""
    import torch

    if "cpu" in rng:
        torch.set_rng_state(rng["cpu"])
    if rng.get("cuda") and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(rng["cuda"])


def _write_nested(folder: Path, value: Mapping[str, Any]) -> None:
    """Store nested values as JSON, with the tensors in it moved to a safetensors file."""
    folder.mkdir()
    tensors: dict[str, Any] = {}
    write_json(folder / "state.json", _pack(value, "", tensors))
    write_tensors(folder / "state.safetensors", tensors)


def _pack(value: Any, name: str, tensors: dict[str, Any]) -> Any:
    if isinstance(value, Mapping):
        pairs = [[key, _pack(entry, f"{name}.{key}", tensors)] for key, entry in value.items()]
        return {"dict": pairs}  # as pairs, because an optimizer's keys are numbers
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_pack(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "element_size"):
        tensors[name.removeprefix(".")] = value
        return {"tensor": name.removeprefix(".")}
    raise ValueError(f"{name.removeprefix('.')} is a {type(value).__name__}: cannot be stored")


def _read_nested(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        return {}
    value = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return _unpack(value, Weights([folder / "state.safetensors"]).load())


def _unpack(value: Any, tensors: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: _unpack(entry, tensors) for key, entry in inner}
    entries = [_unpack(entry, tensors) for entry in inner]
    return tuple(entries) if kind == "tuple" else entries


def _toml(settings: Mapping[str, Any]) -> str:
    import tomli_w

    from ttvcli.artifacts.schema import plain

    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without_none(v) for k, v in value.items() if v is not None}
        return value

    return tomli_w.dumps(without_none(plain(settings)))
