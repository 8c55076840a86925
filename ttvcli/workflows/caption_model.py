"""What `prep caption` asks for captions: the interface, the choice, and the tiny world's own."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from ttvcli.core.captions.check import CaptionRules
from ttvcli.core.video.segment_frames import FrameChoice
from ttvcli.core.world.scene import FPS
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows.decode_pool import on_gpu, worker_count

TINY_WORLD = "tiny-world"
FAILED = "captioner_failed"  # the reason when there is no answer at all
URL_STARTS = ("https://", "http://")


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Settings of `ttv prep caption`; the field defaults are the defaults of the command."""

    source: str = field(metadata={"help": "folder of clips, a manifest, a video, or - for stdin"})
    out: Path | None = field(
        default=None,
        metadata={"help": "folder for the manifest; none writes it beside the clips"},
    )
    captioner: str = field(
        default="",
        metadata={
            "help": "who writes captions: a folder of a vision-language model, the address of an "
            "OpenAI-compatible server, tiny-world; empty for nobody"
        },
    )
    captioner_model: str = field(
        default="", metadata={"help": "name of the model on the server; empty takes its first"}
    )
    from_file: Path | None = field(
        default=None, metadata={"help": "table of captions to take: .jsonl, .json, .csv, .tsv"}
    )
    fill_in: Path | None = field(
        default=None,
        metadata={"help": "table to fill in by hand: .jsonl or .csv; none is captions.todo.jsonl"},
    )
    sheets: bool = field(
        default=True, metadata={"help": "draw a contact sheet of each segment without a caption"}
    )
    style: Literal["paragraph", "sentence"] = field(
        default="paragraph",
        metadata={"help": "paragraph, as the method was trained on, or sentence"},
    )
    instruction: Path | None = field(
        default=None,
        metadata={"help": "text file with another instruction; {frames}, {seconds} are filled in"},
    )
    view_frames: int = field(default=8, metadata={"help": "frames of a segment that are shown"})
    view_size: int = field(default=512, metadata={"help": "pixels of their longer side at most"})
    max_tokens: int = field(
        default=320, metadata={"help": "length of an answer; 0 leaves it to the server"}
    )
    concurrency: int = field(default=4, metadata={"help": "requests to a server at a time"})
    retries: int = field(
        default=5, metadata={"help": "further tries of a request, with growing pauses"}
    )
    timeout: float = field(default=120.0, metadata={"help": "seconds to wait for an answer"})
    key_variable: str = field(
        default="CAPTIONER_API_KEY",
        metadata={"help": "environment variable with the key of the server"},
    )
    request: str = field(
        default="",
        metadata={"help": "JSON object merged into each request; null takes an entry out"},
    )
    min_words: int = field(
        default=CaptionRules.min_words, metadata={"help": "shorter captions are made again"}
    )
    min_confidence: float = field(
        default=CaptionRules.min_confidence,
        metadata={"help": "from which probability on a caption counts as not English"},
    )
    repeats: int = field(
        default=CaptionRules.repeats,
        metadata={"help": "videos with one text that make it boiler-plate; 0 allows any number"},
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, mps"})
    workers: int = field(
        default=0, metadata={"help": "processes that decode ahead; 0 suits the machine"}
    )
    patience: float = field(
        default=120.0, metadata={"help": "seconds without a frame after which a decoder is stuck"}
    )
    force: bool = field(
        default=False, metadata={"help": "replace captions that are good enough, too"}
    )
    limit: int = field(default=0, metadata={"help": "take only the first N videos; 0 takes all"})

    def __post_init__(self) -> None:
        if not 1 <= self.view_frames <= 256 or not 16 <= self.view_size <= 4096:
            raise ValueError(
                f"view_frames is 1 to 256 and view_size 16 to 4096, got {self.view_frames} "
                f"and {self.view_size}"
            )
        if self.concurrency < 1 or self.retries < 0 or self.timeout <= 0:
            raise ValueError(
                f"concurrency {self.concurrency} starts at 1, retries {self.retries} at 0, "
                f"timeout {self.timeout} above 0"
            )
        if min(self.limit, self.min_words, self.repeats, self.max_tokens, self.workers) < 0:
            raise ValueError("limit, min_words, repeats, max_tokens and workers start at 0")
        if self.patience <= 0:
            raise ValueError(f"patience must be positive, got {self.patience}")
        if self.fill_in is not None and self.fill_in.suffix.lower() not in (".jsonl", ".csv"):
            raise ValueError(f"fill_in ends in .jsonl or .csv, got {self.fill_in}")

    @property
    def decoders(self) -> int:
        """Processes that decode: a captioner that computes on these CPU cores needs some, too."""
        elsewhere = not self.captioner or self.captioner.startswith(URL_STARTS)
        gpu = self.captioner != TINY_WORLD and on_gpu(self.device)
        return self.workers or worker_count(on_gpu=elsewhere or gpu)

    def rules(self) -> CaptionRules:
        """When a caption is not good enough."""
        return CaptionRules(
            min_words=self.min_words, min_confidence=self.min_confidence, repeats=self.repeats
        )


@dataclass(frozen=True)
class View:
    """What a captioner gets to see of a segment: uint8 RGB `[T, H, W, 3]`."""

    name: str  # of the video and the segment
    seconds: float
    frames: np.ndarray


class NoCaption(Exception):
    """There is no caption for this segment; others may work. `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Captioner(Protocol):
    """Writes captions."""

    source: str  # recorded with each of them
    settings: dict[str, object]  # what its answers depend on
    choice: FrameChoice  # what it wants to see
    concurrency: int  # how many may be asked for at a time

    def __call__(self, view: View) -> str:
        """Return the caption of a segment; NoCaption if there is none, TtvError to give up."""

    def stop(self) -> None:
        """Be quick from now on: the run ends early, and waits for what has been asked."""


def load_captioner(config: CaptionConfig) -> Captioner:
    """Return the captioner that is asked for; loads its weights, or finds its server.

    Raises:
        UsageError, ArtifactError: there is no such captioner.
    """
    check_captioner(config)
    if config.captioner == TINY_WORLD:
        return TinyWorldCaptioner()
    if config.captioner.startswith(URL_STARTS):
        from ttvcli.workflows.caption_endpoint import EndpointCaptioner

        return EndpointCaptioner(config)
    from ttvcli.workflows.caption_transformers import TransformersCaptioner

    return TransformersCaptioner(config)


def check_captioner(config: CaptionConfig) -> None:
    """Refuse a captioner that cannot be one; looks at files only."""
    name = config.captioner
    if not name or name == TINY_WORLD or name.startswith(URL_STARTS):
        return
    if not Path(name).is_dir():
        raise UsageError(
            f"there is no captioner {name!r}",
            fix=f"a folder with a model, an https:// address, or {TINY_WORLD}",
        )
    if not (Path(name) / "config.json").is_file():
        raise ArtifactError(
            "no config.json: not a model of transformers",
            where=name,
            fix="give the folder of an image-text-to-text model as downloaded",
        )


def read_instruction(config: CaptionConfig) -> str:
    """Return the user's own instruction, "" for none."""
    if config.instruction is None:
        return ""
    try:
        return config.instruction.read_text("utf-8-sig").strip()
    except (OSError, UnicodeError) as error:
        raise ArtifactError(f"cannot be read: {error}", where=str(config.instruction)) from error


class TinyWorldCaptioner:
    """Captions clips of the tiny world exactly, from their frames alone."""

    source = TINY_WORLD
    settings: dict[str, object] = {"captioner": TINY_WORLD}
    choice = FrameChoice(fps=FPS)
    concurrency = 1

    def __call__(self, view: View) -> str:
        """Name what is seen; the wording depends on the frames, so it is always the same."""
        from ttvcli.core.world.observe import observe

        seen = observe(view.frames)
        if seen is None:
            raise NoCaption("not_tiny_world", "the segment does not show the tiny world")
        digest = hashlib.sha256(view.frames.tobytes()).digest()
        return seen.caption(np.random.default_rng(list(digest[:16])))

    def stop(self) -> None:
        """Nothing to do: it asks nobody."""
