"""The process that decodes for another one: tasks on standard input, events on standard output.

A process of its own, because a decoder that crashes or hangs on a file then costs that file only,
and because decoding scales with processes of one thread each. A task has `events()`, an iterator,
and `patience`, seconds that an event may take to make (0: any time). Pixels lie in memory that both
share, or follow their event as plain bytes; everything else is pickled, between two processes of
one program.
"""

import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

import numpy as np

from ttvcli.artifacts.atomic import sha256_file
from ttvcli.core.video.clip_stream import Broken, ClipTask, Frames
from ttvcli.core.video.decode import check_file, probe
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.workflows.shared_pixels import SharedPixels, Slot

_NO_PIXELS = np.empty(0, np.uint8)


class Task(Protocol):
    """What a worker is given; it goes through a pipe."""

    @property
    def patience(self) -> float:
        """Seconds that an event may take to make; 0: any time."""

    def events(self) -> Iterator[Any]:
        """Yield the events, `Frames` among them if there are pixels."""


@dataclass(frozen=True)
class Looked:
    """What a first look at a source shows: the hash of its bytes, the seconds it claims to last."""

    sha256: str
    duration: float | None


@dataclass(frozen=True)
class LookTask:
    """A source to be looked at: is it a video at all, and which."""

    path: Path
    patience: float = 300.0

    def events(self) -> Iterator[Looked | Broken]:
        """Yield one event."""
        try:
            check_file(self.path)
            # A large file takes its time through a slow network: each piece is a sign of life.
            digest = sha256_file(self.path, lambda: still_alive(self.patience))
            still_alive(self.patience)
            yield Looked(digest, probe(self.path).duration)
        except UnreadableVideo as error:
            yield Broken(error.reason_code, error.detail)
        except OSError as error:  # a broken disk or a network folder that went away
            yield Broken("permission", error.strerror or "read error")


@dataclass(frozen=True)
class DecodeTask(ClipTask):
    """A source to be decoded to clips."""

    patience: float = 300.0

    def alive(self) -> None:
        """Passing over clips that are done, or decoding to the end, gives no event for long."""
        still_alive(self.patience)


@dataclass(frozen=True)
class Pixels:
    """Stands before the bytes of planes `[3, T, H, W]`, or tells where they lie."""

    event: Frames
    shape: tuple[int, ...]
    slot: Slot | None = None


@dataclass(frozen=True)
class Done:
    """No event of this task follows; before the first one: ready for it."""

    cpu_seconds: float = 0.0  # that this process has used so far


def write_event(sink: BinaryIO, event: Any, shared: SharedPixels | None = None) -> None:
    """Write one event."""
    if isinstance(event, Frames):
        pixels = np.ascontiguousarray(event.pictures.transpose(3, 0, 1, 2))
        slot = shared.write(pixels) if shared is not None else None
        pickle.dump(Pixels(replace(event, pictures=_NO_PIXELS), pixels.shape, slot), sink)
        if slot is None:
            sink.write(pixels.data.cast("B"))
    else:
        pickle.dump(event, sink)
    sink.flush()


def read_event(source: IO[bytes], shared: SharedPixels | None = None) -> Any:
    """Read one event; EOFError if the writer has gone."""
    found = pickle.load(source)
    if not isinstance(found, Pixels):
        return found
    if shared is not None and found.slot is not None:
        planes = shared.read(found.shape, found.slot)
        return replace(found.event, pictures=planes.transpose(1, 2, 3, 0))
    pixels = np.empty(found.shape, np.uint8)
    left = pixels.data.cast("B")
    while left:
        count = source.readinto(left)  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the decoder ended in the middle of a frame")
        left = left[count:]
    return replace(found.event, pictures=pixels.transpose(1, 2, 3, 0))


def serve(source: BinaryIO, sink: BinaryIO, shared: SharedPixels | None = None) -> None:
    """Say that this process has started, then do tasks until there are no more."""
    write_event(sink, Done(time.process_time()))
    while True:
        try:
            task: Task = pickle.load(source)
        except EOFError:
            return
        events = iter(task.events())
        while True:
            _limit(task.patience)
            event = next(events, None)
            _limit(0)  # waiting for the reader is no fault of the file
            if event is None:
                break
            write_event(sink, event, shared)
        write_event(sink, Done(time.process_time()))


def _limit(seconds: float) -> None:
    """Let the system end this process in `seconds`, even within a decoder; 0 calls it off."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def still_alive(seconds: float) -> None:
    """Begin anew to wait for the event that is being made; for tasks that work long for one."""
    if hasattr(signal, "setitimer") and signal.getitimer(signal.ITIMER_REAL)[0]:
        _limit(seconds)


def main() -> None:
    """Serve the process that started this one; the first argument is a file of shared memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the other side decides
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library that prints must not get between the events
    shared = SharedPixels(int(sys.argv[1])) if len(sys.argv) > 1 else None
    try:
        serve(sys.stdin.buffer, os.fdopen(sink.fileno(), "wb", closefd=False), shared)
    except BrokenPipeError:
        os._exit(0)  # nobody reads any more
