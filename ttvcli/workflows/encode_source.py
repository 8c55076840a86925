"""One encoder for many sources: event streams in, latents files and their records out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.atomic import sha256_file
from ttvcli.artifacts.latents import save_latents
from ttvcli.artifacts.schema import settings_hash
from ttvcli.core.video.clip_stream import Begin, Broken, End, Frames
from ttvcli.core.video.resample import enlarged
from ttvcli.workflows.decode_pool import Stream
from ttvcli.workflows.encode_job import Job, plain_number
from ttvcli.workflows.encode_records import Clip

Encoder = Callable[[Any], tuple[Any, Any]]


@dataclass
class SourceState:
    """How far a source is.

    A clip is recorded when it is encoded, but the last one only when the source has turned out
    sound to its end: a source whose records are complete is thus always a sound one.
    """

    digest: str
    old: dict[int, Clip]  # by number: made by an earlier run
    begin: Begin | None = None
    new: dict[int, Clip] = field(default_factory=dict)
    held_back: Clip | None = None
    broken: Broken | None = None

    @property
    def clips(self) -> list[Clip]:
        """All clips, in order."""
        found = self.old | self.new
        return [found[number] for number in sorted(found)]


@dataclass(frozen=True)
class Hooks:
    """What is told while sources are encoded.

    Attributes:
        add: of every clip that may be recorded, with its source.
        void: of a source whose clips so far, old ones too, are worth nothing.
        advance: how many frames were encoded.
    """

    add: Callable[[SourceState, Clip], None]
    void: Callable[[SourceState], None]
    advance: Callable[[int], None]


class SourceEncoder:
    """Encodes the clips of sources as their frames come.

    Args:
        job: what to encode, and how.
        folder: where latents files go.
        load: makes the encoder; called for the first clip.
        hooks: told of what becomes of them.
    """

    def __init__(
        self, job: Job, folder: Path, load: Callable[[Job], Encoder], hooks: Hooks
    ) -> None:
        self.job = job
        self.folder = folder
        self.hooks = hooks
        self._load = load
        self._encoder: Encoder | None = None
        self._settings = job.settings()
        self._hash = settings_hash(self._settings)

    def step(self, state: SourceState, stream: Stream) -> None:
        """Take one event of a source, or all those of one clip."""
        event = stream.take()
        if isinstance(event, Frames):
            try:
                self._clip(state, event, stream)
                return
            except _Interrupt as interrupt:
                event = interrupt.event
        if isinstance(event, Begin):
            if state.begin is not None:
                self._discard(state)
            state.begin = event
        elif isinstance(event, End):
            self._end(state)
        elif isinstance(event, Broken):
            state.broken = event
            self._discard(state)

    def _clip(self, state: SourceState, first: Frames, stream: Stream) -> None:
        assert state.begin is not None
        if self._encoder is None:
            self._encoder = self._load(self.job)
        number = first.clip
        mean, logvar = self._encoder(self._chunks(first, stream))
        clip = self._saved(state, number, mean, logvar)
        state.new[number] = clip
        wanted = [n for n in range(state.begin.cut.clips) if n not in state.old]
        if number == wanted[-1]:
            state.held_back = clip
        else:
            self.hooks.add(state, clip)

    def _chunks(self, first: Frames, stream: Stream) -> Iterator[Any]:
        left, event = self.job.config.frames, first
        while True:
            yield event.pictures
            self.hooks.advance(len(event.pictures))
            left -= len(event.pictures)
            if not left:
                return
            event = stream.take()
            if not isinstance(event, Frames):
                raise _Interrupt(event)

    def _saved(self, state: SourceState, number: int, mean: Any, logvar: Any) -> Clip:
        assert state.begin is not None
        info, cut, job = state.begin.info, state.begin.cut, self.job
        name = state.digest[:16] if cut.clips == 1 else f"{state.digest[:16]}-{number:04d}"
        path = self.folder / f"{name}.safetensors"
        start = round(float(number * job.config.frames / job.fps), 6)
        about = {
            "settings_hash": self._hash,
            "vae": model_folder.COMPONENTS["vae"][1],
            "vae_hash": self._settings["vae_hash"],
            "fps": plain_number(job.fps),
            "width": job.size[0],
            "height": job.size[1],
            "frames": job.config.frames,
            "start": start,
            "source_sha256": state.digest,
        }
        save_latents(path, mean, logvar, about)
        notes = list(info.notes)
        factor = enlarged((info.width, info.height), job.size)
        if factor > 1:
            notes.append(f"enlarged {factor:.2f} times")
        return Clip(
            id=name,
            path=path.name,
            sha256=sha256_file(path),
            width=job.size[0],
            height=job.size[1],
            fps=plain_number(job.fps),
            frames=job.config.frames,
            source_sha256=state.digest,
            clip=number,
            clips=cut.clips,
            start=start,
            held=cut.held if number == cut.clips - 1 else 0,
            dropped=cut.dropped,
            notes=notes,
        )

    def _end(self, state: SourceState) -> None:
        if state.held_back is not None:
            self.hooks.add(state, state.held_back)
        state.held_back = None

    def _discard(self, state: SourceState) -> None:
        """Delete what was made of a source that turned out to be another than it seemed."""
        clips = state.clips
        self.hooks.void(state)
        for clip in clips:
            (self.folder / clip.path).unlink(missing_ok=True)
        state.old, state.new, state.held_back = {}, {}, None


class _Interrupt(Exception):
    """A clip ends before its last frame: the event that came instead."""

    def __init__(self, event: Any) -> None:
        super().__init__("the frames of a clip ended early")
        self.event = event
