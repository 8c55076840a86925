"""`ttv prep split` as a program: exit codes, output, pipes, and what a kill -9 leaves."""

import json
import signal
from pathlib import Path

import pytest
from bad_corpus import contents
from helpers import run_ttv
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


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path, videos: Path) -> None:
    words = command(videos, Path("out"))
    del words[words.index("--out") : words.index("--out") + 2]
    before = contents(videos)
    kill_at_random(words, tmp_path / "killed", tmp_path / "whole")
    assert contents(videos) == before
