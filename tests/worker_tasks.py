"""Tasks for decode workers that do what files seldom do; imported by the worker processes."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ttvcli.core.video.clip_stream import Frames
from ttvcli.workflows.decode_worker import still_alive


@dataclass(frozen=True)
class Count:
    """Gives chunks whose pixels tell which they are."""

    chunks: int
    value: int = 0
    patience: float = 30.0

    def events(self) -> Iterator[Frames]:
        for number in range(self.chunks):
            yield Frames(number, np.full((8, 4, 6, 3), self.value + number, np.uint8))


@dataclass(frozen=True)
class Crash:
    """Takes its process with it."""

    patience: float = 30.0

    def events(self) -> Iterator[Frames]:
        yield Frames(0, np.zeros((1, 2, 2, 3), np.uint8))
        os.abort()


@dataclass(frozen=True)
class Hang:
    """Never answers."""

    patience: float = 0.2

    def events(self) -> Iterator[Frames]:
        while True:
            time.sleep(60)
        yield


@dataclass(frozen=True)
class Slow:
    """Takes its time for one event, and shows that it lives."""

    seconds: float
    patience: float

    def events(self) -> Iterator[str]:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            time.sleep(0.02)
            still_alive(self.patience)
        yield "made"


@dataclass(frozen=True)
class ProcessOf:
    """Tells in which process it is done."""

    patience: float = 30.0

    def events(self) -> Iterator[int]:
        yield os.getpid()
