"""Streaming decoder for videos of unknown origin, on PyAV with one thread.

A file is never trusted: only regular files are opened, only as containers that cannot name other
files, frames above a size limit are refused before they are decoded, and damage is an error. Every
failure is an `UnreadableVideo` with a reason code. Frames come one by one; nothing is held.
"""

import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.error import FFmpegError

from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.forecast import (
    DEFAULT_PERIOD,
    FASTEST,
    SLOWEST,
    WHOLE,
    forecast,
    rewound,
    stated_duration,
    stated_rate,
)
from ttvcli.core.video.picture import PictureReader
from ttvcli.core.video.timeline import TimedFrame, repaired_times
from ttvcli.errors import counted

if TYPE_CHECKING:
    import numpy as np

MAX_PIXELS = 8192 * 8192  # 8K video is half of it
# Demuxers that read one file and nothing else: playlists (hls, dash, concat) are left out.
FORMATS = (
    "mov,matroska,webm,avi,gif,mpeg,mpegts,mpegvideo,m4v,h264,hevc,ogg,flv,asf,ivf,"
    "obu,mxf,dv,nut,rm,yuv4mpegpipe,mp3,wav,flac,aac"
)
_MOST_STREAMS = 64
_MOST_ERRORS = 100  # a demuxer may fail for ever
_MAGIC = ((4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (0, b"\x1aE\xdf\xa3"), (0, b"GIF8"))


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about itself; sizes in pixels as shown (rotated, square pixels)."""

    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int  # degrees, counter-clockwise, already accounted for in width and height
    sample_aspect: Fraction  # width of a stored pixel over its height
    fps: Fraction | None  # average, as stated
    duration: float | None  # seconds, as stated; `scan` measures it
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scan:
    """What decoding the whole file showed."""

    info: VideoInfo
    frames: int
    duration: Fraction  # seconds, from the start of the first frame to the end of the last


class Video:
    """An open video: `info`, then `frames()` once. Made by `open_video`."""

    def __init__(
        self,
        container: Any,
        stream: Any,
        name: str,
        packets: Iterator[Any],
        foretold: Fraction | None,
    ) -> None:
        self._container = container
        self._stream = stream
        self._packets = packets
        self.foretold = foretold  # seconds that it will last, if that was asked for and can be told
        self._errors = 0
        self.video_bytes = 0  # of the packets that were decoded so far
        self._recovered = False  # a good packet came after an undecodable one
        self._pictures = self._decode()
        self._first: av.VideoFrame | None = next(self._pictures, None)
        if self._first is None:
            reason = "corrupt" if self._errors else "truncated"
            raise UnreadableVideo(reason, f"no frame could be decoded from {name}")
        self.info = _describe(container, stream, self._first)
        self.picture_reader = PictureReader(self.info.sample_aspect)

    def frames(self) -> Generator[TimedFrame[av.VideoFrame], None, None]:
        """Yield every frame in presentation order with repaired times.

        Raises:
            UnreadableVideo: corrupt or truncated; raised where the damage is found, when the frames
                before it have already been seen. `scan` finds it beforehand.
        """
        rate = self.info.fps
        period = 1 / rate if rate else DEFAULT_PERIOD
        frame: TimedFrame[av.VideoFrame] | None = None
        for frame in repaired_times(self._all(), period):
            if frame.picture.is_corrupt:
                raise UnreadableVideo("corrupt", f"a damaged frame at {frame.seconds:.2f} s")
            if self._recovered:
                raise UnreadableVideo("corrupt", f"undecodable data before {frame.seconds:.2f} s")
            yield frame
        stated, end = self.info.duration, frame.end if frame is not None else Fraction(0)
        short = stated is not None and end < Fraction(stated) * WHOLE
        if self._errors or short:
            of = f" of {stated:.2f} s" if stated is not None else ""
            raise UnreadableVideo("truncated", f"decoding stops at {float(end):.2f} s{of}")

    @property
    def capture_fps(self) -> float | None:
        """The rate a phone recorded slow motion at, where its tags say so."""
        tags = {**self._container.metadata, **self._stream.metadata}
        with suppress(KeyError, ValueError):
            rate = float(tags["com.android.capture.fps"])
            return rate if SLOWEST <= rate <= FASTEST else None
        return None

    def _all(self) -> Iterator[av.VideoFrame]:
        if self._first is None:
            raise ValueError("the frames of a video can be read once")
        first, self._first = self._first, None
        yield first
        yield from self._pictures

    def _decode(self) -> Iterator[av.VideoFrame]:
        # Packets are decoded one by one, so that an error tells whether good frames follow it.
        while True:
            try:
                packet = next(self._packets, None)
                if packet is None:
                    return
                self.video_bytes += packet.size
                pictures = packet.decode()
            except av.error.EOFError:
                return
            except FFmpegError:
                self._errors += 1
                if self._errors > _MOST_ERRORS:
                    return
                continue
            # The empty packet at the end only brings out frames that were held back.
            self._recovered |= self._errors > 0 and packet.size > 0
            yield from pictures


@contextmanager
def open_video(path: str | Path, *, foretell: bool = False) -> Iterator[Video]:
    """Open a file and decode its first frame.

    With `foretell`, its packets are looked at before: `Video.foretold` tells how long it will last.

    Raises:
        UnreadableVideo: the file is not one that can be used; see `errors.REASONS`.
    """
    path = Path(path)
    foretold = None
    if foretell:
        with _open_stream(path) as (container, stream):
            foretold, first = forecast(container, stream)
            packets = rewound(container, stream, first)
            if packets is not None:
                yield Video(container, stream, path.name, packets, foretold)
                return
    with _open_stream(path) as (container, stream):
        yield Video(container, stream, path.name, container.demux(stream), foretold)


def probe(path: str | Path) -> VideoInfo:
    """Read what the header says and decode one frame; UnreadableVideo if that fails."""
    with open_video(path) as video:
        return video.info


def scan(path: str | Path, advance: Callable[[], None] = lambda: None) -> Scan:
    """Decode the whole file without converting it: its true length, or UnreadableVideo.

    `advance` is called for every frame.
    """
    with open_video(path) as video:
        count, last = 0, None
        for frame in video.frames():
            count, last = count + 1, frame
            advance()
        return Scan(video.info, count, last.end if last is not None else Fraction(0))


def read_frames(path: str | Path) -> "Iterator[tuple[Fraction, np.ndarray]]":
    """Yield (seconds from the first frame, uint8 RGB `[H, W, 3]`) upright and in square pixels.

    Raises:
        UnreadableVideo: at once, or at the frame where damage is found.
    """
    with open_video(path) as video:
        for frame in video.frames():
            yield frame.time, video.picture_reader(frame.picture)


@contextmanager
def _open_stream(path: Path) -> Iterator[tuple[Any, Any]]:
    """Give the container and the stream to decode, checked but with nothing decoded."""
    check_file(path)
    # "file:" keeps names such as `concat:x.mp4` or `%03d.mp4` from meaning anything.
    url = "file:" + str(path)
    with _quiet():
        try:
            container = _open_container(url, {"max_pixels": str(MAX_PIXELS)})
        except (FFmpegError, OSError, UnicodeError) as error:
            raise _why_not_opened(path, error) from error
        with container:
            stream = _choose_stream(container)
            context = stream.codec_context
            if not 0 < context.width * context.height <= MAX_PIXELS:
                size = f"{context.width}x{context.height}" if context.width else "of unknown size"
                limited = f"frames {size}, the limit is {MAX_PIXELS} pixels"
                raise UnreadableVideo("too_large", limited)
            context.options = {"max_pixels": str(MAX_PIXELS)}
            context.thread_count = 1
            context.thread_type = "NONE"
            yield container, stream


@contextmanager
def _quiet() -> Iterator[None]:
    # FFmpeg writes to stderr on its own, in the middle of our progress display.
    before = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)
    try:
        yield
    finally:
        av.logging.set_level(before)


def _open_container(url: str, limit: dict[str, str]) -> Any:
    whitelist = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        # The limit has to hold while PyAV probes too: probing decodes a frame.
        limits: list[Any] = [limit] * _MOST_STREAMS
        return av.open(url, container_options=whitelist, stream_options=limits)
    except UnicodeError:
        raise
    except ValueError:  # MPEG streams are found by probing only, and cannot have such large frames
        return av.open(url, container_options=whitelist)


def check_file(path: str | Path) -> None:
    """Raise UnreadableVideo unless this is a readable, non-empty, regular file; opens nothing."""
    # Opening a named pipe or a device would wait for ever.
    try:
        found = Path(path).stat()
    except PermissionError as error:
        raise UnreadableVideo("permission", str(error.strerror)) from error
    except OSError as error:  # missing, dangling or circular link
        raise UnreadableVideo("not_a_file", str(error.strerror)) from error
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableVideo("not_a_file", stat.filemode(found.st_mode))
    if found.st_size == 0:
        raise UnreadableVideo("empty")
    if not os.access(path, os.R_OK):
        raise UnreadableVideo("permission")


def _why_not_opened(path: Path, error: Exception) -> UnreadableVideo:
    text = getattr(error, "strerror", None) or type(error).__name__
    if isinstance(error, PermissionError):
        return UnreadableVideo("permission", text)
    head = b""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(64)
    stripped = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if stripped.startswith((b"ffconcat", b"#EXTM3U", b"<MPD", b"<?xml", b"[playlist]")):
        return UnreadableVideo("refused_format", repr(stripped[:16].decode("ascii", "replace")))
    if any(head[at : at + len(mark)] == mark for at, mark in _MAGIC) or head[:4] == b"RIFF":
        return UnreadableVideo("truncated", "the header is there, its index or data are not")
    if isinstance(error, av.error.ArgumentError):  # what a format off the list is answered with
        return UnreadableVideo("refused_format", text)
    return UnreadableVideo("not_a_video", text)


def _choose_stream(container: Any) -> Any:
    kinds = {str(stream.type) for stream in container.streams}
    if not kinds & {"video", "audio", "subtitle"}:
        raise UnreadableVideo("truncated", "the part that describes its streams is missing")
    # Cover art is a video stream of one picture.
    art = av.stream.Disposition.attached_pic | av.stream.Disposition.still_image
    streams = [s for s in container.streams.video if not s.disposition & art]
    if not streams:
        raise UnreadableVideo("no_video_stream", f"streams: {', '.join(sorted(kinds))}")
    streams = [s for s in streams if s.codec_context is not None]
    if not streams:
        raise UnreadableVideo("no_video_stream", "no decoder for its codec")
    # The largest, and the first among equals: previews and second angles come after it.
    return max(streams, key=lambda s: s.codec_context.width * s.codec_context.height)


def _describe(container: Any, stream: Any, first: av.VideoFrame) -> VideoInfo:
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    # 0 stands for unknown; wild values are damage.
    square = Fraction(aspect) if aspect and Fraction(1, 10) < aspect < 10 else Fraction(1)
    reader = PictureReader(square)
    width, height = reader.shown_size(first)
    notes = list(reader.notes(first))
    others = sum(1 for s in container.streams.video) - 1
    if others:
        notes.append(f"{counted(others, 'more video stream')} ignored")
    return VideoInfo(
        container=container.format.name,
        codec=stream.codec_context.name,
        pixel_format=first.format.name,
        width=width,
        height=height,
        rotation=reader.rotation(first),
        sample_aspect=square,
        fps=stated_rate(stream),
        duration=stated_duration(container, stream, first.time or 0.0),
        notes=tuple(notes),
    )
