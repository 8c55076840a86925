"""`ttv prep split` as a program: exit codes, output, pipes, and what a kill -9 leaves."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bad_corpus import contents
from helpers import DYING, run_ttv
from numbered_video import write_numbered
from step_outputs import kill_at_random, kill_each, snapshot


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(3):
        write_numbered(folder / f"{index}.mp4", [100 + index])
    return folder


def command(videos: Path, out: Path) -> list[str]:
    return ["prep", "split", str(videos), "--out", str(out), "--size", "96x48"]


def test_the_path_goes_to_stdout_and_all_else_to_stderr(tmp_path: Path, videos: Path) -> None:
    ran = run_ttv(*command(videos, tmp_path / "out"))
    assert (ran.code, ran.stdout) == (0, f"{tmp_path / 'out'}\n")
    again = run_ttv(*command(videos, tmp_path / "out"), "--json", "--quiet")
    assert (again.code, again.stderr) == (0, "")
    assert again.json == {"paths": [str(tmp_path / "out")], "clips": 6, "made": 0, "failed": []}


def test_a_video_that_cannot_be_used_is_skipped_with_exit_code_5(tmp_path: Path) -> None:
    write_numbered(tmp_path / "in" / "good.mp4", [50])
    write_numbered(tmp_path / "in" / "brief.mp4", [30])
    (tmp_path / "in" / "bad.mp4").write_bytes(b"not a video")
    ran = run_ttv(*command(tmp_path / "in", tmp_path / "out"))
    assert ran.code == 5
    assert "bad.mp4: not_a_video" in ran.stderr
    assert "brief.mp4: too_short" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("extra", "code"),
    [(["--seconds", "4"], 2), (["--detector", "scdt"], 2), (["--size", "97x48"], 2)],
)
def test_mistakes_have_their_exit_codes(
    tmp_path: Path, videos: Path, extra: list[str], code: int
) -> None:
    ran = run_ttv(*command(videos, tmp_path / "out"), *extra)
    assert ran.code == code
    assert ran.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_is_a_bad_input(tmp_path: Path) -> None:
    assert run_ttv(*command(tmp_path / "absent", tmp_path / "out")).code == 3


def test_a_dry_run_writes_nothing(tmp_path: Path, videos: Path) -> None:
    ran = run_ttv(*command(videos, tmp_path / "out"), "--dry-run", "--json")
    assert ran.code == 0
    assert ran.json["plan"]["items"]["videos"] == 3
    assert not (tmp_path / "out").exists()


def test_a_manifest_can_be_piped_in(tmp_path: Path, videos: Path) -> None:
    line = json.dumps({"path": str(videos / "1.mp4"), "caption": "piped"}) + "\n"
    words = command(videos, tmp_path / "out")
    words[2] = "-"
    assert run_ttv(*words, stdin=line).code == 0
    records = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(r)["segments"][0]["caption"] for r in records] == ["piped", "piped"]


def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(tmp_path: Path, videos: Path) -> None:
    assert run_ttv(*command(videos, tmp_path / "whole")).code == 0
    out = tmp_path / "killed"
    codes = kill_each(command(videos, out), out, "*.mp4", (0, 2, 5))
    assert -signal.SIGKILL in codes
    assert run_ttv(*command(videos, out)).code == 0
    assert snapshot(out) == snapshot(tmp_path / "whole")


def test_a_decoder_that_dies_or_hangs_costs_its_video_only(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    # In the first look, and in the pass that finds scenes.
    for index, name in enumerate(("a", "crash-1-0", "crash-2-30", "hang-1-0", "hang-2-30", "z")):
        write_numbered(source / f"{name}.mp4", [50 + index])
    words = [*command(source, out), "--workers", "1", "--set", "patience=3", "--json"]
    ran = run_ttv(*words, process=True, **DYING)
    assert (ran.code, ran.json["clips"]) == (5, 2)
    died = ("crashed", "the process that decoded it ended with code -9")
    hung = ("timeout", "no frame for 3 s")
    assert [(entry["item"], entry["reason"], entry["detail"]) for entry in ran.json["failed"]] == [
        ("crash-1-0.mp4", *died),
        ("crash-2-30.mp4", *died),
        ("hang-1-0.mp4", *hung),
        ("hang-2-30.mp4", *hung),
    ]
    assert json.loads((out / "report.json").read_text())["skipped"] == ran.json["failed"]
    assert "Traceback" not in ran.stderr
    assert run_ttv(*command(source, out)).code == 0  # they are tried again
    assert run_ttv(*command(source, tmp_path / "whole")).code == 0
    assert snapshot(out) == snapshot(tmp_path / "whole")


def test_clips_made_before_a_decoder_died_stay_and_the_others_follow(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_numbered(source / "crash-3-90.mp4", [100])  # in the pass that cuts, after the first clip
    words = [*command(source, out), "--workers", "1", "--json"]
    ran = run_ttv(*words, process=True, **DYING)
    assert (ran.code, ran.json["made"]) == (5, 1)
    assert [path.name[-9:] for path in out.iterdir() if path.suffix == ".mp4"] == ["-0000.mp4"]
    again = run_ttv(*command(source, out), "--json")
    assert (again.code, again.json["made"]) == (0, 1)
    assert run_ttv(*command(source, tmp_path / "whole")).code == 0
    assert snapshot(out) == snapshot(tmp_path / "whole")


def test_ctrl_c_ends_with_130_leaves_no_torn_file_and_the_same_command_continues(
    tmp_path: Path, videos: Path
) -> None:
    out = tmp_path / "stopped"
    process = subprocess.Popen(
        [sys.executable, "-m", "ttvcli", *command(videos, out), "--workers", "2", "--quiet"],
        stdout=subprocess.DEVNULL,
        # A shell starts what runs in its background with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(out.glob("*.mp4")):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not list(out.glob(".*.mp4"))
    assert run_ttv(*command(videos, out)).code == 0
    assert run_ttv(*command(videos, tmp_path / "whole")).code == 0
    assert snapshot(out) == snapshot(tmp_path / "whole")


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path, videos: Path) -> None:
    words = command(videos, Path("out"))
    del words[words.index("--out") : words.index("--out") + 2]
    before = contents(videos)
    kill_at_random(words, tmp_path / "killed", tmp_path / "whole")
    assert contents(videos) == before
