"""Frames of a video by their numbers, in one pass over it."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import av

from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.timeline import TimedFrame

if TYPE_CHECKING:
    import numpy as np


class FramePicker:
    """Decodes up to the frame that is asked for, and converts no other.

    One picture is held, so that a number may be asked for again; it may not go back.

    Args:
        frames: of an open video, from its first one on.
        convert: turns a decoded picture into uint8 `[H, W, 3]`.
        advance: called for every frame decoded.
    """

    def __init__(
        self,
        frames: Iterable[TimedFrame[av.VideoFrame]],
        convert: "Callable[[av.VideoFrame], np.ndarray]",
        advance: Callable[[], None] = lambda: None,
    ) -> None:
        self._frames = iter(frames)
        self._convert = convert
        self._advance = advance
        self._number = -1
        self._decoded: av.VideoFrame | None = None
        self._array: np.ndarray | None = None

    def __call__(self, number: int) -> "np.ndarray":
        """Return frame `number`.

        Raises:
            UnreadableVideo: there are fewer frames than an earlier pass saw, or damaged ones.
            ValueError: the number goes back.
        """
        if number < self._number:
            raise ValueError(f"frame {number} was asked for after frame {self._number}")
        while self._number < number:
            frame = next(self._frames, None)
            if frame is None:
                raise UnreadableVideo("truncated", "the file ends before its first pass said")
            self._number += 1
            self._decoded, self._array = frame.picture, None
            self._advance()
        if self._array is None:
            assert self._decoded is not None
            self._array = self._convert(self._decoded)
        return self._array

    def pick(self, numbers: Iterable[int]) -> "Iterator[np.ndarray]":
        """Yield the frames of these numbers."""
        for number in numbers:
            yield self(number)
