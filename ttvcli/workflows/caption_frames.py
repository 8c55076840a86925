"""What `prep caption` has to see of its videos, decoded ahead by processes beside this one.

A decoder that crashes or hangs costs its video. Frames come in the order they are asked for, so
that a captioner is asked for the same in every run.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ttvcli.core.video.clip_stream import Broken, Frames
from ttvcli.core.video.decode import open_video, probe
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.segment_frames import FrameChoice, SegmentFrames, read_segments
from ttvcli.workflows.caption_model import CaptionConfig
from ttvcli.workflows.decode_pool import open_decoder
from ttvcli.workflows.decode_worker import still_alive
from ttvcli.workflows.step import Progress

LOST = ("crashed", "timeout")  # reasons for which no decoder should meet a video again in this run

_AHEAD_BYTES = 16 << 20  # of each process; eight frames of 512x288 have 3.5 MB

Spans = list[tuple[float, float]]
Shown = Callable[[int], Iterator[SegmentFrames]]


@dataclass(frozen=True)
class LengthTask:
    """A video whose length is to be told: seconds, as stated or else as decoded."""

    path: Path
    patience: float

    def events(self) -> Iterator[float | Broken]:
        """Yield one event."""
        try:
            yield probe(self.path).duration or self._decoded()
        except UnreadableVideo as error:
            yield Broken(error.reason_code, error.detail)

    def _decoded(self) -> float:
        end = 0.0
        with open_video(self.path) as video:
            for frame in video.frames():
                end = float(frame.end)
                still_alive(self.patience)
        return end


@dataclass(frozen=True)
class ViewTask:
    """Spans of a video that are to be seen: `Frames` of each, whose `clip` is the span's number."""

    path: Path
    spans: Spans
    choice: FrameChoice
    patience: float

    def events(self) -> Iterator[Frames | Broken]:
        """Yield the frames of each span as `read_segments` does."""
        alive = partial(still_alive, self.patience)
        try:
            for seen in read_segments(self.path, self.spans, self.choice, alive):
                yield Frames(seen.number, seen.frames)
        except UnreadableVideo as error:
            yield Broken(error.reason_code, error.detail)


def lengths(
    paths: Sequence[Path], config: CaptionConfig, progress: Progress
) -> list[float | UnreadableVideo]:
    """Return how many seconds each video lasts, or why that cannot be told."""
    found: dict[int, float | UnreadableVideo] = {}
    tasks = [LengthTask(path, config.patience) for path in paths]
    if tasks:
        progress.start("reading", len(tasks), "videos")
    with open_decoder(tasks, config.decoders) as decoder:
        while (stream := decoder.ready()) is not None:
            event = stream.take()
            if event is None:
                progress.advance()
            elif isinstance(event, Broken):
                found[stream.index] = UnreadableVideo(event.reason_code, event.detail)
            else:
                found[stream.index] = event
    if tasks:
        progress.finish()
    return [found[index] for index in range(len(paths))]


@contextmanager
def read_ahead(
    asked: Sequence[tuple[Path, Spans]], choice: FrameChoice, config: CaptionConfig
) -> Iterator[Shown]:
    """Give a function that is called with 0, 1, 2, ... and yields what `read_segments` would.

    Args:
        asked: videos, and the spans of each that are to be seen.
        choice: of frames.
        config: how many processes, and how long they may take for a frame.
    """
    tasks = [ViewTask(path, spans, choice, config.patience) for path, spans in asked]
    with open_decoder(tasks, config.decoders, _AHEAD_BYTES) as decoder:

        def shown(index: int) -> Iterator[SegmentFrames]:
            stream, broken = decoder.stream(index), None
            while (event := stream.take()) is not None:
                if isinstance(event, Broken):
                    broken = UnreadableVideo(event.reason_code, event.detail)
                else:
                    times = choice.moments(*asked[index][1][event.clip])
                    yield SegmentFrames(event.clip, event.pictures, times)
            if broken is not None:
                raise broken

        yield shown
