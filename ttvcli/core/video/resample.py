"""Any video to clips of one frame rate, one size and one length, as a stream of VAE chunks.

The rules, shared by every step that reads videos:

- **Frame rate**: output frame i shows the source frame whose time is nearest to i / fps, the
  earlier one on a tie. Times are presentation times, so a variable frame rate comes out right;
  frames are repeated or left out, never blended. Output ends where the last frame ends.
- **Size**: scaled to cover the wanted size, then cut to it around the centre. Smaller videos are
  enlarged (bicubic); `enlarged` tells by how much.
- **Length**: consecutive clips without overlap. What is left at the end is dropped, unless one
  frame is missing: a video of exactly 3 s has 48 frames at 16 fps where a clip has 49, so its last
  frame is shown once more.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, TypeVar

from ttvcli.core.video.errors import UnreadableVideo

if TYPE_CHECKING:
    import numpy as np

CHUNK = 8  # pixel frames a VAE chunk; the first of a clip has one more
SEGMENT_FRAMES = 48  # pixel frames from one text segment to the next: 3 s at 16 fps

P = TypeVar("P")


@dataclass(frozen=True)
class ClipPlan:
    """How many clips a video of a known length gives."""

    clips: int
    held: int  # 1 if the last clip ends with its last frame shown once more
    dropped: int  # frames at the end that make no clip


def check_clip_frames(frames: int) -> None:
    """Raise ValueError unless a clip of this many frames fills whole VAE chunks (8k + 1)."""
    if frames < 1 or frames % CHUNK != 1:
        below = max(frames - 1, 0) // CHUNK * CHUNK + 1
        raise ValueError(f"frames must be 8k + 1 such as {below} or {below + CHUNK}, got {frames}")


def segment_count(frames: int) -> int:
    """Text segments of a clip: 49 frames have 1, 145 have 3, 1009 have 21."""
    return max(ceil((frames - 1) / SEGMENT_FRAMES), 1)


def output_frames(duration: Fraction, fps: Fraction) -> int:
    """Frames that a video of `duration` seconds has at `fps`."""
    return ceil(duration * fps)


def plan_clips(frames: int, clip_frames: int) -> ClipPlan:
    """Cut `frames` output frames into clips of `clip_frames`."""
    check_clip_frames(clip_frames)
    clips, rest = divmod(frames, clip_frames)
    if rest == clip_frames - 1 and rest > 0:
        return ClipPlan(clips + 1, held=1, dropped=0)
    return ClipPlan(clips, held=0, dropped=rest)


def resample(
    frames: Iterable[tuple[Fraction, P]], fps: Fraction, duration: Fraction
) -> Iterator[P]:
    """Yield the pictures shown at 0, 1/fps, 2/fps, ... seconds; holds two of them.

    Args:
        frames: (seconds, picture) with strictly increasing times from 0.
        fps: output frames per second.
        duration: seconds from the first frame to the end of the last.
    """
    if fps <= 0:
        raise ValueError(f"fps must be positive, got {fps}")
    total = output_frames(duration, fps)
    done = 0
    due = Fraction(0)  # twice the time of the next output frame, as `middle` is twice the middle
    before: tuple[Fraction, P] | None = None
    for time, picture in frames:
        if before is not None:
            middle = before[0] + time
            while done < total and due <= middle:
                yield before[1]
                done += 1
                due = 2 * done / fps
        before = (time, picture)
    while before is not None and done < total:
        yield before[1]
        done += 1


def enlarged(shown: tuple[int, int], size: tuple[int, int]) -> float:
    """Return by how much a picture of `shown` pixels is enlarged to cover `size`; at least 1."""
    return max(size[0] / shown[0], size[1] / shown[1], 1.0)


class ClipReader:
    """Cuts a stream of pictures into clips and each clip into VAE chunks of 9, 8, 8, ... frames.

    Pictures are converted when their chunk is asked for, so a skipped clip costs only its decoding,
    and no more than one chunk of converted frames exists at a time.

    Args:
        pictures: resampled pictures in order.
        convert: writes one into uint8 `[H, W, 3]`.
        clip_frames: 8k + 1.
        size: (width, height) of what it writes.
    """

    def __init__(
        self,
        pictures: Iterator[P],
        convert: "Callable[[P, np.ndarray], None]",
        clip_frames: int,
        size: tuple[int, int],
    ) -> None:
        check_clip_frames(clip_frames)
        self._pictures = _hold_last(pictures)
        self._convert = convert
        self.clip_frames = clip_frames
        self.size = size

    def skip(self) -> None:
        """Pass over one clip."""
        for _ in islice(self._pictures, self.clip_frames):
            pass

    def chunks(self) -> "Iterator[np.ndarray]":
        """Yield the next clip as uint8 `[T, H, W, 3]` with T = 9, 8, 8, ...; read it to its end.

        The channels are planes in memory, as a VAE takes them.
        """
        import numpy as np

        left = self.clip_frames
        length = min(CHUNK + 1, left)
        while left:
            chunk = np.empty((3, length, *self.size[::-1]), np.uint8).transpose(1, 2, 3, 0)
            count = 0
            before: object = None
            for picture in islice(self._pictures, length):
                if picture is before and count:  # repeated: converted once
                    chunk[count] = chunk[count - 1]
                else:
                    self._convert(picture, chunk[count])
                before = picture
                count += 1
            if count < length:  # the scan saw more: the file changed in between
                raise UnreadableVideo("truncated", "the file ends before its scan said")
            yield chunk
            left -= length
            length = CHUNK


def _hold_last(pictures: Iterable[P]) -> Iterator[P]:
    picture: P | None = None
    for picture in pictures:
        yield picture
    if picture is not None:
        yield picture  # completes a clip that is one frame short; unused otherwise
