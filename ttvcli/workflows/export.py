"""Turn artifacts into the formats of other programs, and theirs into ours.

What the source is decides what it can become: a model folder becomes a diffusers folder, a SAT or a
TTT-Video checkpoint; such checkpoints become model folders; latents with their text become the
dataset of TTT-Video and back; storyboards its prompt files and back. Everything is checked before
anything is written, and the output is whole or absent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.atomic import replacing_folder, write_bytes, write_json
from ttvcli.artifacts.distributed_checkpoint import is_distributed_checkpoint
from ttvcli.artifacts.schema import HEADER_NAME, Header, header, read_header, settings_hash
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows.free_space import check_free_space
from ttvcli.workflows.step import SILENT, Plan, Progress

# kind of the source -> formats it can become, the usual one first
FORMATS = {
    "model": ("diffusers", "sat", "ttt-video"),
    "TTT-Video checkpoint": ("diffusers",),
    "SAT checkpoint": ("diffusers",),
    "latents": ("ttt-video",),
    "TTT-Video dataset": ("ttv",),
    "storyboard": ("ttt-video", "ttv"),
}
_SPARE_DISK = 64 << 20


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of `ttv export`; the field defaults are the defaults of the command."""

    source: str = field(
        metadata={"help": "model, checkpoint, latents, TTT-Video dataset or storyboard"}
    )
    out: Path = field(metadata={"help": "folder to write; for a storyboard, a .json file"})
    format: Literal["auto", "diffusers", "sat", "ttt-video", "ttv"] = field(
        default="auto", metadata={"help": "format to write; auto: the usual one for the source"}
    )
    dtype: Literal["stored", "fp32", "bf16", "fp16"] = field(
        default="stored", metadata={"help": "number format of the weights"}
    )
    base: str = field(
        default="", metadata={"help": "model folder for what a checkpoint or dataset lacks"}
    )
    text: Path | None = field(
        default=None, metadata={"help": "folder of embeddings that belongs to the latents"}
    )
    ttt_mini_batch: int = field(
        default=0,
        metadata={"help": "tokens of a mini-batch of a TTT-Video checkpoint; 0: 64 MLP, 16 linear"},
    )
    latent_scale: float = field(
        default=1.0,
        metadata={"help": "scaling of the latents a TTT-Video checkpoint was trained on"},
    )
    force: bool = field(default=False, metadata={"help": "replace what another export wrote"})

    def __post_init__(self) -> None:
        if self.ttt_mini_batch < 0:
            raise UsageError(f"ttt_mini_batch must not be negative, got {self.ttt_mini_batch}")
        if not 0 < self.latent_scale < 100:
            raise UsageError(f"latent_scale must be above 0, got {self.latent_scale}")


@dataclass(frozen=True)
class Job:
    """A checked export: what it is, and the function that writes it.

    Attributes:
        items: what the plan shows.
        size: bytes of the result, about.
        identity: what the result depends on.
        write: fills an empty folder; for a file, returns its content instead.
        about: of a model, what `ttv.json` says of it; None for other things.
        is_file: the result is one file.
        warnings: what the user should know.
    """

    items: list[tuple[str, str | int | float]]
    size: int
    identity: dict[str, Any]
    write: Callable[[Path, Progress], bytes | None]
    about: dict[str, Any] | None = None
    is_file: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ExportResult:
    """What was written."""

    paths: list[Path]
    kind: str
    format: str
    failed: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {"paths": [str(p) for p in self.paths], "from": self.kind, "to": self.format}


def plan(config: ExportConfig) -> Plan:
    """Check the source and say what would be written."""
    kind, form = kind_and_format(config)
    job = prepare(config, kind, form)
    there = " (is there already)" if _is_done(config, job) else ""
    return Plan(
        command="export",
        items=[
            ("from", f"{kind} {config.source}"),
            ("to", form),
            *job.items,
            ("out", f"{config.out}{there}"),
            *[("warning", text) for text in job.warnings],
        ],
        bytes={"disk": job.size},
    )


def run(config: ExportConfig, progress: Progress = SILENT) -> ExportResult:
    """Write the source in another format.

    Raises:
        UsageError: the format does not fit the source, or the output is something else.
        ArtifactError: the source is damaged, or its parts do not fit together.
        WouldNotFit: not enough disk.
    """
    kind, form = kind_and_format(config)
    job = prepare(config, kind, form)
    for text in job.warnings:
        progress.warn(text)
    result = ExportResult([config.out], kind, form)
    if _is_done(config, job):
        progress.note(f"{config.out} is there already, from this source with these settings")
        return result
    fix = "free some space, choose another --out, or --dtype bf16"
    check_free_space(config.out, job.size, fix, spare=_SPARE_DISK)
    if job.is_file:
        write_bytes(config.out, job.write(config.out, progress) or b"")
        return result
    with replacing_folder(config.out) as inside:
        job.write(inside, progress)
        made_from = {"export": settings_hash(job.identity), **job.identity}
        if job.about is not None:
            model_folder.write_about(inside, job.about, made_from)
        else:
            write_json(inside / HEADER_NAME, header("export", {"format": form}, made_from))
    return result


def kind_and_format(config: ExportConfig) -> tuple[str, str]:
    """Tell what the source is, and the format that it shall have.

    Raises:
        ArtifactError: the source is nothing that can be exported.
        UsageError: it cannot be turned into the wanted format.
    """
    kind = kind_of(config.source)
    choices = FORMATS[kind]
    form = config.format
    if form == "auto":
        if kind != "storyboard":
            return kind, choices[0]
        from ttvcli.workflows.export_prompts import is_public

        return kind, "ttv" if is_public(Path(config.source)) else "ttt-video"
    if form not in choices:
        raise UsageError(
            f"{kind} cannot be written as {form}",
            where=config.source,
            fix=f"--format {' or '.join(choices)}",
        )
    return kind, form


def kind_of(source: str) -> str:
    """Tell what a source is, from names alone; see FORMATS for the answers."""
    path = Path(source)
    if source in model_folder.builtin_names():
        return "model"
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.exists():
        names = ", ".join(model_folder.builtin_names())
        raise ArtifactError(
            "there is no such file or folder", where=source, fix=f"built-in models: {names}"
        )
    suffix = path.suffix.lower()
    if suffix == ".pt":
        return "TTT-Video checkpoint" if _holds_public(path) else "SAT checkpoint"
    if suffix == ".jsonl" and '"vid_emb"' in _first_line(path):
        return "TTT-Video dataset"
    if suffix in (".json", ".jsonl", ".txt"):
        return "storyboard"
    raise _unknown(path)


def _kind_of_folder(path: Path) -> str:
    if is_distributed_checkpoint(path):
        return "TTT-Video checkpoint"
    if model_folder.is_model_folder(path):
        return "model"
    if (path / HEADER_NAME).is_file() and read_header(path).get("kind") == "latents":
        return "latents"
    if any(path.rglob("mp_rank_00_model_states.pt")) or any(path.rglob("3d-vae.pt")):
        return "SAT checkpoint"
    raise _unknown(path)


def _holds_public(path: Path) -> bool:
    from ttvcli.artifacts.torch_file import read_torch, tensors_in
    from ttvcli.core.models.cogvideox.layouts import is_public

    return is_public(tensors_in(read_torch(path), path))


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline()


def _unknown(path: Path) -> ArtifactError:
    return ArtifactError(
        "nothing that can be exported", where=str(path), fix=f"give one of: {', '.join(FORMATS)}"
    )


def prepare(config: ExportConfig, kind: str, form: str) -> Job:
    """Check a source of a kind and plan how it is written."""
    if kind == "storyboard":
        from ttvcli.workflows.export_prompts import prompts_job

        return prompts_job(config, form)
    if kind in ("latents", "TTT-Video dataset"):
        from ttvcli.workflows import export_data

        job = export_data.to_public if kind == "latents" else export_data.from_public
        return job(config)
    from ttvcli.workflows.export_model import model_job

    return model_job(config, kind, form)


def _is_done(config: ExportConfig, job: Job) -> bool:
    """Whether the output is there; UsageError if its place is taken by something else."""
    out = config.out
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if job.is_file:
        if out.is_file() and out.read_bytes() == job.write(out, SILENT):
            return True
        if out.is_file() and config.force:
            return False
        raise UsageError(
            "the output is another file", where=str(out), fix="another --out, or --force"
        )
    found = _header_of(out)
    old, new = found.get("made_from", {}).get("export"), settings_hash(job.identity)
    if old == new:
        return True
    if old and config.force:
        return False
    raise UsageError(
        f"the output holds the export {old}, this one is {new}"
        if old
        else "the output is there and no export wrote it",
        where=str(out),
        fix="choose another --out" + (", or --force to replace it" if old else ""),
    )


def _header_of(folder: Path) -> Header:
    try:
        return read_header(folder)
    except ArtifactError:
        return {}
