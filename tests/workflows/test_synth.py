"""prep synth writes real, truthful clips, and picks up where it was stopped."""

import json
import os
import shutil
import signal
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ttvcli.artifacts.atomic import sha256_file
from ttvcli.artifacts.manifest import read_manifest
from ttvcli.core.video.decode import read_frames
from ttvcli.core.world.checker import check_clip
from ttvcli.core.world.grammar import parse
from ttvcli.core.world.render import render_clip
from ttvcli.core.world.scene import Scene
from ttvcli.errors import Interrupted, UsageError, WouldNotFit
from ttvcli.workflows.step import Silent
from ttvcli.workflows.synth import SynthConfig, plan, run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is not hidden; the lock is."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def test_clips_are_real_videos_of_the_ground_truth_beside_them(tmp_path):
    result = run(SynthConfig(out=tmp_path / "raw", clips=3))
    records = read_manifest(result.manifest)
    assert result.made == len(records) == 3
    for record in records:
        video = tmp_path / "raw" / record["path"]
        times, frames = zip(*read_frames(video), strict=True)
        assert record["frames"] == len(frames) == 49
        assert [record["width"], record["height"], record["fps"]] == [64, 64, 16]
        assert times[16] - times[0] == Fraction(1)
        assert record["sha256"] == sha256_file(video)
        scene = Scene.from_json(record["world"])
        ideal = render_clip(scene, 64).astype(float)
        # 4:2:0 costs some colour at the edges; the picture as a whole stays.
        assert np.abs(np.stack(frames) - ideal).mean() < 3
        (segment,) = record["segments"]
        assert [segment["start"], segment["end"]] == [0, 3]
        assert segment["caption"] == scene.segments[0].caption
        meaning = parse(segment["caption"])
        assert meaning is not None
        assert check_clip(np.stack(frames), meaning).correct


def test_long_clips_have_a_caption_for_every_three_seconds(tmp_path):
    run(SynthConfig(out=tmp_path, clips=1, seconds=18, size=16))
    (record,) = read_manifest(tmp_path)
    assert record["frames"] == 289
    assert [s["start"] for s in record["segments"]] == [0, 3, 6, 9, 12, 15]
    assert record["segments"][0]["scene_start"]
    assert record["segments"][-1]["scene_end"]
    assert all(segment["caption"] for segment in record["segments"])


def test_equal_settings_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        run(SynthConfig(out=tmp_path / name, clips=3, size=32))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_seed_gives_other_clips(tmp_path):
    for seed in (1, 2):
        run(SynthConfig(out=tmp_path / str(seed), clips=1, size=32, seed=seed))
    assert (tmp_path / "1/synth-000000.mp4").read_bytes() != (
        tmp_path / "2/synth-000000.mp4"
    ).read_bytes()


def test_a_second_run_makes_nothing_and_more_clips_extend_the_folder(tmp_path):
    run(SynthConfig(out=tmp_path / "grown", clips=2, size=32))
    again = run(SynthConfig(out=tmp_path / "grown", clips=2, size=32))
    assert (again.made, again.skipped) == (0, 2)
    more = run(SynthConfig(out=tmp_path / "grown", clips=4, size=32))
    assert (more.made, more.skipped) == (2, 2)
    run(SynthConfig(out=tmp_path / "whole", clips=4, size=32))
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")


def test_a_lost_video_is_made_again(tmp_path):
    run(SynthConfig(out=tmp_path, clips=2, size=32))
    before = contents(tmp_path)
    (tmp_path / "synth-000001.mp4").unlink()
    assert run(SynthConfig(out=tmp_path, clips=2, size=32)).made == 1
    assert contents(tmp_path) == before


def test_other_settings_are_refused_unless_forced(tmp_path):
    run(SynthConfig(out=tmp_path, clips=2, size=32))
    with pytest.raises(UsageError, match="other settings"):
        run(SynthConfig(out=tmp_path, clips=2, size=48))
    forced = run(SynthConfig(out=tmp_path, clips=2, size=48, force=True))
    assert forced.made == 2
    assert [record["width"] for record in read_manifest(tmp_path)] == [48, 48]


def test_a_killed_run_continues_to_the_same_bytes(tmp_path):
    run(SynthConfig(out=tmp_path / "whole", clips=40, size=32))
    child = os.fork()
    if child == 0:
        run(SynthConfig(out=tmp_path / "killed", clips=40, size=32))
        os._exit(0)
    manifest = tmp_path / "killed" / "manifest.jsonl"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if manifest.exists() and manifest.stat().st_size:
            break
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    resumed = run(SynthConfig(out=tmp_path / "killed", clips=40, size=32))
    assert resumed.skipped >= 1
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_signal_ends_the_run_after_the_clip_at_hand(tmp_path):
    class Interrupting(Silent):
        def advance(self, n: int = 1, **fields: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="1 of 3"):
        run(SynthConfig(out=tmp_path, clips=3, size=32), Interrupting())
    assert len(read_manifest(tmp_path)) == 1


def test_the_plan_writes_nothing_and_promises_enough_disk(tmp_path):
    config = SynthConfig(out=tmp_path / "raw", clips=5)
    promised = plan(config)
    assert not (tmp_path / "raw").exists()
    assert json.loads(json.dumps(promised.to_json()))["items"]["frames"] == 245
    run(config)
    videos = sum(path.stat().st_size for path in (tmp_path / "raw").glob("*.mp4"))
    assert videos < promised.bytes["disk"] < 4 * videos


def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(WouldNotFit, match="10 are free"):
        run(SynthConfig(out=tmp_path / "raw", clips=5))
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"clips": 0},
        {"seconds": 4},
        {"seconds": 66},
        {"size": 63},
        {"size": 2048},
        {"split": "test"},
        {"objects": 3},
        {"crf": 60},
        {"seed": -1},
        {"fps": 0},
    ],
)
def test_impossible_settings_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SynthConfig(out=tmp_path, **wrong)
