"""Write docs/cli.md from the program itself: every --help, every setting, every exit code.

`python docs/generate.py` writes it, `--check` only compares and exits 1 if it is stale. Runs of it
give the same bytes on every machine.
"""

import dataclasses
import io
import os
import sys
import types
import typing
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

import ttvcli
from ttvcli.cli.main import COMMANDS, READER_GONE, build_app, main
from ttvcli.cli.run_step import config_name
from ttvcli.cli.settings import ENVIRONMENT, OTHER_VARIABLES, leaves
from ttvcli.errors import ExitCode

TARGET = Path(__file__).with_name("cli.md")
WIDTH = "100"  # columns of the help texts

CODES = {
    ExitCode.DONE: "done, or nothing was left to do",
    ExitCode.FAILED: "the work itself failed",
    ExitCode.USAGE: "wrong option or setting; nothing was started",
    ExitCode.BAD_INPUT: "an input artifact is missing, corrupt or stale",
    ExitCode.WOULD_NOT_FIT: "not enough GPU memory, RAM or disk; the message says what would fit",
    ExitCode.PARTIAL: "finished, but some items failed; the report lists them",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C or SIGTERM); the same command continues",
    READER_GONE: "the reader of standard output went away, as `head -1` does in a pipe",
}

HEAD = """\
# Commands

Written by `python docs/generate.py` from the program itself; a test keeps it fresh.

Standard output carries the result and nothing else: the path that was written or, with `--json`,
one JSON object. Progress, warnings and errors go to standard error.

A setting comes from, lowest first: its default · a preset (`--stage`, `--gpu`) · `--config`
files · `TTV_*` variables (facts about the machine only) · `--set key=value` · its flag. An unknown
setting is an error. `--show-config` prints the merged settings as TOML, each with its origin; what
it prints can be given to `--config`.
"""


def document() -> str:
    """Return the whole page."""
    parts = [HEAD, _contents(), _exit_codes(), _variables()]
    parts += [_command(words) for words in commands()]
    return "\n".join(parts)


def commands() -> Iterator[str]:
    """Yield the words of every command, in the order of the help; "" is `ttv` itself."""
    yield ""
    for module, group in COMMANDS:
        name = module.rpartition(".")[2].replace("_", "-")
        yield f"{group} {name}" if group else name


def _contents() -> str:
    names = [words for words in commands() if words]
    lines = [f"- [`ttv {words}`](#{_anchor(words)}): {_summary(words)}" for words in names]
    return "\n".join([*lines, ""])


def _anchor(words: str) -> str:
    return f"ttv-{words}".replace(" ", "-")


def _summary(words: str) -> str:
    command: Any = typer.main.get_command(build_app())
    for word in words.split():
        command = command.commands[word]
    return " ".join(command.help.partition("\n\n")[0].split())


def _exit_codes() -> str:
    rows = [f"| {int(code)} | {text} |" for code, text in CODES.items()]
    return "\n".join(["## Exit codes", "", "| code | meaning |", "|---|---|", *rows, ""])


def _variables() -> str:
    lines = [f"- `{name}`: the setting `{key}`" for name, key in ENVIRONMENT.items() if _used(key)]
    lines += [f"- `{name}`: {text}" for name, text in OTHER_VARIABLES.items()]
    lines.append("- `NO_COLOR`: no colours")
    return "\n".join(["## Environment variables", "", *lines, ""])


def _used(key: str) -> bool:
    configs = map(_config, commands())
    return any(key in dict(leaves(config)) for config in configs if config)


def _command(words: str) -> str:
    title = f"ttv {words}".strip()
    parts = [f"## `{title}`", "", "```text", _help(words).rstrip(), "```", ""]
    config = _config(words)
    return "\n".join(parts + (_settings(config) if config else []))


def _help(words: str) -> str:
    stream = io.StringIO()
    with redirect_stdout(stream):
        main([*words.split(), "--help"])
    return stream.getvalue()


def step_of(words: str) -> str:
    """Return the step whose settings a command sets: "prep encode" -> "encode"; "" if none."""
    whole = words.replace(" ", "_").replace("-", "_")
    for name in (whole, words.rpartition(" ")[2].replace("-", "_")):
        path = Path(ttvcli.__file__).parent / "workflows" / f"{name}.py"
        if name and path.is_file() and "def plan(" in path.read_text(encoding="utf-8"):
            return name
    return ""


def _config(words: str) -> Any:
    """Return the config class of a command, or None if it has no settings."""
    step = step_of(words)
    return getattr(import_module(f"ttvcli.workflows.{step}"), config_name(step)) if step else None


def _settings(config: Any) -> list[str]:
    rows = [
        f"| `{key}` | {kind} | {default} | {text} |" for key, kind, default, text in rows_of(config)
    ]
    return [
        "Settings, for `--set` and `--config`:",
        "",
        "| setting | type | default | meaning |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def rows_of(config: Any, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield key, type, default and help of every field, nested configs opened up."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        kind, key = hints[field.name], prefix + field.name
        if dataclasses.is_dataclass(kind):
            yield from rows_of(kind, f"{key}.")
        else:
            text = field.metadata.get("help", "").replace("<", r"\<").replace("|", r"\|")
            yield key, _kind(kind), _default(field), text


def _kind(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" if value else '`""`' for value in inner)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_kind(entry) for entry in inner if entry is not type(None))
    return {"str": "text", "bool": "true, false", "Path": "path"}.get(kind.__name__, kind.__name__)


def _default(field: Any) -> str:
    if field.default is dataclasses.MISSING:
        return "must be given"
    if field.default is None:
        return ""
    value = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return f"`{value}`" if value else '`""`'


def run(arguments: list[str]) -> int:
    """Write or check the page; returns the exit code."""
    os.environ["COLUMNS"] = WIDTH
    text = document()
    if "--check" not in arguments:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{TARGET} is stale: run `python docs/generate.py`\n")
    return 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
