"""What `ttv sample` was asked for, settled: every setting has its value and every text fits.

Everything that can be refused is refused here, from headers and configurations alone.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli import catalog
from ttvcli.artifacts import model_folder
from ttvcli.artifacts.schema import plain, settings_hash
from ttvcli.artifacts.storyboard import (
    SEGMENT_SECONDS,
    Segment,
    Storyboard,
    check_storyboard,
    read_storyboard,
)
from ttvcli.errors import ArtifactError, UsageError, nearest

if TYPE_CHECKING:
    from ttvcli.workflows.sample import SampleConfig

DEFAULTS = {"steps": 50, "guidance": 6.0, "guidance_mode": "constant", "sampler": "ddim"}
FRAMES_PER_SEGMENT = 48
LONGEST_SECONDS = 600  # far beyond what any model was trained for; a slip of the keyboard above
# Settings that decide where a video goes or how fast it is made, not what it shows.
_NOT_OF_THE_VIDEO = (
    *("out", "contact_sheet", "keep_latents", "force"),
    *("device", "threads", "model_hash"),
    *("offload", "vram_limit"),
)


@dataclass(frozen=True)
class Request:
    """A checked request: every setting has its value, every text fits."""

    config: "SampleConfig"
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
    def hashes(self) -> dict[str, str]:
        """Hash of each component of the model; reads all of its files, once."""
        return model_hashes(self.folder)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Frames, channels, height, width."""
        time, space = compression(self.vae)
        frames = (self.frames - 1) // time + 1
        channels = int(self.vae["latent_channels"])
        return frames, channels, self.height // space, self.width // space

    def identity(self) -> dict[str, Any]:
        """Everything that decides what the video shows."""
        chosen = self._settings()
        for name in ("prompt", "storyboard", "seconds"):
            chosen.pop(name)
        return {
            **chosen,
            "model": self.hashes,
            "texts": self.board.prompts,
            "negatives": self.board.negatives,
            "size": f"{self.width}x{self.height}",
            "frames": self.frames,
            "fps": self.fps,
        }

    def again(self) -> dict[str, Any]:
        """The settings that make this video once more, for its sidecar.

        A text that holds for the whole video is among them; a storyboard is kept beside them.
        """
        built_in = self.config.model in model_folder.builtin_names()
        settings = self._settings()
        settings.pop("storyboard")
        if self.config.storyboard is None:
            settings |= {"prompt": self.board.segments[0].text, "seconds": self.board.seconds}
        settings |= {
            "size": f"{self.width}x{self.height}",
            "model": self.config.model if built_in else str(self.folder.resolve()),
            "model_hash": settings_hash(self.hashes),
        }
        return {name: value for name, value in settings.items() if value is not None}

    def _settings(self) -> dict[str, Any]:
        values = plain(self.config)
        return {name: value for name, value in values.items() if name not in _NOT_OF_THE_VIDEO}


def model_hashes(folder: Path) -> dict[str, str]:
    """Hash of each component of a model."""
    return {
        name: model_folder.component_hash(folder, name)
        for name in ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
    }


def compression(vae: dict[str, Any]) -> tuple[int, int]:
    """Pixels per latent of a VAE's configuration: (frames, height and width)."""
    return int(vae.get("temporal_compression_ratio", 4)), 2 ** (len(vae["block_out_channels"]) - 1)


def check(config: "SampleConfig") -> Request:
    """Settle every setting and refuse what cannot work; loads no weights.

    Raises:
        UsageError: sizes, lengths or settings that do not fit the model.
        ArtifactError: model or storyboard missing or broken, another model than `model_hash`
            names, a text over the token budget.
    """
    folder = model_folder.resolve_model(config.model)
    transformer = model_folder.read_config(folder, "transformer")
    vae = model_folder.read_config(folder, "vae")
    about = model_folder.read_about(folder)
    preferred = {**DEFAULTS, **about.get("sample", {})}
    config = dataclasses.replace(
        config, **{k: preferred[k] for k in DEFAULTS if getattr(config, k) is None}
    )
    _check_sampler(str(config.sampler))
    _check_model(folder, config.model_hash)
    board = _storyboard(config)
    width, height = _size(config.size, transformer, compression(vae)[1])
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
        warnings=[],
    )
    _check_fit(request)
    # A text that the model does not understand anyway is cut with a warning, not refused.
    strange = _world_warnings(board, about)
    return dataclasses.replace(
        request, warnings=strange + _check_tokens(request, cut=bool(strange))
    )


def _check_sampler(name: str) -> None:
    if name not in catalog.SAMPLERS:  # asked here without importing it, which imports torch
        raise UsageError(f"there is no sampler {name!r}", fix=nearest(name, catalog.SAMPLERS))


def _check_model(folder: Path, expected: str) -> None:
    if expected and settings_hash(model_hashes(folder)) != expected:
        found = settings_hash(model_hashes(folder))
        raise ArtifactError(
            f"stale: the model is {found}, the video was made with {expected}",
            where=str(folder),
            fix='name the model it was made with, or take this one with --set model_hash=""',
        )


def _storyboard(config: "SampleConfig") -> Storyboard:
    if config.storyboard is not None:
        board = read_storyboard(config.storyboard)
        check_storyboard(board, seconds=config.seconds, where=str(config.storyboard))
        segments = (
            dataclasses.replace(segment, negative=segment.negative or config.negative)
            for segment in board.segments
        )
        return Storyboard(tuple(segments))
    text = config.prompt or ""
    if text == "-":
        text = _typed()
    text = text.strip()
    if not text:
        raise UsageError(
            "the prompt is empty", fix='say what should be seen: "a red circle moves right"'
        )
    seconds = SEGMENT_SECONDS if config.seconds is None else config.seconds
    return Storyboard((Segment(text, config.negative),) * _segments(seconds))


def _typed() -> str:
    import sys

    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"a prompt is UTF-8 text: {error}", where="standard input") from None


def _segments(seconds: float) -> int:
    """How many segments a length has."""
    count = seconds / SEGMENT_SECONDS
    if not math.isfinite(count) or count < 1 or count != int(count):
        near = max(1, round(count)) if math.isfinite(count) else 1
        raise UsageError(
            f"--seconds must be a multiple of {SEGMENT_SECONDS}, got {seconds:g}",
            fix=f"--seconds {near * SEGMENT_SECONDS}",
        )
    if seconds > LONGEST_SECONDS:
        raise UsageError(
            f"--seconds must be at most {LONGEST_SECONDS}, got {seconds:g}",
            fix="models are trained for 3 to 63 s",
        )
    return int(count)


def _size(size: str | None, transformer: dict[str, Any], space: int) -> tuple[int, int]:
    if size is None:
        default = (transformer.get("sample_width", 90), transformer.get("sample_height", 60))
        return default[0] * space, default[1] * space
    step = space * int(transformer.get("patch_size", 2))
    try:
        width, height = (int(part) for part in size.lower().replace("×", "x").split("x"))
    except ValueError:
        raise UsageError(f"--size must be WIDTHxHEIGHT, got {size!r}", fix="--size 64x64") from None
    if width < step or height < step or width % step or height % step:
        raise UsageError(
            f"--size {size}: both sides must be multiples of {step}",
            fix=f"--size {max(step, width // step * step)}x{max(step, height // step * step)}",
        )
    return width, height


def _check_fit(request: Request) -> None:
    """Refuse what the network would refuse, before its weights are read."""
    transformer = request.transformer
    frames, channels, height, width = request.latent_shape
    where = str(request.folder / "transformer")
    wanted = int(transformer.get("in_channels", 16))
    if wanted != channels:
        raise ArtifactError(
            f"the transformer reads {wanted} channels, the VAE makes {channels}: "
            "an image-to-video model, or parts of two models",
            where=where,
            fix="name a text-to-video model with --model",
        )
    if frames % (transformer.get("patch_size_t") or 1):
        raise ArtifactError(
            f"{frames} latent frames of 3 s segments do not divide into patches of "
            f"{transformer['patch_size_t']} frames",
            where=where,
            fix="name a model without patches in time, such as CogVideoX-2b or -5b",
        )
    if transformer.get("use_learned_positional_embeddings"):
        trained = (transformer.get("sample_width", 90), transformer.get("sample_height", 60))
        if (width, height) != trained or len(request.board.segments) > 1:
            space = compression(request.vae)[1]
            raise UsageError(
                "this model knows one size and 3 s only (it has a learned table of positions)",
                where=where,
                fix=f"--size {trained[0] * space}x{trained[1] * space} --seconds 3",
            )


def _world_warnings(board: Storyboard, about: dict[str, Any]) -> list[str]:
    """For a model of the tiny world: which texts say more than it knows."""
    if about.get("world") != "tiny":
        return []
    from ttvcli.core.world.grammar import parse, unknown_words
    from ttvcli.core.world.vocabulary import COLOURS, MOTIONS, SHAPES

    strange = [(i, s.text) for i, s in enumerate(board.segments, 1) if parse(s.text) is None]
    if not strange:
        return []
    number, text = strange[0]
    which = "this prompt" if len({s.text for s in board.segments}) == 1 else f"segment {number}"
    words = unknown_words(text)
    about_words = f" (unknown words: {', '.join(words)})" if words else ""
    return [
        f"{which} is outside the tiny world{about_words}; the video will not show it. "
        f"This model draws {', '.join(SHAPES)} in {', '.join(COLOURS)} with the motions "
        f'{", ".join(MOTIONS)}, such as "a blue star stays still on a black background". '
        "For anything else: --model path/to/CogVideoX-5b"
    ]


def _check_tokens(request: Request, *, cut: bool) -> list[str]:
    """Refuse a text over the token budget or, with `cut`, return the warning that it is cut."""
    from ttvcli.workflows.components import load_tokenizer

    tokenizer = load_tokenizer(request.folder)
    where = str(request.config.storyboard or "the prompt")
    try:
        check_storyboard(
            request.board, count_tokens=tokenizer.count, max_tokens=request.tokens, where=where
        )
    except ArtifactError as error:
        if cut:
            return [f"{error.what}: the rest is cut off"]
        raise
    return []
