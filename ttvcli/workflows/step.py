"""What every step shares: a way to report progress, the plan of a dry run, a polite stop.

A workflow module `<step>.py` holds a frozen dataclass `<Step>Config` whose field defaults are the
defaults of the command, `plan(config) -> Plan`, and `run(config, progress=SILENT) -> <Step>Result`.
A result is a frozen dataclass with `paths`, `failed` (one dict for each item that failed, with at
least `item` and `reason`) and `to_json()`. Workflows never print and never exit.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from ttvcli.artifacts.schema import plain
from ttvcli.errors import UsageError


class Progress(Protocol):
    """Where a step reports what it is doing."""

    def start(
        self, description: str, total: int | None = None, unit: str = "", *, done: int = 0
    ) -> None:
        """Begin a stage of `total` units (None when unknown); it ends the stage before it.

        `done` units of the total were done by an earlier run: they say nothing about the speed.
        """

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Count `n` more units; `fields` (loss=0.12) are shown beside the bar."""

    def finish(self) -> None:
        """End the current stage."""

    def note(self, text: str) -> None:
        """Tell the user something in passing."""

    def warn(self, text: str) -> None:
        """Tell the user something that may need attention."""


class Silent:
    """A Progress that drops everything: the default of every `run`."""

    def start(
        self, description: str, total: int | None = None, unit: str = "", *, done: int = 0
    ) -> None:
        """Drop it."""

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Drop it."""

    def finish(self) -> None:
        """Drop it."""

    def note(self, text: str) -> None:
        """Drop it."""

    def warn(self, text: str) -> None:
        """Drop it."""


SILENT = Silent()


@dataclass(frozen=True)
class Plan:
    """What a run would do: the answer to `--dry-run`.

    `items` are name and value pairs in reading order, `bytes` what it needs ("ram", "vram",
    "disk"), `eta_seconds` the expected time or None when it cannot be told.
    """

    command: str
    items: list[tuple[str, str | int | float]] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)
    eta_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as one JSON object."""
        return {
            "command": self.command,
            "items": dict(self.items),
            "bytes": self.bytes,
            "eta_seconds": self.eta_seconds,
        }


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed that not every generator takes."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed must be from 0 to 2**63 - 1, got {seed}", fix="--seed 42")


class PlainResult:
    """Base of results that are dataclasses and whose fields are the JSON object of `--json`."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as one JSON object."""
        found: dict[str, Any] = plain(self)
        return found


@dataclass(frozen=True)
class StepResult(PlainResult):
    """A result with nothing to add to its paths; steps with more to say define their own."""

    paths: list[Path] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)


class StopRequest:
    """Tells a loop that SIGINT or SIGTERM arrived: `if stop.requested: save and leave`."""

    def __init__(self) -> None:
        self.requested = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:  # the second signal is not asked to wait
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; the second raises KeyboardInterrupt.

    Outside the main thread, where Python allows no handlers, the request is never made.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop._handle) for number in watched}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
