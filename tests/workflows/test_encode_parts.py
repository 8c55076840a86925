"""`prep encode` by many processes, in many parts, on Ray: the bytes of one plain run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import write_vae
from step_outputs import snapshot
from video_files import cut_short, make_video

from ttvcli.artifacts.manifest import read_manifest
from ttvcli.artifacts.video import read_sidecar
from ttvcli.core.video.decode import scan
from ttvcli.errors import UsageError
from ttvcli.workflows import encode_job
from ttvcli.workflows.encode import EncodeConfig, run
from ttvcli.workflows.encode_merge import damaged_before
from ttvcli.workflows.step import Silent

SMALL: dict[str, Any] = {"size": (32, 24), "fps": 16}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vae(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sound videos, two of them alike, and three that are not."""
    folder = tmp_path_factory.mktemp("videos")
    for number, frames in enumerate((40, 17, 16, 60, 19)):
        make_video(folder / f"v{number}.mp4", frames=frames, **SMALL)
    shutil.copy(folder / "v0.mp4", folder / "same.mp4")
    (folder / "v1.txt").write_text("a caption")
    make_video(folder / "short.mp4", frames=5, **SMALL)
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(999))
    whole = make_video(folder / "w.avi", codec="mjpeg", pixels="yuvj420p", frames=33, **SMALL)
    cut_short(whole, folder / "cut.avi", 0.7)
    whole.unlink()
    return folder


def config(source: Path, out: Path, model: Path, **changes: Any) -> EncodeConfig:
    settings = {"frames": 17, "device": "cpu", **changes}
    return EncodeConfig(source=str(source), out=out, model=str(model), **settings)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_job, "worker_count", lambda *, on_gpu: 0)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, videos: Path, model: Path) -> Path:
    out = tmp_path_factory.mktemp("encoded") / "latents"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode_job, "worker_count", lambda *, on_gpu: 0)
        assert run(config(videos, out, model)).clips == 8
    return out


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_processes_changes_no_byte(
    tmp_path: Path, encoded: Path, videos: Path, model: Path, workers: int
) -> None:
    result = run(config(videos, tmp_path / "out", model, workers=workers))
    assert (result.clips, result.encoded, len(result.failed)) == (8, 8, 3)
    assert snapshot(tmp_path / "out") == snapshot(encoded)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("parts", [2, 5])
def test_parts_merge_to_the_bytes_of_one_run(
    tmp_path: Path, encoded: Path, videos: Path, model: Path, parts: int
) -> None:
    out = tmp_path / "out"
    for index in range(parts, 0, -1):
        assert not (out / "manifest.jsonl").exists()
        run(config(videos, out, model, shard=f"{index}/{parts}"))
    assert snapshot(out) == snapshot(encoded)
    again = run(config(videos, out, model, shard=f"1/{parts}"))
    assert again.encoded == 0


@pytest.mark.usefixtures("inline")
def test_a_run_without_part_goes_on_where_parts_stopped(
    tmp_path: Path, encoded: Path, videos: Path, model: Path
) -> None:
    out = tmp_path / "out"
    first = run(config(videos, out, model, shard="1/2"))
    assert 0 < first.encoded < 8
    assert run(config(videos, out, model)).encoded == 8 - first.encoded
    assert snapshot(out) == snapshot(encoded)


@pytest.mark.usefixtures("inline")
def test_parts_whose_files_were_lost_are_not_merged(
    tmp_path: Path, encoded: Path, videos: Path, model: Path
) -> None:
    out = tmp_path / "out"
    run(config(videos, out, model, shard="1/2"))
    mine = read_manifest(out / "manifest.1-of-2.jsonl")
    lost = next(r for r in mine if r["source"] not in ("same.mp4", "v0.mp4"))
    (out / lost["path"]).unlink()
    notes: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    run(config(videos, out, model, shard="2/2"), Notes())
    assert not (out / "manifest.jsonl").exists()
    assert "without --shard" in notes[-1]
    run(config(videos, out, model))
    assert snapshot(out) == snapshot(encoded)


def test_a_part_may_not_delete_what_others_made(tmp_path: Path, videos: Path, model: Path) -> None:
    with pytest.raises(UsageError, match="--force"):
        run(config(videos, tmp_path / "out", model, shard="1/2", force=True))


def test_a_killed_run_with_processes_leaves_none_and_continues(
    tmp_path: Path, encoded: Path, videos: Path, model: Path
) -> None:
    out = tmp_path / "out"
    words = [str(videos), "--out", str(out), "--model", str(model), "--frames", "17"]
    words += ["--device", "cpu", "--workers", "2"]
    command = [sys.executable, "-m", "ttvcli", "prep", "encode", *words]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        for _ in range(1200):
            if (out / "manifest.jsonl").exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = [int(word) for word in children.read_text().split()] if children.exists() else []
        process.send_signal(signal.SIGKILL)
    for _ in range(200):
        workers = [pid for pid in workers if _runs(pid)]
        if not workers:
            break
        time.sleep(0.05)
    assert not workers
    run(config(videos, out, model, workers=1))
    assert snapshot(out) == snapshot(encoded)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.usefixtures("inline")
def test_verify_shows_one_clip_beside_its_source(tmp_path: Path, videos: Path, model: Path) -> None:
    out = tmp_path / "out"
    result = run(config(videos, out, model, limit=3, verify=True))
    assert result.paths == [out, out / "verify.mp4"]
    seen = scan(out / "verify.mp4")
    assert (seen.frames, seen.info.width, seen.info.height) == (17, 32, 16)
    about = read_sidecar(out / "verify.mp4")
    assert about["psnr_db"] > 0
    assert about["settings"]["clip"] in {record["id"] for record in read_manifest(out)}


@pytest.mark.usefixtures("inline")
def test_what_was_found_damaged_is_known_to_the_next_run(encoded: Path) -> None:
    report = json.loads((encoded / "report.json").read_text())
    hashes = {entry["item"]: entry.get("sha256") for entry in report["skipped"]}
    assert hashes.keys() == {"cut.avi", "noise.mp4", "short.mp4"}
    assert len(hashes["cut.avi"] or "") == 64
    assert damaged_before(encoded) == {hashes["cut.avi"], hashes["short.mp4"]}


@pytest.mark.parametrize("text", ["[1]", "half {"])
def test_a_report_of_something_else_tells_of_no_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    assert damaged_before(tmp_path) == set()


@pytest.mark.slow
def test_ray_gives_the_same_bytes(
    tmp_path: Path, encoded: Path, videos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        result = run(config(videos, tmp_path / "out", model, engine="ray", workers=1))
    finally:
        ray.shutdown()
    assert (result.clips, result.encoded, len(result.failed)) == (8, 8, 3)
    assert snapshot(tmp_path / "out") == snapshot(encoded)


def test_without_ray_nothing_is_begun(
    tmp_path: Path, videos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_job, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="Ray is not installed"):
        run(config(videos, tmp_path / "out", model, engine="ray"))
    assert not (tmp_path / "out").exists()
