"""Look at videos and say of each what it is like, and whether to keep it: nothing is deleted.

Each source is decoded once, in one of several processes, through all filters; what they measured is
one small file a source. When all are measured, every source is judged, copies are compared with
each other, and the manifest is written whole. A run that was killed goes on with the sources that
have no file yet and ends with the bytes of an uninterrupted one.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import write_json
from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.manifest import MANIFEST_NAME, write_manifest
from ttvcli.artifacts.schema import HEADER_NAME, Header, check_claim, claim_folder, header
from ttvcli.core.video.decode import probe
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.errors import UsageError, counted
from ttvcli.workflows.filter_job import FilterConfig, Job, prepare
from ttvcli.workflows.filter_measure import Task, measure_source, write_failure
from ttvcli.workflows.filter_records import Verdicts, make_report
from ttvcli.workflows.filter_report import write_html_report
from ttvcli.workflows.filter_state import (
    clean_up,
    forget_all,
    is_current,
    is_known,
    key_of,
    read_state,
    stamp,
)
from ttvcli.workflows.free_space import check_free_space
from ttvcli.workflows.output_folder import check_ours
from ttvcli.workflows.process_pool import Message, ProcessPool, why_lost
from ttvcli.workflows.step import SILENT, PlainResult, Plan, Progress
from ttvcli.workflows.video_sources import Source

REPORT_NAME = "report.json"
_BYTES_PER_VIDEO = 6_000  # state and line of the manifest
_BYTES_PER_STRIP = 10_000  # its small pictures
_PROBED = 100  # headers that a plan looks at
_PIXELS_PER_SECOND = 350e6  # decoded and measured by one process

__all__ = ["FilterConfig", "FilterResult", "plan", "run"]

Measurer = Callable[[Iterable[Task]], Iterator[Message]]


@dataclass(frozen=True)
class FilterResult(PlainResult):
    """What a run did; `measured` counts the videos that this run decoded."""

    paths: list[Path]
    videos: int
    kept: int
    dropped: int
    measured: int
    dropped_by_reason: dict[str, int]
    failed: list[dict[str, Any]]


def plan(config: FilterConfig) -> Plan:
    """Look at the headers of some videos and tell what a run would do."""
    job = prepare(config)
    _check_output(job)
    videos = job.sources.videos
    to_measure = 0 if config.rethreshold else len(_tasks(job))
    chosen = videos[:: max(len(videos) // _PROBED, 1)]
    seconds, pixels, unreadable = 0.0, 0.0, 0
    for source in chosen:
        try:
            info = probe(source.path)
        except UnreadableVideo:
            unreadable += 1
            continue
        seconds += info.duration or 0.0
        pixels += (info.duration or 0.0) * float(info.fps or 25) * info.width * info.height
    scale = len(videos) / max(len(chosen), 1)
    pixels *= to_measure / max(len(videos), 1)
    return Plan(
        command="prep filter",
        items=[
            ("videos", len(videos)),
            ("to measure", to_measure),
            ("unreadable headers, about", round(unreadable * scale)),
            ("left out by the manifest", job.sources.left_out),
            ("seconds of video, about", round(seconds * scale, 1)),
            ("filters", ", ".join(entry.name for entry in job.filters)),
            ("processes", job.workers),
            ("output", str(config.out)),
        ],
        bytes={"disk": len(videos) * _bytes_per_video(config)},
        eta_seconds=pixels * scale / _PIXELS_PER_SECOND / job.workers,
    )


def run(
    config: FilterConfig, progress: Progress = SILENT, *, measurer: Measurer | None = None
) -> FilterResult:
    """Measure every video that is not measured yet, and judge all of them.

    Args:
        config: settings.
        progress: where to report.
        measurer: does the tasks it is given and tells about each; processes by default.

    Raises:
        UsageError: the output was made with other settings, or another process writes there.
        WouldNotFit: not enough disk.
        ArtifactError: no source.
    """
    job = prepare(config)
    with only_writer(config.out):
        _claim(job)
        measured = 0
        if not config.rethreshold:
            measured = _measure_all(job, progress, measurer)
        verdicts = Verdicts(job)
        lines = len(job.sources.videos) + len(job.sources.dropped)
        progress.start("judging", lines, "videos")
        write_manifest(config.out / MANIFEST_NAME, _counted(verdicts.records(), progress))
        write_json(config.out / REPORT_NAME, make_report(job, verdicts))
        progress.finish()
        paths = [config.out]
        if config.report is not None:
            write_html_report(job, verdicts, config.report)
            paths.append(config.report)
    counts = verdicts.counts
    kept, dropped = counts["keep"] + counts["unjudged"], counts["drop"]
    progress.note(f"{kept} kept, {dropped} dropped, {counts['unreadable']} unreadable")
    for code, count in verdicts.reasons.most_common():
        progress.note(f"  {code} {count}")
    if job.listed_again:
        again = counted(job.listed_again, "line")
        progress.note(f"left out: {again} of the manifest for a video that has one already")
    return FilterResult(
        paths=paths,
        videos=len(job.sources.videos),
        kept=kept,
        dropped=dropped,
        measured=measured,
        dropped_by_reason=dict(verdicts.reasons.most_common()),
        failed=verdicts.failed,
    )


def _claim(job: Job) -> None:
    """Make the folder ours, or continue there; refuse what is not there to be judged again."""
    out, config = job.config.out, job.config
    _check_output(job)
    if config.force:
        forget_all(out)
    claim_folder(out, _header(job), force=config.force or config.rethreshold)
    clean_up(out)


def _header(job: Job) -> Header:
    return header("filtered", job.settings())


def _check_output(job: Job) -> None:
    """Refuse a folder of something else, of other settings, or without what is to be judged."""
    out, config = job.config.out, job.config
    check_ours(out, "filtered", "verdicts")
    if config.rethreshold:
        _check_measured(job)
    try:
        check_claim(out, _header(job), force=config.force or config.rethreshold)
    except UsageError as error:
        again = "--rethreshold judges again by what was measured, --force measures everything again"
        new = _filters_not_run(job, job.sources.videos)
        if new:
            again = (
                f"not run there, or by another ttv: {new}; leave out what is not needed, or "
                "--force to measure everything again"
            )
        fix = again if (out / HEADER_NAME).exists() else error.fix
        raise UsageError(error.what, where=error.where, fix=fix) from None


def _check_measured(job: Job) -> None:
    missing = [
        source
        for source in job.sources.videos
        if not is_known(read_state(job.config.out, key_of(source)), source, job.filters)
    ]
    if not missing:
        return
    total = counted(len(job.sources.videos), "video")
    new = _filters_not_run(job, missing)
    what = "not measured, or changed since"
    if new:
        what = f"not measured, or by another ttv, with {new}"
    fix = "run with the settings of before and without --rethreshold first"
    if new:
        fix = f"leave {new} out, or --force in place of --rethreshold to measure everything again"
    raise UsageError(f"{what}: {len(missing)} of {total}", where=missing[0].name, fix=fix)


def _filters_not_run(job: Job, sources: list[Source]) -> str:
    """Name the filters that videos were not measured with though they were with others."""
    lacking: set[str] = set()
    for source in sources:
        state = read_state(job.config.out, key_of(source)) or {}
        run = state.get("filters")
        if run is not None and state.get("stamp") == stamp(source.path):
            lacking |= {item.name for item in job.filters if run.get(item.name) != item.version}
    return ", ".join(sorted(lacking))


def _tasks(job: Job) -> list[Task]:
    """The sources that have to be measured, each once."""
    names = tuple(entry.name for entry in job.filters)
    found: dict[str, Task] = {}
    for source in job.sources.videos:
        key = key_of(source)
        known = read_state(job.config.out, key)
        if not is_current(known, source, job.filters):
            config = job.config
            found[key] = Task(source, key, config.out, names, config.thumbnails, job.models)
    return list(found.values())


def _measure_all(job: Job, progress: Progress, measurer: Measurer | None) -> int:
    """Measure what is not measured yet; returns how many videos that were."""
    tasks = _tasks(job)
    if not tasks:
        return 0
    needed = len(tasks) * _bytes_per_video(job.config)
    check_free_space(job.config.out, needed, "choose another --out, or --set thumbnails=false")
    total = len(job.sources.videos)
    progress.start("measuring", total, "videos", done=total - len(tasks))
    workers, frames, began = min(job.workers, len(tasks)), 0, time.monotonic()
    with ProcessPool(measure_source, workers, job.config.patience) as pool:
        for message in (measurer or pool.map)(tasks):
            if message.kind == "beat":
                progress.advance(0)
                continue
            if message.kind == "error":  # not of the video, but of writing down what it is like
                raise message.value
            if message.kind in ("crashed", "timeout"):
                write_failure(message.item, message.kind, why_lost(message, job.config.patience))
            frames += message.value["frames"] if message.kind == "done" else 0
            rate = frames / max(time.monotonic() - began, 1e-3)
            progress.advance(1, frames_per_second=rate)
    progress.finish()
    clean_up(job.config.out)  # workers of a run that was killed may have been writing until now
    return len(tasks)


def _counted(records: Iterator[Any], progress: Progress) -> Iterator[Any]:
    for record in records:
        yield record
        progress.advance(1)


def _bytes_per_video(config: FilterConfig) -> int:
    return _BYTES_PER_VIDEO + _BYTES_PER_STRIP * config.thumbnails
