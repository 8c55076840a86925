"""The `ttv` command: builds the application, runs it, turns every outcome into an exit code."""

import errno
import os
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import ttvcli
from ttvcli.cli.output import ReaderGone, write_error, write_remark, write_result
from ttvcli.errors import ExitCode, Interrupted, TtvError, UsageError, WouldNotFit

# Every command in pipeline order: module in this package, and the group it belongs to.
COMMANDS: tuple[tuple[str, str | None], ...] = (
    ("demo", None),
    ("prep.synth", "prep"),
    ("prep.filter", "prep"),
    ("prep.split", "prep"),
    ("prep.caption", "prep"),
    ("prep.encode", "prep"),
    ("embed_text", None),
    ("train", None),
    ("sample", None),
    ("eval.world", "eval"),
    ("bench.kernels", "bench"),
    ("bench.model", "bench"),
    ("bench.sample", "bench"),
    ("bench.data", "bench"),
    ("export", None),
    ("info", None),
    ("doctor", None),
)
GROUPS = {
    "prep": "Make training data: render, clean, cut, caption and encode videos.",
    "eval": "Measure what a model makes.",
    "bench": "Measure speed, side by side with named peers.",
}
READER_GONE = 141  # what a shell reports for a command that was writing when its reader left

EPILOG = """\b
A whole pipeline:
  ttv prep synth --out raw/
  ttv prep encode raw/ --out latents/
  ttv embed-text latents/ --out text/
  ttv train --data latents/ --text text/
  ttv sample "a red circle moves right" -o out.mp4

\b
Every command has --help with examples. Exit codes: 0 done, 1 failed, 2 usage, 3 bad input,
4 would not fit, 5 some items failed, 130 interrupted. TTV_DEBUG=1 shows tracebacks.
"""


class PipelineOrder(TyperGroup):
    """Lists commands as COMMANDS does: Typer would put groups after all commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the help."""
        order = [(group or module).replace("_", "-") for module, group in COMMANDS]
        return sorted(self.commands, key=order.index)


def build_app() -> typer.Typer:
    """Return the application with every command registered."""
    plain: dict[str, Any] = {
        "rich_markup_mode": None,
        "pretty_exceptions_enable": False,
        "no_args_is_help": True,
        "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
    }
    app = typer.Typer(name="ttv", cls=PipelineOrder, epilog=EPILOG, **plain)
    app.callback()(_root)
    groups = {name: typer.Typer(help=text, **plain) for name, text in GROUPS.items()}
    for module, group in COMMANDS:
        target = groups[group] if group else app
        import_module(f"ttvcli.cli.{module}").register(target)
    for name, group_app in groups.items():
        app.add_typer(group_app, name=name)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ttv` with these arguments (default: the process's own) and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    json = "--json" in words[: words.index("--") if "--" in words else None]
    with _stopped_by_terminate():
        try:
            return _run(words, json=json)
        except ReaderGone:
            return READER_GONE


def _run(words: list[str], *, json: bool) -> int:
    try:
        code = int(build_app()(words, prog_name="ttv", standalone_mode=False) or 0)
        if code == ExitCode.INTERRUPTED:  # Typer turns KeyboardInterrupt into this
            raise KeyboardInterrupt
        return code
    except ReaderGone:
        raise
    except SystemExit as request:
        return request.code if isinstance(request.code, int) else int(ExitCode.FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(Interrupted("interrupted", fix="the same command continues"), json=json)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
            write_remark(error.format_message())  # type: ignore[attr-defined]
            return int(ExitCode.USAGE)
        expected = _as_expected(error)
        if expected is None:
            return _bug(error, json=json)
        if os.environ.get("TTV_DEBUG") == "1":
            write_remark(traceback.format_exc().rstrip())
        return _fail(expected, json=json)


def _fail(error: TtvError, *, json: bool) -> int:
    write_error(error, json=json)
    return int(error.code)


def _as_expected(error: Exception) -> TtvError | None:
    """Return an error of the user's kind, or None if this one is a bug of ours."""
    if isinstance(error, TtvError):
        return error
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # Typer's usage errors
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "ttv"
        return UsageError(error.format_message(), fix=f"{path} --help")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return WouldNotFit(
            f"out of memory: {error}".removesuffix(": "),
            fix="less at once: fewer --frames or a smaller --size; --dry-run tells the need",
        )
    if isinstance(error, OSError):
        return _from_system(error)
    return None


def _from_system(error: OSError) -> TtvError | None:
    names = [name for name in (error.filename, error.filename2) if name is not None]
    where = ", ".join(os.fsdecode(name) for name in names if not isinstance(name, int))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WouldNotFit(
            "the disk is full", where=where, fix="free some space or choose another --out"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UsageError(
            f"no permission: {error.strerror}", where=where, fix="choose a folder you own"
        )
    return None


def _bug(error: Exception, *, json: bool) -> int:
    """Report an error that should not have happened, with its traceback."""
    write_remark("".join(traceback.format_exception(error)).rstrip())
    version = f"ttv {ttvcli.__version__}, Python {platform.python_version()}, {sys.platform}"
    report = TtvError(
        f"this is a bug in ttv: {type(error).__name__}: {error}",
        where=version,
        fix="please report it with the lines above and the output of `ttv doctor --json`",
    )
    return _fail(report, json=json)


def _show_version(wanted: bool) -> None:
    if wanted:
        write_result(f"ttv {ttvcli.__version__}\n")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Train and run text-to-video models, from raw videos to films of up to 63 seconds."""


@contextmanager
def _stopped_by_terminate() -> Iterator[None]:
    """Let SIGTERM end the program the way Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # no handlers are allowed there
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
