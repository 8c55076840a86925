"""What progress and results look like where there is no terminal."""

import io

import pytest

from ttvcli.cli.output import (
    Output,
    human_bytes,
    human_seconds,
    json_line,
    takes_colour,
    write_error,
)
from ttvcli.cli.progress import BarProgress, LineProgress, choose_progress
from ttvcli.errors import TtvError
from ttvcli.workflows.step import Silent


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_every_few_seconds_with_the_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    progress = LineProgress(Output(), clock)
    progress.start("encoding", total=100, unit="clips")
    for _ in range(12):
        clock.now += 1.0
        progress.advance(1, loss=0.123456)
    clock.now = 100.0
    progress.finish()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "encoding: 100 clips",
        "encoding: 5/100 clips, 1:35 left, loss 0.1235",
        "encoding: 10/100 clips, 1:30 left, loss 0.1235",
        "encoding: done, 12 clips in 1:40",
    ]


def test_a_stage_of_unknown_length_is_only_counted(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = LineProgress(Output(), clock)
    progress.start("reading")
    clock.now = 6.0
    progress.advance(3)
    assert capsys.readouterr().err == "reading\nreading: 3\n"


def test_quiet_chooses_silence_and_a_pipe_chooses_lines() -> None:
    assert isinstance(choose_progress(Output(quiet=True)), Silent)
    assert isinstance(choose_progress(Output()), LineProgress)


def test_colours_only_for_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert takes_colour(Terminal())
    assert not takes_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not takes_colour(Terminal())


def test_json_is_valid_utf8_even_for_names_that_are_not() -> None:
    assert json_line({"a": "é"}) == '{"a": "é"}'
    assert json_line({"a": "\udce9"}).encode() == b'{"a": "\\udce9"}'


def test_sizes_and_times_are_readable() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1536, 5 * 2**30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
    ]
    assert [human_seconds(s) for s in (0.4, 59.4, 65, 7205)] == ["0 s", "59 s", "1:05", "2:00:05"]


def test_names_of_files_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b]0;title\x07\x9b2J\nb\tü.mp4"
    output = Output()
    output.warn(name)
    output.note(name)
    write_error(TtvError(f"no {name}", where=name, fix="none"), json=False)
    bar = BarProgress()
    bar.warn(name)
    said = capsys.readouterr().err
    assert not any(character in said for character in "\x1b\x07\x9b")
    assert said.count("a\\x1b]0;title\\x07\\x9b2J") == 5
    assert "where: a\\x1b]0;title\\x07\\x9b2J\\nb\tü.mp4\n" in said
