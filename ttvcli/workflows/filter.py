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
from ttvcli.artifacts.schema import claim_folder, header
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
)
from ttvcli.workflows.free_space import check_free_space
from ttvcli.workflows.output_folder import check_ours
from ttvcli.workflows.process_pool import Message, ProcessPool, why_lost
from ttvcli.workflows.step import SILENT, PlainResult, Plan, Progress

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
    videos = job.sources.videos
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
    return Plan(
        command="prep filter",
        items=[
            ("videos", len(videos)),
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
        progress.start("judging", len(job.sources.videos), "videos")
        verdicts = Verdicts(job)
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
    check_ours(out, "filtered", "verdicts")
    if config.rethreshold:
        _check_measured(job)
    if config.force:
        forget_all(out)
    new = header("filtered", job.settings())
    try:
        claim_folder(out, new, force=config.force or config.rethreshold)
    except UsageError as error:
        fix = "--rethreshold judges again by what was measured, --force measures everything again"
        raise UsageError(error.what, where=error.where, fix=fix) from None
    clean_up(out)


def _check_measured(job: Job) -> None:
    missing = [
        source.name
        for source in job.sources.videos
        if not is_known(read_state(job.config.out, key_of(source)), source, job.filters)
    ]
    if missing:
        total = len(job.sources.videos)
        raise UsageError(
            f"not measured, or changed since: {len(missing)} of {counted(total, 'video')}",
            where=missing[0],
            fix="run with the thresholds of before and without --rethreshold first; "
            "--without leaves out filters that were not run",
        )


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
