"""`ttv demo`: the whole pipeline, again, and interrupted."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import Ran, run_ttv
from tiny_model import TinyData, write_model

from ttvcli.artifacts import checkpoint, model_folder, runs
from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.video import read_sidecar
from ttvcli.errors import WorkFailed
from ttvcli.workflows import demo_training

PLACES = ["raw", "latents", "text", "run", "video.mp4", "check.json", "video.png"]


@pytest.fixture(scope="module")
def model(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that prefers two denoising steps."""
    folder = shutil.copytree(tiny_data.model, tmp_path_factory.mktemp("demo") / "model")
    about = model_folder.read_about(folder)
    model_folder.write_about(folder, {**about, "sample": {"steps": 2}})
    return folder


def ttv_demo(model: Path, out: Path, *words: str) -> Ran:
    return run_ttv(
        *("demo", "--model", model, "--out", out, "--steps", "6", "--set", "clips=4"), *words
    )


@pytest.mark.slow
def test_every_step_runs_and_training_is_killed_on_the_way(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    ran = ttv_demo(model, out)
    assert ran.code == 0, ran.stderr
    assert ran.stdout.splitlines() == [str(out / name) for name in PLACES]
    assert all((out / name).exists() for name in PLACES)
    for name in ("prep synth", "prep encode", "embed-text", "train", "sample", "check"):
        assert f"[{name}] -> {out}" in ran.stderr
    killed = re.search(r"killed with SIGKILL after step-(\d+); going on from there", ran.stderr)
    assert killed is not None
    assert 3 <= int(killed.group(1)) < 6
    assert [line["step"] for line in runs.read_metrics(out / "run")] == [1, 2, 3, 4, 5, 6]
    seen = json.loads((out / "check.json").read_text())
    assert seen["asked"][0]["colour"] == "red"

    # Again there is nothing to do; another prompt is drawn with what was trained.
    film = (out / "video.mp4").stat().st_mtime_ns
    again = ttv_demo(model, out, "--json")
    assert set(again.json) == {"places", "seconds", "seen"}
    assert (out / "video.mp4").stat().st_mtime_ns == film
    trained = (out / "run" / "model" / "trained-steps").stat().st_mtime_ns
    assert (
        run_ttv(
            *("demo", "a blue star bounces", "--model", model, "--out", out, "--steps", "6"),
            *("--set", "clips=4"),
        ).code
        == 0
    )
    assert read_sidecar(out / "video.mp4")["settings"]["texts"] == ["a blue star bounces"]
    assert (out / "run" / "model" / "trained-steps").stat().st_mtime_ns == trained

    # Other settings of the rest need --force, which makes everything again.
    other = ttv_demo(model, out, "--seed", "7")
    assert other.code == 2
    assert "seed 42, now" in other.stderr
    forced = ttv_demo(model, out, "--seed", "7", "--force")
    assert forced.code == 0, forced.stderr
    assert "killed with SIGKILL" in forced.stderr
    assert (out / "run" / "model" / "trained-steps").stat().st_mtime_ns != trained


@pytest.mark.slow
def test_an_interrupted_demo_leaves_no_process_and_goes_on(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    words = ["demo", "--model", str(model), "--out", str(out), "--set", "clips=4", "--steps", "400"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ttvcli", *words], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not checkpoint.complete_checkpoints(out / "run") and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    with only_writer(out / "run"):  # whoever trained there is gone
        pass
    done = checkpoint.latest_checkpoint(out / "run")
    assert done is not None
    first = checkpoint.step_of(done)
    # To end sooner, the rest is not trained: the run goes on from where it was.
    ran = run_ttv("train", "--config", out / "train.toml", "--stop-after", str(first + 1))
    assert ran.code == 0, ran.stderr
    assert [line["step"] for line in runs.read_metrics(out / "run")] == list(range(1, first + 2))


def test_a_training_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match="there is no such config file") as caught:
        demo_training._start_and_kill(["train", "--config", "none.toml"], tmp_path, 4)
    assert caught.value.where == "none.toml"


def test_a_dry_run_shows_every_step_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    ran = ttv_demo(model, tmp_path / "demo", "--dry-run", "--json")
    assert ran.json["plan"]["items"]["train"].startswith("6 steps to")
    assert not (tmp_path / "demo").exists()


BAD: list[tuple[list[str], int, str]] = [
    (["a dog plays"], 2, "prompts of the tiny world only"),
    (["--out", "file"], 2, "is a file"),
    (["--out", "photos"], 2, "holds something else than a demo"),
    (["--out", "photos", "--force"], 2, "holds something else than a demo"),
    (["--steps", "2"], 2, "start at 4"),
    (["--set", "clips=1"], 2, "start at 4"),
    (["--seed", "-1"], 2, "--seed must be"),
    (["--model", "nowhere"], 3, "there is no model"),
    (["--model", "earth"], 2, "needs a model of the tiny world"),
]


@pytest.mark.parametrize(("words", "code", "says"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_what_cannot_work_is_refused_at_once(
    words: list[str],
    code: int,
    says: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("photos").mkdir()
    Path("photos/me.png").write_text("")
    if "earth" in words:
        write_model(Path("earth"), world="earth")
    before = sorted(tmp_path.rglob("*"))
    ran = run_ttv("demo", *words, *(() if "--model" in words else ("--model", model)))
    assert ran.code == code, ran.stderr
    assert says in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before
