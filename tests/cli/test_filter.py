"""`ttv prep filter` as a program: exit codes, output, kills, Ctrl-C, a full disk."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import run_ttv
from step_outputs import snapshot
from video_files import make_video

from ttvcli.workflows import filter as step


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(8):
        make_video(folder / f"{index}.mp4", frames=60 + index, fps=16, size=(96, 64))
    (folder / "noise.mp4").write_bytes(b"x" * 999)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    out = tmp_path_factory.mktemp("whole") / "clean"
    ran = run_ttv(*command(videos, out))
    assert (ran.code, ran.stdout) == (5, f"{out}\n")
    assert "not_a_video" in ran.stderr
    assert "Traceback" not in ran.stderr
    return out


def command(videos: Path, out: Path) -> list[str]:
    words = ["prep", "filter", str(videos), "--out", str(out), "--workers", "2"]
    return [*words, "--profile", "any-size", "--without", "motion,repeats"]


def test_everything_but_the_path_goes_to_stderr(whole: Path, videos: Path) -> None:
    ran = run_ttv(*command(videos, whole), "--json", "--quiet")
    assert (ran.code, ran.stderr) == (5, "")
    assert (ran.json["videos"], ran.json["measured"], ran.json["kept"]) == (9, 0, 8)


def test_a_threshold_may_be_written_with_the_name_of_the_step(whole: Path, videos: Path) -> None:
    for key in ("filter.duration.min", "duration.min"):
        ran = run_ttv(*command(videos, whole), "--set", f"{key}=4.1", "--show-config")
        assert ran.code == 0
        assert "min = 4.1  # --set" in ran.stdout.partition("[filter.duration]")[2]


def test_a_setting_that_does_not_exist_is_refused_with_the_nearest(tmp_path: Path) -> None:
    ran = run_ttv("prep", "filter", "in", "--out", tmp_path, "--set", "filter.blur.mim=1")
    assert ran.code == 2
    assert "blur.min" in ran.stderr


@pytest.mark.parametrize(
    ("extra", "code"),
    [(["--with", "blurr"], 2), (["--set", "blur.min=soft"], 2), (["--profile", "best"], 2)],
)
def test_mistakes_have_their_exit_codes(
    tmp_path: Path, videos: Path, extra: list[str], code: int
) -> None:
    ran = run_ttv("prep", "filter", videos, "--out", tmp_path / "out", *extra)
    assert ran.code == code
    assert ran.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_missing_source_is_asked_for_where_it_goes() -> None:
    ran = run_ttv("prep", "filter", "--out", "clean")
    assert ran.code == 2
    assert "the setting 'source' is missing" in ran.stderr
    assert "--source" not in ran.stderr  # there is no such option


def test_a_dry_run_writes_nothing(tmp_path: Path, videos: Path) -> None:
    ran = run_ttv(*command(videos, tmp_path / "out"), "--dry-run", "--json")
    assert ran.code == 0
    assert ran.json["plan"]["items"]["videos"] == 9
    assert not (tmp_path / "out").exists()


def start(videos: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "ttvcli", *command(videos, out), "--quiet"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        # A shell starts what runs in its background with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_states(process: subprocess.Popen[bytes], out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "ttv.json").exists() and len(list(out.glob("state/??/*.json"))) >= count:
            return
        time.sleep(0.001)


def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(
    tmp_path: Path, videos: Path, whole: Path
) -> None:
    out, codes = tmp_path / "killed", []
    for states in (0, 4):
        process = start(videos, out)
        wait_for_states(process, out, states)
        process.send_signal(signal.SIGKILL)
        codes.append(process.wait())
    assert -signal.SIGKILL in codes
    assert run_ttv(*command(videos, out)).code == 5
    assert snapshot(out) == snapshot(whole)


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(
    tmp_path: Path, videos: Path, whole: Path
) -> None:
    chance = random.Random(0)
    out, kills = tmp_path / "killed", 0
    for _ in range(20):
        if (out / "manifest.jsonl").exists():  # this one came through: the next begins anew
            assert snapshot(out) == snapshot(whole)
            shutil.rmtree(out)
        process = start(videos, out)
        there = len(list(out.glob("state/??/*.json")))
        wait_for_states(process, out, there + chance.randint(0, 2))
        time.sleep(chance.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 15
    assert run_ttv(*command(videos, out)).code == 5
    assert snapshot(out) == snapshot(whole)


def test_ctrl_c_ends_with_130_and_the_same_command_continues(
    tmp_path: Path, videos: Path, whole: Path
) -> None:
    out = tmp_path / "stopped"
    process = start(videos, out)
    wait_for_states(process, out, 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not (out / "manifest.jsonl").exists()
    assert run_ttv(*command(videos, out)).code == 5
    assert snapshot(out) == snapshot(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 128 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True)
    except OSError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted by this user")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def test_a_full_disk_is_said_and_the_same_command_continues(
    small_disk: Path, videos: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = small_disk / "clean"
    ran = run_ttv(*command(videos, out))
    assert ran.code == 4
    assert "--out" in ran.stderr
    # What other programs fill up meanwhile cannot be foreseen.
    monkeypatch.setattr(step, "check_free_space", lambda *arguments: None)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(90 << 10))
    ran = run_ttv(*command(videos, out))
    assert ran.code == 4
    assert "the disk is full" in ran.stderr
    assert not (out / "manifest.jsonl").exists()
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert run_ttv(*command(videos, out)).code == 5
    found = snapshot(out)  # one folder further down than the other
    found["manifest.jsonl"] = found["manifest.jsonl"].replace(b'"../../../', b'"../../')
    assert found == snapshot(whole)
