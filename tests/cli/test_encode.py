"""`ttv prep encode` as a program: exit codes, output, and what a kill -9 leaves."""

import json
import signal
from pathlib import Path

import pytest
from bad_corpus import contents
from helpers import run_ttv
from model_files import write_vae
from step_outputs import kill_at_random, kill_each, snapshot
from video_files import make_video


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vae(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(4):
        make_video(folder / f"{index}.mp4", frames=34 + index, fps=16, size=(16, 16))
    return folder


def command(videos: Path, out: Path, model: Path) -> list[str]:
    words = ["prep", "encode", str(videos), "--out", str(out), "--model", str(model)]
    return [*words, "--frames", "17", "--device", "cpu"]


def test_the_path_goes_to_stdout_and_all_else_to_stderr(
    tmp_path: Path, videos: Path, model: Path
) -> None:
    ran = run_ttv(*command(videos, tmp_path / "out", model))
    assert (ran.code, ran.stdout) == (0, f"{tmp_path / 'out'}\n")
    again = run_ttv(*command(videos, tmp_path / "out", model), "--json", "--quiet")
    assert (again.code, again.stderr) == (0, "")
    assert again.json == {
        "paths": [str(tmp_path / "out")],
        "clips": 8,
        "encoded": 0,
        "failed": [],
    }


def test_a_broken_video_is_skipped_with_exit_code_5(tmp_path: Path, model: Path) -> None:
    make_video(tmp_path / "in" / "good.mp4", frames=17, fps=16, size=(16, 16))
    (tmp_path / "in" / "bad.mp4").write_bytes(b"not a video")
    ran = run_ttv(*command(tmp_path / "in", tmp_path / "out", model))
    assert ran.code == 5
    assert "bad.mp4" in ran.stderr
    assert "Traceback" not in ran.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["skipped"][0]["reason"] == "not_a_video"


@pytest.mark.parametrize(
    ("extra", "code"),
    [(["--frames", "48"], 2), (["--size", "17x17"], 2), (["--model", "absent"], 3)],
)
def test_mistakes_have_their_exit_codes(
    tmp_path: Path, videos: Path, model: Path, extra: list[str], code: int
) -> None:
    ran = run_ttv(*command(videos, tmp_path / "out", model), *extra)
    assert ran.code == code
    assert ran.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path, videos: Path, model: Path) -> None:
    ran = run_ttv(*command(videos, tmp_path / "out", model), "--dry-run", "--json")
    assert ran.code == 0
    assert ran.json["plan"]["items"]["videos"] == 4
    assert not (tmp_path / "out").exists()


def test_a_manifest_can_be_piped_in(tmp_path: Path, videos: Path, model: Path) -> None:
    line = json.dumps({"path": str(videos / "1.mp4"), "caption": "piped"}) + "\n"
    words = command(videos, tmp_path / "out", model)
    words[2] = "-"
    assert run_ttv(*words, stdin=line).code == 0
    records = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(r)["segments"][0]["caption"] for r in records] == ["piped", "piped"]


def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(
    tmp_path: Path, videos: Path, model: Path
) -> None:
    assert run_ttv(*command(videos, tmp_path / "whole", model)).code == 0
    out = tmp_path / "killed"
    codes = kill_each(command(videos, out, model), out, "*.safetensors", (0, 2, 5))
    assert -signal.SIGKILL in codes
    assert run_ttv(*command(videos, out, model)).code == 0
    assert snapshot(out) == snapshot(tmp_path / "whole")


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(
    tmp_path: Path, videos: Path, model: Path
) -> None:
    words = command(videos, Path("out"), model)
    del words[words.index("--out") : words.index("--out") + 2]
    before = contents(videos)
    kill_at_random(words, tmp_path / "killed", tmp_path / "whole")
    assert contents(videos) == before
