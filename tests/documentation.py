"""Read commands out of Markdown, for tests that hold the documents against the program."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer
from helpers import REPOSITORY

from ttvcli.cli.main import build_app

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "configs/*.md", "kernels/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
SHELL = {"console", "bash", "sh", "shell"}
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block: its language, its text and the line it starts in."""

    language: str
    text: str
    line: int


class Command(NamedTuple):
    """One `ttv` command line of a document, split into words."""

    words: list[str]
    line: int


def blocks(path: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = path.read_text()
    for match in _FENCE.finditer(text):
        yield Block(match[2], match[3], text.count("\n", 0, match.start()) + 1)


def shell_lines(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every command line of the shell blocks, continued lines joined.

    In a `console` block only lines that start with `$ ` are commands; the others are output.
    """
    for block in blocks(path):
        if block.language not in SHELL:
            continue
        prompted = block.language == "console"
        lines = enumerate(block.text.splitlines(), block.line + 1)
        for number, line in lines:
            if prompted and not line.startswith("$ "):
                continue
            whole = line.removeprefix("$ ") if prompted else line
            while whole.endswith("\\"):
                whole = whole[:-1] + next(lines)[1]
            yield whole, number


def ttv_commands(path: Path) -> Iterator[Command]:
    """Yield every call of `ttv` in the shell blocks of a page, out of pipes and `&&` too."""
    for line, number in shell_lines(path):
        for words in split_commands(line):
            yield Command(words, number)


def split_commands(line: str) -> Iterator[list[str]]:
    """Yield the words of every call of `ttv` in a command line, redirections left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    skip = False
    for token in [*lexer, ";"]:
        if token and not token.strip("<>"):
            skip = True  # the next word is a file
        elif token and not token.strip("|&;"):
            if words[:1] == ["ttv"]:
                yield words[1:]
            words = []
        elif skip:
            skip = False
        else:
            words.append(token)


def links(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield file and heading of each link within the repository; no heading is ""."""
    for target in _LINK.findall(path.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            name, _, heading = target.partition("#")
            yield path.parent / name if name else path, heading


def anchors(path: Path) -> set[str]:
    """The names by which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in headings}


def find_command(words: list[str]) -> tuple[Any, list[str], list[str]]:
    """Return the command that `words` begin with, its name as words, and the words after it."""
    command: Any = typer.main.get_command(build_app())
    rest, name = list(words), []
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no command {' '.join([*name, rest[0]])!r}"
        name.append(rest[0])
        command = command.commands[rest.pop(0)]
    return command, name, rest


def all_commands() -> dict[str, Any]:
    """Return every command that does something: "prep synth" -> the command."""
    found: dict[str, Any] = {}

    def walk(command: Any, words: list[str]) -> None:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                walk(inner, [*words, name])
        else:
            found[" ".join(words)] = command

    walk(typer.main.get_command(build_app()), [])
    return found
