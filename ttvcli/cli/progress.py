"""How progress looks: a bar with the time left on a terminal, elsewhere a line now and then."""

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ttvcli.cli.output import Output, human_seconds, takes_colour, visible

if TYPE_CHECKING:
    from ttvcli.workflows.step import Progress

SECONDS_BETWEEN_LINES = 5.0


def choose_progress(output: Output) -> "Progress":
    """Return the Progress for an output: silent if quiet, a bar on a terminal, else lines."""
    from ttvcli.workflows.step import Silent

    if output.quiet:
        return Silent()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return BarProgress()
    return LineProgress(output)


class LineProgress:
    """A line when a stage starts, every few seconds, and when it ends."""

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self.output = output
        self.clock = clock
        self.description = ""
        self.total: int | None = None
        self.unit = ""
        self.done = self.done_before = 0
        self.began = self.last = clock()
        self.first: tuple[float, int] | None = None  # when the first unit was done; units by then

    def start(
        self, description: str, total: int | None = None, unit: str = "", *, done: int = 0
    ) -> None:
        """Begin a stage."""
        self.finish()
        self.description, self.total, self.unit = description, total, unit
        self.done = self.done_before = done
        self.began = self.last = self.clock()
        self.first = None
        amount = "" if total is None else f": {_amount(total, unit)}"
        before = f", {done} done before" if done else ""
        self.output.note(f"{description}{amount}{before}")

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Count; write a line if the last one is a while ago."""
        self.done += n
        now = self.clock()
        self.first = self.first or (now, self.done)
        if now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            self.output.note(self._line(now, fields))

    def finish(self) -> None:
        """End the stage, if one is running."""
        self._end("done")

    def stop(self) -> None:
        """End the stage before it is done."""
        self._end("stopped")

    def _end(self, how: str) -> None:
        if self.description:
            spent = human_seconds(self.clock() - self.began)
            count = self.done - self.done_before
            amount = f"{_amount(count, self.unit)} in " if count else ""
            self.output.note(f"{self.description}: {how}, {amount}{spent}")
        self.description = ""

    def note(self, text: str) -> None:
        """Write the text."""
        self.output.note(text)

    def warn(self, text: str) -> None:
        """Write the text as a warning."""
        self.output.warn(text)

    def _line(self, now: float, fields: dict[str, Any]) -> str:
        of = "" if self.total is None else f"{self.done}/"
        parts = [of + _amount(self.done if self.total is None else self.total, self.unit)]
        # The first unit came with the start of processes and the loading of weights.
        since, before = self.first or (now, self.done)
        if self.total and self.done > before:
            left = (now - since) / (self.done - before) * max(self.total - self.done, 0)
            parts.append(f"{human_seconds(left)} left")
        parts += [f"{name} {show(value)}" for name, value in fields.items()]
        return f"{self.description}: {', '.join(parts)}"


class BarProgress:
    """A Rich bar on standard error, with the count, the rate, and the time gone and left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = Console(
            stderr=True, highlight=False, markup=False, no_color=not takes_colour(sys.stderr)
        )
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[extra]}", markup=False),
            console=self.console,
            speed_estimate_period=3600.0,  # the usual 30 s never see two steps of a large model
        )
        self.task: Any = None

    def start(
        self, description: str, total: int | None = None, unit: str = "", *, done: int = 0
    ) -> None:
        """Begin a stage, on a line of its own."""
        if self.task is not None:
            self.bar.stop_task(self.task)
        unit = _singular(unit) if total == 1 else unit
        # Rich takes the speed from what is advanced later, so `completed` does not count in it, and
        # from the times between advances, so that the first one does not either.
        self.task = self.bar.add_task(description, total=total, completed=done, unit=unit, extra="")
        self.bar.start()

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Move the bar."""
        if self.task is None:
            return
        if fields:
            extra = " ".join(f"{name} {show(value)}" for name, value in fields.items())
            self.bar.update(self.task, extra=extra)
        self.bar.advance(self.task, n)

    def finish(self) -> None:
        """Leave the bars as they are."""
        if self.task is not None:
            self.bar.stop_task(self.task)
            self.task = None
        self.bar.stop()

    def note(self, text: str) -> None:
        """Write the text above the bar."""
        self.console.print(visible(text))

    def warn(self, text: str) -> None:
        """Write the text above the bar as a warning."""
        from rich.text import Text

        self.console.print(Text.assemble(("warning:", "yellow"), f" {visible(text)}"))


def _amount(count: int, units: str) -> str:
    return f"{count} {_singular(units) if count == 1 else units}".rstrip()


def _singular(units: str) -> str:
    first, of, others = units.partition(" of ")
    return first.removesuffix("s") + of + others


def show(value: Any) -> str:
    """Return a value as short as it can be read: four digits for a float."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
