"""What a step leaves in its folder and tells while it works, and steps that are killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ttvcli.workflows.step import Silent


class Recorder(Silent):
    """Progress that counts."""

    def __init__(self) -> None:
        self.totals: dict[str, int | None] = {}
        self.counts: dict[str, int] = {}
        self.stage = ""

    def start(
        self, description: str, total: int | None = None, unit: str = "", *, done: int = 0
    ) -> None:
        self.stage = description
        self.totals[description] = total
        self.counts[description] = 0

    def advance(self, n: int = 1, **fields: Any) -> None:
        self.counts[self.stage] += n


def snapshot(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder by its path; locks, which are empty, are left out."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not path.name.startswith(".lock")
    }


def kill_each(words: list[str], out: Path, pattern: str, counts: Sequence[int]) -> list[int]:
    """Run `ttv` with these words once for each count; returns the exit codes.

    Each process is killed when `out` holds so many files of this pattern, whole or not: at the
    first sight of a file, of its temporary name, or of its line, whichever the polling meets.
    """
    codes = []
    for count in counts:
        process = subprocess.Popen(
            [sys.executable, "-m", "ttvcli", *words, "--quiet"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if len(list(out.glob(pattern))) >= count and (out / "ttv.json").exists():
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        codes.append(process.wait())
    return codes


def kill_at_random(words: list[str], out: Path, whole: Path, kills: int = 20) -> None:
    """Run `ttv` with these words until it was killed so many times, at any moment of a run.

    `whole` is what a run leaves that nobody kills, and is made here. Whenever a run comes through,
    and after the last one, `out` has to have the same bytes; then the next begins anew.
    """
    chance = random.Random(0)

    def start(folder: Path) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "ttvcli", *words, "--out", str(folder), "--quiet"]
        return subprocess.Popen(line, env={**os.environ, "OMP_NUM_THREADS": "1"})

    began = time.monotonic()
    assert start(whole).wait() == 0
    seconds = time.monotonic() - began
    killed = tries = 0
    while killed < kills:
        tries += 1
        assert tries < 5 * kills, f"{killed} of {tries} runs were killed"
        process = start(out)
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.3, 1.0) * seconds)  # before that Python starts
        process.send_signal(signal.SIGKILL)
        code = process.wait()
        killed += code == -signal.SIGKILL
        if code == 0:
            assert snapshot(out) == snapshot(whole)
            shutil.rmtree(out)
    assert start(out).wait() == 0
    assert snapshot(out) == snapshot(whole)
