"""Memory of the filter and of decode and resize beside the length of a video: it stays flat.

The first seconds of a video are shown over and over, 1, 4 and 16 times, in files of their own; each
is read in a process of its own, whose peak is the row.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ttvcli.core.video.decode import read_frames
from ttvcli.core.video.encode import write_video
from ttvcli.errors import WorkFailed
from ttvcli.workflows.bench_readers import Reading

SIDES = ("ttv-filter", "ttv")
_FRAMES = 49  # of the piece that is repeated: a clip of 3 s at 16 frames a second
_FPS = 16


def memory_rows(
    video: str,
    times: Sequence[int],
    threads: int,
    size: tuple[int, int],
    folder: Path,
    read: Callable[[Reading], dict[str, Any] | str],
) -> Iterator[dict[str, Any]]:
    """Yield a row for each side and length: its peak, and how many times that of the shortest.

    Raises:
        WorkFailed: one of the films cannot be read.
    """
    films = [(many, write_repeated(video, many, folder)) for many in sorted(times)]
    for side in SIDES:
        shortest = 0.0
        for many, film in films:
            found = read(Reading(side, [str(film)], *size, threads))
            if isinstance(found, str):
                raise WorkFailed(f"{side} cannot read it: {found}", where=str(film))
            peak = max(found["peak_rss_mb"], found["peak_rss_mb_worker"])
            shortest = shortest or peak
            yield {
                "row": "memory",
                "side": side,
                "threads": threads,
                "times": many,
                "frames": found["frames"],
                "peak_rss_mb": found["peak_rss_mb"],
                "peak_rss_mb_worker": found["peak_rss_mb_worker"],
                "growth": round(peak / shortest, 3),
            }


def write_repeated(video: str, times: int, folder: Path) -> Path:
    """Write the first frames of a video `times` times in a row to a file; an old one is kept."""
    target = folder / f"repeated-{times}.mp4"
    if not target.exists():
        write_video(target, _repeated(video, times), _FPS, preset="veryfast")
    return target


def _repeated(video: str, times: int) -> Iterator[np.ndarray]:
    for _ in range(times):
        for _, picture in islice(read_frames(video), _FRAMES):
            yield picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2]
