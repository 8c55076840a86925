"""Text in the picture: subtitles, titles, watermarks, screen recordings. Needs the extra `text`.

The detector of PP-OCR (Apache-2.0, its weights are in the package `rapidocr`) marks where text is;
nothing is read. What stays in one place while the picture changes is an overlay.
"""

from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ttvcli.core.filters.filter import AllMetrics, Clip, Filter, Metrics, Rule, Spread, rounded
from ttvcli.core.filters.frame_view import FrameView

_EVERY = 2.0  # seconds between frames looked at
_LONGER_SIDE = 640  # pixels
_STRIDE = 32  # the network's
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SURE = 0.6  # probability from which a pixel belongs to text
# The network marks the inside of lines of text; their boxes are about twice as large.
_BOX = 2.0
_MOVING = 1.0  # motion above which text that stays is an overlay, % of the height a second
_LEAST_LOOKS = 3
_CONTRAST = 24  # levels between neighbours, somewhere near every letter


@dataclass(frozen=True, kw_only=True)
class TextLimits:
    """Thresholds as shares of the picture's area."""

    max: float | None = field(default=0.08, metadata={"help": "share of the area, at most"})
    flag: float | None = field(default=0.02, metadata={"help": "share of the area, flagged above"})
    overlay: float | None = field(
        default=0.002,
        metadata={
            "help": "share of the area with text that stays while the picture moves (a flag)"
        },
    )


class TextMeter:
    """Looks for text in one frame every two seconds."""

    def __init__(self) -> None:
        self._next = 0.0
        self._areas = Spread()
        self._marked: np.ndarray | None = None  # how often each pixel was text
        self._looks = 0

    def see(self, view: FrameView) -> None:
        """Look at the frame if one is due."""
        if view.time < self._next:
            return
        self._next = view.time + _EVERY
        mask = find_text(view.rgb(_size(view)))
        self._areas.add(min(float(mask.mean()) * _BOX, 1.0))
        if self._marked is None or self._marked.shape != mask.shape:
            self._marked, self._looks = np.zeros(mask.shape, np.int32), 0
        self._marked += mask
        self._looks += 1

    def finish(self, clip: Clip) -> Metrics:
        """Return the mean share of the area, and the share that is text nearly all the time."""
        stays = None
        if self._marked is not None and self._looks >= _LEAST_LOOKS:
            stays = min(float((self._marked >= 0.8 * self._looks).mean()) * _BOX, 1.0)
        return {"area": rounded(self._areas.mean(), 4), "stays": rounded(stays, 4)}


def find_text(picture: np.ndarray) -> np.ndarray:
    """Return which pixels of uint8 RGB `[H, W, 3]` are text, bool `[H, W]`; sides divide by 32."""
    if picture.shape[0] % _STRIDE or picture.shape[1] % _STRIDE:
        raise ValueError(f"sides must divide by {_STRIDE}, got {picture.shape[:2]}")
    pixels = ((picture / 255 - _MEAN) / _DEVIATION).astype(np.float32)
    session = _session()
    name = session.get_inputs()[0].name
    (found,) = session.run(None, {name: pixels.transpose(2, 0, 1)[None]})
    return (found[0, 0] > _SURE) & _near_edges(picture)


def _near_edges(picture: np.ndarray) -> np.ndarray:
    """Which squares of 32 pixels have an edge: the network takes some soft gradients for text."""
    green = picture[:, :, 1].astype(np.int16)
    edges = np.zeros(green.shape, bool)
    edges[:, 1:] = abs(np.diff(green, axis=1)) > _CONTRAST
    high, wide = green.shape[0] // _STRIDE, green.shape[1] // _STRIDE
    squares = edges.reshape(high, _STRIDE, wide, _STRIDE).any(axis=(1, 3))
    return squares.repeat(_STRIDE, axis=0).repeat(_STRIDE, axis=1)


def why_missing() -> str:
    """Tell what has to be installed; empty if nothing has."""
    if find_spec("onnxruntime") is None or _weights() is None:
        return "it needs the extra text: pip install 'ttv[text]'"
    return ""


def stands_still(metrics: AllMetrics) -> bool:
    """Whether the picture stays as well, or it is not known: then text that stays is no overlay."""
    speed = metrics.get("motion", {}).get("speed")
    return speed is None or speed < _MOVING


def _size(view: FrameView) -> tuple[int, int]:
    """(width, height) of the upright picture that is looked at."""
    width, height = view.shape if view.turns % 2 else view.shape[::-1]
    scale = _LONGER_SIDE / max(width, height)
    wide, high = (max(round(side * scale / _STRIDE), 1) * _STRIDE for side in (width, height))
    return wide, high


def _weights() -> Path | None:
    # Found without importing the package, which would load far more than the one file.
    package = find_spec("rapidocr")
    for folder in (package.submodule_search_locations or []) if package else []:
        found = sorted(Path(folder, "models").glob("*_det_*.onnx"))
        if found:
            return found[0]
    return None


@cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(_weights()), options, providers=["CPUExecutionProvider"]
    )


FILTER = Filter(
    name="text",
    about="subtitles, titles, watermarks",
    limits=TextLimits,
    meter=TextMeter,
    rules=(
        Rule("area", "above", "max", "text"),
        Rule("area", "above", "flag", "text", drop=False),
        Rule("stays", "above", "overlay", "overlay", drop=False, unless=stands_still),
    ),
    default=False,
    missing=why_missing,
)
