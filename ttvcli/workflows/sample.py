"""Make a video from a prompt or a storyboard.

Text is encoded first, then the transformer denoises, then the VAE decodes two latent frames at a
time straight into the video encoder; each network is dropped before the next is loaded. Latents are
on disk before decoding starts, so that a failure there loses nothing.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.latents import KIND as LATENTS
from ttvcli.artifacts.latents import load_latents
from ttvcli.artifacts.safetensors_file import write_artifact
from ttvcli.artifacts.schema import plain, settings_hash
from ttvcli.artifacts.storyboard import (
    SEGMENT_SECONDS,
    Segment,
    Storyboard,
    check_storyboard,
    read_storyboard,
)
from ttvcli.artifacts.video import new_video, read_sidecar, sidecar_path
from ttvcli.errors import ArtifactError, UsageError, WorkFailed
from ttvcli.workflows.step import SILENT, Plan, Progress

DEFAULTS = {"steps": 50, "guidance": 6.0, "guidance_mode": "constant", "sampler": "ddim"}
FRAMES_PER_SEGMENT = 48
_SHEET_FRAMES = 12


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
    seconds: float | None = field(default=None, metadata={"help": "length: a multiple of 3 s"})
    size: str | None = field(default=None, metadata={"help": "WIDTHxHEIGHT in pixels"})
    steps: int | None = field(default=None, metadata={"help": "denoising steps"})
    guidance: float | None = field(default=None, metadata={"help": "guidance scale; 1 is off"})
    guidance_mode: Literal["constant", "ramp", "legacy"] | None = field(
        default=None, metadata={"help": "guidance over the steps: constant, ramp or legacy"}
    )
    sampler: str | None = field(default=None, metadata={"help": "ddim, dpm++2m or dpm++2m-sde"})
    seed: int = field(default=42, metadata={"help": "seed of the noise"})
    dtype: Literal["fp32", "bf16", "fp16"] = field(
        default="fp32", metadata={"help": "arithmetic of the networks"}
    )
    crf: int = field(default=12, metadata={"help": "H.264 quality: 0 best, 51 worst"})
    keep_latents: bool = field(
        default=False, metadata={"help": "keep the latents beside the video"}
    )
    force: bool = field(default=False, metadata={"help": "replace a video of other settings"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, mps"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 lets torch choose"})

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.storyboard is None):
            raise UsageError(
                "give a prompt or --storyboard, not both"
                if self.prompt
                else "there is nothing to draw: no prompt and no --storyboard",
                fix='ttv sample "a red circle moves right" -o out.mp4',
            )
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise UsageError(f"--steps must be 1 to 1000, got {self.steps}")


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


@dataclass(frozen=True)
class Request:
    """A checked request: every setting has its value, every text fits."""

    config: SampleConfig
    folder: Path
    board: Storyboard
    width: int
    height: int
    frames: int
    fps: int
    tokens: int
    transformer: dict[str, Any]
    vae: dict[str, Any]
    about: dict[str, Any]
    warnings: list[str]

    @property
    def ratios(self) -> tuple[int, int]:
        """Pixels per latent: (frames, height and width)."""
        space = 2 ** (len(self.vae["block_out_channels"]) - 1)
        return int(self.vae.get("temporal_compression_ratio", 4)), space

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Frames, channels, height, width."""
        time, space = self.ratios
        frames = (self.frames - 1) // time + 1
        channels = int(self.vae["latent_channels"])
        return frames, channels, self.height // space, self.width // space

    def identity(self) -> dict[str, Any]:
        """Everything that decides the bytes of the video on one machine."""
        chosen = plain(self.config)
        for name in ("prompt", "storyboard", "out", "contact_sheet", "keep_latents", "force"):
            chosen.pop(name)
        chosen["model"] = model_hashes(self.folder)
        return {
            **chosen,
            "texts": self.board.prompts,
            "negatives": self.board.negatives,
            "size": f"{self.width}x{self.height}",
            "frames": self.frames,
            "fps": self.fps,
        }


def model_hashes(folder: Path) -> dict[str, str]:
    """Hash of each component of a model."""
    return {
        name: model_folder.component_hash(folder, name)
        for name in ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
    }


def check(config: SampleConfig) -> Request:
    """Settle every setting and refuse what cannot work; loads no weights.

    Raises:
        UsageError: sizes, lengths or settings that do not fit the model.
        ArtifactError: model or storyboard missing or broken, a text over the token budget.
    """
    from ttvcli import catalog

    folder = model_folder.resolve_model(config.model)
    transformer = model_folder.read_config(folder, "transformer")
    vae = model_folder.read_config(folder, "vae")
    about = model_folder.read_about(folder)
    preferred = {**DEFAULTS, **about.get("sample", {})}
    config = dataclasses.replace(
        config,
        **{k: preferred[k] for k in DEFAULTS if getattr(config, k) is None},
    )
    catalog.get("sampler", str(config.sampler))
    board = _storyboard(config)
    space = 2 ** (len(vae["block_out_channels"]) - 1)
    width, height = _size(config.size, transformer, space)
    request = Request(
        config=config,
        folder=folder,
        board=board,
        width=width,
        height=height,
        frames=FRAMES_PER_SEGMENT * len(board.segments) + 1,
        fps=int(about.get("fps", 16)),
        tokens=int(transformer.get("max_text_seq_length", 226)),
        transformer=transformer,
        vae=vae,
        about=about,
        warnings=_world_warnings(board, about),
    )
    _check_tokens(request)
    return request


def _storyboard(config: SampleConfig) -> Storyboard:
    if config.storyboard is not None:
        board = read_storyboard(config.storyboard)
        check_storyboard(board, seconds=config.seconds, where=str(config.storyboard))
        return board
    text = config.prompt or ""
    if text == "-":
        import sys

        text = sys.stdin.read()
    text = text.strip()
    if not text:
        raise UsageError("the prompt is empty", fix="say what should be seen")
    seconds = SEGMENT_SECONDS if config.seconds is None else config.seconds
    count = seconds / SEGMENT_SECONDS
    if count < 1 or count != int(count):
        raise UsageError(
            f"--seconds must be a multiple of {SEGMENT_SECONDS}, got {seconds:g}",
            fix=f"--seconds {max(SEGMENT_SECONDS, round(count) * SEGMENT_SECONDS)}",
        )
    return Storyboard(tuple(Segment(text, config.negative) for _ in range(int(count))))


def _size(size: str | None, transformer: dict[str, Any], space: int) -> tuple[int, int]:
    if size is None:
        return transformer["sample_width"] * space, transformer["sample_height"] * space
    step = space * int(transformer["patch_size"])
    try:
        width, height = (int(part) for part in size.lower().split("x"))
    except ValueError:
        raise UsageError(f"--size must be WIDTHxHEIGHT, got {size!r}", fix="--size 64x64") from None
    if width < step or height < step or width % step or height % step:
        raise UsageError(
            f"--size {size}: both sides must be multiples of {step}",
            fix=f"--size {max(step, width // step * step)}x{max(step, height // step * step)}",
        )
    return width, height


def _world_warnings(board: Storyboard, about: dict[str, Any]) -> list[str]:
    """For a model of the tiny world: which texts say more than it knows."""
    if about.get("world") != "tiny":
        return []
    from ttvcli.core.world.grammar import parse, unknown_words
    from ttvcli.core.world.vocabulary import COLOURS, MOTIONS, SHAPES

    strange = [s.text for s in board.segments if parse(s.text) is None]
    if not strange:
        return []
    words = unknown_words(strange[0])
    about_words = f" (unknown words: {', '.join(words)})" if words else ""
    return [
        f"this prompt is outside the tiny world{about_words}; the video will not show it. "
        f"The built-in model draws {', '.join(SHAPES)} in {', '.join(COLOURS)} with the motions "
        f"{', '.join(MOTIONS)}. For anything else: --model path/to/CogVideoX-5b"
    ]


def _check_tokens(request: Request) -> None:
    from ttvcli.core.models.text.tokenizer import SentencePieceTokenizer

    path = request.folder / "tokenizer" / "spiece.model"
    if not path.is_file():
        raise ArtifactError("the model has no tokenizer", where=str(path))
    tokenizer = SentencePieceTokenizer(path)
    if request.warnings:  # text the model does not understand is cut, not refused
        return
    where = str(request.config.storyboard or "the prompt")
    check_storyboard(
        request.board, count_tokens=tokenizer.count, max_tokens=request.tokens, where=where
    )


def plan(config: SampleConfig) -> Plan:
    """Say what would be made and what it takes; loads no weights, writes nothing."""
    request = check(config)
    frames, channels, height, width = request.latent_shape
    sizes = {
        name: sum(p.stat().st_size for p in model_folder.component_files(request.folder, name))
        for name in ("text_encoder", "transformer", "vae")
    }
    chosen = request.config
    return Plan(
        command="sample",
        items=[
            ("model", str(request.folder)),
            ("video", f"{request.width}x{request.height}, {request.frames} frames"),
            ("seconds", request.board.seconds),
            ("latents", f"[{frames}, {channels}, {height}, {width}]"),
            ("sampler", f"{chosen.sampler}, {chosen.steps} steps"),
            ("guidance", f"{chosen.guidance:g} ({chosen.guidance_mode})"),
            ("seed", chosen.seed),
            ("out", str(chosen.out)),
            *[(f"segment {i}", s.text) for i, s in enumerate(request.board.segments, 1)],
        ],
        bytes={f"{name} weights on disk": size for name, size in sizes.items()},
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
    identity = request.identity()
    if _is_done(request, identity):
        progress.note(f"{request.config.out} is there already, with these settings")
        return _result(request, read_sidecar(request.config.out).get("sampling", {}))
    from ttvcli.workflows.generate import decode_to_video, generate_latents

    stored = request.config.out.with_suffix(".latents.safetensors")
    latents = _stored_latents(stored, identity)
    if latents is None:
        latents = generate_latents([request], progress)[0]
        if not bool(latents.isfinite().all()):
            raise WorkFailed(
                "the latents are not finite",
                where=str(request.folder),
                fix="use --dtype fp32 (or bf16; fp16 overflows in the 5B models)",
            )
        _store_latents(stored, latents, request, identity)
    with new_video(request.config.out, identity, model_hashes(request.folder)) as (path, facts):
        sheet = decode_to_video(request, latents, path, progress, _SHEET_FRAMES)
        facts["sampling"] = {"prompts": request.board.prompts, "frames": request.frames}
    if request.config.contact_sheet is not None:
        from ttvcli.artifacts.atomic import write_bytes

        write_bytes(request.config.contact_sheet, sheet)
    if not request.config.keep_latents:
        stored.unlink(missing_ok=True)
    return _result(request, facts["sampling"])


def _is_done(request: Request, identity: dict[str, Any]) -> bool:
    config = request.config
    if not config.out.exists() or config.force:
        return False
    old = read_sidecar(config.out).get("settings_hash") if _has_sidecar(config.out) else None
    new = settings_hash(identity)
    if old != new:
        raise UsageError(
            f"the output exists, made with settings {old or 'unknown'}, now {new}",
            where=str(config.out),
            fix="choose another -o, or --force to replace it",
        )
    sheet = config.contact_sheet
    return sheet is None or sheet.exists()


def _has_sidecar(video: Path) -> bool:
    return sidecar_path(video).is_file()


def _result(request: Request, facts: dict[str, Any]) -> SampleResult:
    config = request.config
    paths = [config.out]
    if config.contact_sheet is not None:
        paths.append(config.contact_sheet)
    return SampleResult(config.out, paths, facts)


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
        "vae_hash": model_folder.component_hash(request.folder, "vae"),
        "fps": request.fps,
        "width": request.width,
        "height": request.height,
        "frames": request.frames,
        "source_sha256": "",
    }
    certain = latents.new_full(latents.shape, -30.0)  # the log-variance of no uncertainty
    write_artifact(path, LATENTS, {"mean": latents, "logvar": certain}, about)
