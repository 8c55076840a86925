"""The only code that writes: results to standard output, remarks to standard error."""

import json as jsonlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from unicodedata import category

from ttvcli.errors import TtvError

if TYPE_CHECKING:
    from ttvcli.workflows.step import Plan, Progress

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class ReaderGone(Exception):
    """Standard output was closed by its reader, as in `ttv info x | head -1`."""


class Output:
    """Where a command puts its result and its remarks; `json` and `quiet` are the two options."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    def paths(self, paths: Iterable[Path | str]) -> None:
        """Print the paths that were written, one a line."""
        for path in paths:
            write_result(f"{path}\n")

    def record(self, value: Mapping[str, Any]) -> None:
        """Print one JSON object on one line."""
        write_result(json_line(value) + "\n")

    def text(self, text: str) -> None:
        """Print text that is itself the result."""
        write_result(text if text.endswith("\n") else text + "\n")

    def table(self, rows: Iterable[tuple[str, Any]]) -> None:
        """Print name and value pairs in two aligned columns; "" as a name continues the value."""
        rows = [(name, str(value)) for name, value in rows]
        width = max((len(name) for name, _ in rows), default=0)
        self.text("\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows))

    def plan(self, plan: "Plan") -> None:
        """Print what a dry run found."""
        if self.json:
            self.record({"plan": plan.to_json()})
            return
        rows: list[tuple[str, Any]] = [("plan", plan.command), *plan.items]
        rows += [(name, human_bytes(count)) for name, count in plan.bytes.items()]
        if plan.eta_seconds is not None:
            rows.append(("time", f"about {human_seconds(plan.eta_seconds)}"))
        self.table(rows)

    def note(self, text: str) -> None:
        """Tell something in passing, unless quiet."""
        if not self.quiet:
            write_remark(visible(text))

    def warn(self, text: str) -> None:
        """Tell something that may need attention, unless quiet."""
        if not self.quiet:
            write_remark(f"{paint('warning:', '33')} {visible(text)}")

    @contextmanager
    def progress(self) -> "Iterator[Progress]":
        """Give the Progress that suits standard error: a bar, plain lines, or nothing if quiet."""
        from ttvcli.cli.progress import choose_progress

        progress = choose_progress(self)
        try:
            yield progress
        except BaseException:
            getattr(progress, "stop", progress.finish)()  # it is not done
            raise
        progress.finish()


def write_error(error: TtvError, *, json: bool) -> None:
    """Print an expected error; with `json` also as the JSON object on standard output."""
    if json:
        write_result(json_line({"error": error.to_json()}) + "\n")
    write_remark(f"{paint('error:', '31')} {visible(error.what)}")
    for name, text in (("where", one_line(error.where)), ("fix", error.fix)):
        if text:
            write_remark(f"  {name + ':':<6} {visible(text)}")


def write_result(text: str) -> None:
    """Write to standard output at once; ReaderGone if nobody reads it any more."""
    try:
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:  # a terminal of another encoding, or an undecodable file name
            encoding = sys.stdout.encoding
            sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        raise ReaderGone from None


def write_remark(text: str) -> None:
    """Write a line to standard error; a closed one is no reason to stop working."""
    with suppress(BrokenPipeError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def visible(text: str) -> str:
    """Escape control characters but line breaks: a file's name must not steer the terminal."""
    return "".join(c if c in "\n\t" or category(c) != "Cc" else _escaped(c) for c in text)


def one_line(text: str) -> str:
    """Escape line breaks too, as a file's name may have them."""
    return visible(text).replace("\n", "\\n")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def json_line(value: Any) -> str:
    """Return a value as one line of JSON; ASCII only where a file name is not valid Unicode."""
    text = jsonlib.dumps(value, ensure_ascii=False, default=_jsonable)
    try:
        text.encode()
    except UnicodeEncodeError:
        return jsonlib.dumps(value, default=_jsonable)
    return text


def _jsonable(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} does not fit in JSON")


def paint(text: str, code: str) -> str:
    """Colour text for standard error, where the terminal takes it and NO_COLOR does not object."""
    return f"\x1b[{code}m{text}\x1b[0m" if takes_colour(sys.stderr) else text


def takes_colour(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that wants colours."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and stream.isatty()


def human_bytes(count: float) -> str:
    """Return a number of bytes such as "1.5 GiB"."""
    for unit in UNITS[:-1]:
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {UNITS[-1]}"


def human_seconds(seconds: float) -> str:
    """Return a time such as "8 s", "1:05" or "2:00:00"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _drop_stdout() -> None:
    """Point the closed stream at nothing, so that the flush at exit cannot fail."""
    with suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)
