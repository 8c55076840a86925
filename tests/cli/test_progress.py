"""The time left after a resume: what an earlier run did says nothing about the speed."""

from contextlib import suppress

import pytest

from ttvcli.cli.output import Output
from ttvcli.cli.progress import BarProgress, LineProgress


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_lines_count_from_what_this_run_did(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = LineProgress(Output(), clock)
    progress.start("training", total=1000, unit="steps", done=900)
    clock.now += 50.0
    progress.advance()
    clock.now += 50.0
    progress.advance()  # a step takes 50 s, so 98 take 82 min
    progress.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 1000 steps, 900 done before",
        "training: 901/1000 steps",
        "training: 902/1000 steps, 1:21:40 left",
        "training: done, 2 steps in 1:40",
    ]


def test_the_time_before_the_first_unit_says_nothing_about_the_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = LineProgress(Output(), clock)
    for _ in range(2):
        progress.start("measuring", total=11, unit="videos")
        clock.now += 600.0  # processes start, weights are loaded
        progress.advance()
        for _ in range(2):
            clock.now += 10.0
            progress.advance()
    told = [line.partition(", ")[2] for line in capsys.readouterr().err.splitlines()]
    assert [text for text in told if "left" in text] == ["1:30 left", "1:20 left"] * 2


def test_one_of_something_is_told_as_one(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = LineProgress(Output(), clock)
    for unit in ("videos", "pairs of runs", ""):
        progress.start("judging", total=1, unit=unit)
    progress.advance()
    progress.start("cutting", total=2, unit="frames")
    progress.advance()
    progress.finish()
    assert [line.split(" in ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "judging: 1 video",
        "judging: done, 0 s",
        "judging: 1 pair of runs",
        "judging: done, 0 s",
        "judging: 1",
        "judging: done, 1",
        "cutting: 2 frames",
        "cutting: done, 1 frame",
    ]


def test_what_was_interrupted_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(KeyboardInterrupt), Output().progress() as progress:
        progress.start("cutting", 9, "frames")
        progress.advance(2)
        raise KeyboardInterrupt
    assert capsys.readouterr().err.splitlines()[-1].startswith("cutting: stopped, 2 frames in ")


def test_the_bar_counts_from_what_this_run_did(clock: Clock) -> None:
    progress = BarProgress()
    progress.bar.get_time = clock
    progress.start("training", total=1000, unit="steps", done=900)
    (task,) = progress.bar.tasks
    assert task.completed == 900
    for _ in range(3):
        clock.now += 50.0
        progress.advance()
    assert task.completed == 903
    assert task.time_remaining == pytest.approx(97 * 50.0)
    progress.finish()
