"""Make a video from a prompt or a storyboard.

Text is encoded first, then the transformer denoises, then the VAE decodes two latent frames at a
time straight into the video encoder; each network is dropped before the next is loaded. While it
denoises, the state of the sampler goes to a file beside the video every few steps; latents are on
disk before decoding starts. So a run that is killed goes on near where it was.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ttvcli.artifacts.atomic import sha256_file, write_bytes
from ttvcli.artifacts.latents import KIND as LATENTS
from ttvcli.artifacts.latents import load_latents
from ttvcli.artifacts.safetensors_file import write_artifact
from ttvcli.artifacts.schema import settings_hash
from ttvcli.artifacts.video import new_video, read_sidecar, sidecar_path
from ttvcli.errors import ArtifactError, UsageError, WorkFailed, counted
from ttvcli.workflows.memory_plan import GIB, check_memory, memory_items, parse_bytes
from ttvcli.workflows.output_file import check_output_file
from ttvcli.workflows.sample_request import Request, bytes_to_hash, check, model_hashes
from ttvcli.workflows.sample_state import StateFile
from ttvcli.workflows.step import SILENT, Plan, Progress, check_seed

_SHEET_FRAMES = 12
_LONG_TO_HASH = GIB


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Settings of `ttv sample`; None means "as the model prefers", else the usual value."""

    prompt: str | None = field(default=None, metadata={"help": "text; - reads standard input"})
    storyboard: Path | None = field(
        default=None, metadata={"help": "file with one text for each 3 s segment"}
    )
    negative: str = field(default="", metadata={"help": "text for what should not be seen"})
    out: Path = field(default=Path("out.mp4"), metadata={"help": "video to write"})
    contact_sheet: Path | None = field(
        default=None, metadata={"help": "also write a PNG of evenly spaced frames"}
    )
    model: str = field(default="tiny", metadata={"help": "tiny, or a model folder"})
    model_hash: str = field(
        default="", metadata={"help": "refuse a model of another hash; from a video's .json"}
    )
    image: Path | None = field(
        default=None, metadata={"help": "first frame, for an image-to-video model"}
    )
    image_hash: str = field(
        default="", metadata={"help": "refuse an image of another sha256; from a video's .json"}
    )
    seconds: float | None = field(
        default=None,
        metadata={"help": "length: a multiple of 3 s; for one clip (frames - 1) / fps"},
    )
    frames: int | None = field(
        default=None, metadata={"help": "length in frames: 8k + 1, or 48k + 1 with segments"}
    )
    fps: int | None = field(default=None, metadata={"help": "frames per second of one clip"})
    size: str | None = field(default=None, metadata={"help": "WIDTHxHEIGHT in pixels"})
    steps: int | None = field(default=None, metadata={"help": "denoising steps"})
    guidance: float | None = field(default=None, metadata={"help": "guidance scale; 1 is off"})
    guidance_mode: Literal["constant", "ramp", "legacy"] | None = field(
        default=None, metadata={"help": "guidance over the steps: constant, ramp or legacy"}
    )
    sampler: str | None = field(default=None, metadata={"help": "ddim, dpm++2m or dpm++2m-sde"})
    step_rule: Literal["grid", "diffusers"] = field(
        default="grid",
        metadata={"help": "where a step ends; differs if --steps does not divide 1000"},
    )
    null_text: Literal["empty", "zero"] | None = field(
        default=None, metadata={"help": "what stands for no text: the empty prompt, or zeros"}
    )
    text_tokens: int | None = field(
        default=None,
        metadata={
            "help": "tokens of a text; CogVideoX-1.5 was trained with 224, its config has 226"
        },
    )
    seed: int = field(default=42, metadata={"help": "seed of the noise"})
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = field(
        default="auto", metadata={"help": "arithmetic of the networks; auto: as they are stored"}
    )
    vae_tiling: bool = field(
        default=False,
        metadata={"help": "decode in overlapping tiles: less memory, slightly other pixels"},
    )
    crf: int = field(default=12, metadata={"help": "H.264 quality: 0 best, 51 worst"})
    keep_latents: bool = field(
        default=False, metadata={"help": "keep the latents beside the video"}
    )
    checkpoint_every: int = field(
        default=5,
        metadata={"help": "steps between two states that a killed run goes on from; 0: none"},
    )
    force: bool = field(default=False, metadata={"help": "replace a video of other settings"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, mps"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 lets torch choose"})
    offload: Literal["auto", "none", "cpu", "disk"] = field(
        default="auto", metadata={"help": "where weights wait that do not fit"}
    )
    vram_limit: str = field(
        default="",
        metadata={"help": "memory to stay under, 22GiB; empty: nine tenths of what there is"},
    )

    def __post_init__(self) -> None:
        if self.prompt is not None and self.storyboard is not None:
            raise UsageError("give a prompt or --storyboard, not both", fix="leave one of them out")
        if self.prompt is None and self.storyboard is None:
            raise UsageError(
                "there is nothing to draw: no prompt and no --storyboard",
                fix='ttv sample "a red circle moves right" -o out.mp4',
            )
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise UsageError(f"--steps must be 1 to 1000, got {self.steps}")
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise UsageError(
                f"--guidance must be a number from 0 on, got {self.guidance}",
                fix="1 turns it off, 6 is usual",
            )
        for name, least in (("fps", 1), ("text_tokens", 1), ("checkpoint_every", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} must be {least} or more, got {value}")
        if not 0 <= self.crf <= 51:
            raise UsageError(f"crf must be 0 to 51, got {self.crf}")
        if self.threads < 0:
            raise UsageError(f"--threads must not be negative, got {self.threads}")
        if self.vram_limit:
            parse_bytes(self.vram_limit)
        check_seed(self.seed)


@dataclass(frozen=True)
class SampleResult:
    """The video and what was made beside it."""

    video: Path
    paths: list[Path]
    facts: dict[str, Any]
    failed: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {"video": str(self.video), "paths": [str(p) for p in self.paths], **self.facts}


def plan(config: SampleConfig) -> Plan:
    """Say what would be made and what it takes; loads no weights, writes nothing."""
    request = check(config)
    is_done = _is_done(request)
    frames, channels, height, width = request.latent_shape
    memory = check_memory(request)
    found, sizes, seconds = memory_items(request, memory)
    chosen = request.config
    return Plan(
        command="sample",
        items=[
            ("model", str(request.folder)),
            ("video", f"{request.width}x{request.height}, {counted(request.frames, 'frame')}"),
            ("frames per second", request.fps),
            ("seconds", round(request.seconds, 3)),
            *([("first frame", str(chosen.image))] if chosen.image is not None else []),
            ("latents", f"[{frames}, {channels}, {height}, {width}]"),
            ("sampler", f"{chosen.sampler}, {counted(chosen.steps or 0, 'step')}"),
            ("guidance", f"{chosen.guidance:g} ({chosen.guidance_mode})"),
            ("seed", chosen.seed),
            ("dtype", chosen.dtype),
            ("out", f"{chosen.out}{' (is there already)' if is_done else ''}"),
            *found,
            *[(f"segment {i}", s.text) for i, s in enumerate(request.board.segments, 1)],
            *[("warning", text) for text in request.warnings],
        ],
        bytes=sizes,
        eta_seconds=seconds,
    )


def run(config: SampleConfig, progress: Progress = SILENT) -> SampleResult:
    """Make the video, its sidecar and, when asked, a contact sheet.

    Raises:
        UsageError, ArtifactError: see `check`; or the output holds a video of other settings.
        WorkFailed: the model produced numbers that are not finite.
    """
    request = check(config)
    for text in request.warnings:
        progress.warn(text)
    config = request.config
    if _is_done(request):
        progress.note(f"{config.out} is there already, with these settings")
        return _result(request, read_sidecar(config.out).get("sampling", {}))
    check_memory(request)
    from ttvcli.workflows.components import check_model
    from ttvcli.workflows.generate import decode_to_video, generate_latents, machine

    check_model(request.folder)
    _hash_model(request, progress)
    identity = request.identity()
    stored = _latents_path(config.out)
    latents = _stored_latents(stored, identity)
    unfinished = StateFile(_state_path(config.out), identity, config.checkpoint_every)
    if latents is None:
        latents = generate_latents([request], progress, unfinished)[0]
        if not bool(latents.isfinite().all()):
            raise WorkFailed(
                "the latents are not finite",
                where=str(request.folder),
                fix="use --dtype fp32 (or bf16; fp16 overflows in the 5B models)",
            )
        _store_latents(stored, latents, request, identity)
    else:
        progress.note(f"{stored} holds the denoised latents already; decoding them")
    unfinished.remove()
    with new_video(config.out, identity, request.hashes) as (path, facts):
        sheet = decode_to_video(request, latents, path, progress, _SHEET_FRAMES)
        if config.contact_sheet is not None:
            write_bytes(config.contact_sheet, sheet)
        about = machine(config)
        facts["sampling"] = {"prompts": request.board.prompts, "frames": request.frames}
        facts["sha256"] = sha256_file(path)
        facts["versions"] = about.pop("versions")
        facts["again"] = {"sample": {**request.again(), **about}}
        if config.storyboard is not None:
            facts["storyboard"] = request.board.to_json()
    if not config.keep_latents:
        stored.unlink(missing_ok=True)
    return _result(request, facts["sampling"])


def _hash_model(request: Request, progress: Progress) -> None:
    """Hash the model before its name is needed, and tell where that takes seconds."""
    unread = bytes_to_hash(request.folder)
    if unread >= _LONG_TO_HASH:
        progress.start(f"hashing {unread / GIB:.1f} GiB of weights")
        model_hashes(request.folder)
        progress.finish()


def _is_done(request: Request) -> bool:
    """Whether the video is there; UsageError if its place is taken or cannot be written."""
    config = request.config
    check_output_file(config.out, ".mp4", "--out")
    if config.contact_sheet is not None:
        check_output_file(config.contact_sheet, ".png", "--contact-sheet")
    _check_sidecar(config)
    if not config.out.exists() or config.force:
        return False
    identity = request.identity()
    new = settings_hash(identity)
    old = _made_with(config.out)
    if old is None and _stored_latents(_latents_path(config.out), identity) is not None:
        return False  # killed after the video had its name and before it had its sidecar
    if old != new:
        raise UsageError(
            f"the output exists, made with settings {old or 'unknown'}, now {new}",
            where=str(config.out),
            fix="choose another -o, or --force to replace it",
        )
    return config.contact_sheet is None or config.contact_sheet.exists()


def _check_sidecar(config: SampleConfig) -> None:
    """Refuse to write the sidecar over a file that is something else, such as the storyboard."""
    sidecar = sidecar_path(config.out)
    if sidecar.exists() and _made_with(config.out) is None:
        raise UsageError(
            f"{sidecar.name} belongs beside the video, and is another file",
            where=str(sidecar),
            fix=f"-o {config.out.with_stem(config.out.stem + '-video')}, or any other name",
        )


def _made_with(video: Path) -> str | None:
    """The settings hash of a video that has its sidecar."""
    try:
        return str(read_sidecar(video)["settings_hash"])
    except (ArtifactError, KeyError):
        return None


def _result(request: Request, facts: dict[str, Any]) -> SampleResult:
    config = request.config
    paths = [config.out]
    if config.contact_sheet is not None:
        paths.append(config.contact_sheet)
    return SampleResult(config.out, paths, facts)


def _latents_path(video: Path) -> Path:
    return video.with_suffix(".latents.safetensors")


def _state_path(video: Path) -> Path:
    return video.with_suffix(".sampling.safetensors")


def _stored_latents(path: Path, identity: dict[str, Any]) -> Any:
    """Latents that an earlier run with the same settings left behind, or None."""
    if not path.exists():
        return None
    try:
        mean, _, about = load_latents(path)
    except ArtifactError:
        return None
    return mean if about.get("settings_hash") == settings_hash(identity) else None


def _store_latents(path: Path, latents: Any, request: Request, identity: dict[str, Any]) -> None:
    """Keep what was denoised, in float32: a run that decodes it later makes the same bytes."""
    about = {
        "settings_hash": settings_hash(identity),
        "vae": "vae",
        "vae_hash": request.hashes["vae"],
        "fps": request.fps,
        "width": request.width,
        "height": request.height,
        "frames": request.frames,
        "source_sha256": "",
    }
    certain = latents.new_full(latents.shape, -30.0)  # the log-variance of no uncertainty
    write_artifact(path, LATENTS, {"mean": latents, "logvar": certain}, about)
