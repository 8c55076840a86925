"""The end of `prep encode`: one manifest and one report, from one run or from many parts."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from ttvcli.artifacts.latents import read_latents_metadata
from ttvcli.artifacts.schema import settings_hash
from ttvcli.errors import ArtifactError
from ttvcli.workflows.encode_job import Job
from ttvcli.workflows.encode_records import Clip, Outcome, make_report, outcome
from ttvcli.workflows.output_folder import OutputFolder
from ttvcli.workflows.shards import merge_parts, names_hash, part_files


def items_hash(job: Job) -> str:
    """Return a hash of all sources of all parts."""
    return names_hash(source.name for source in job.sources.videos)


def merge(job: Job) -> str:
    """Merge the parts if all of them have ended, and say so; see `shards.merge_parts`."""
    assert job.shard is not None

    def finish(reports: list[dict[str, Any]]) -> int | None:
        folder = OutputFolder(job.config.out)
        digests: dict[str, str] = {}
        failures: dict[str, dict[str, Any]] = {}
        for report in reports:
            digests |= report["digests"]
            failures |= report["failures"]
        videos = job.sources.videos
        found = outcome(videos, digests, failures, lambda digest: _clips(folder, digest))
        if not _complete(job, found):
            return None
        folder.complete(found.records, make_report(job.settings(), job.sources, found))
        return len(found.records)

    return merge_parts(job.config.out, job.shard, items_hash(job), finish)


def _clips(folder: OutputFolder, digest: str) -> list[Clip]:
    clips = map(Clip.from_record, folder.of_source(digest))
    return sorted(clips, key=lambda clip: clip.clip)


def _complete(job: Job, found: Outcome) -> bool:
    """Whether every source has all its clips, and every clip its file."""
    wanted = settings_hash(job.settings())
    at = 0
    present = {record["source"] for record in found.records}
    without = {entry["item"] for entry in (*found.failed, *found.duplicates)}
    if any(v.name not in present | without for v in job.sources.videos):
        return False
    while at < len(found.records):
        count = found.records[at]["clips"]
        clips = found.records[at : at + count]
        if [record["clip"] for record in clips] != list(range(count)):
            return False
        at += count
    return all(is_sound(job.config.out / r["path"], wanted) for r in found.records)


def damaged_before(folder: Path) -> set[str]:
    """Return the hashes of sources that earlier runs found damaged."""
    found: set[str] = set()
    parts = (path for path in part_files(folder) if path.suffix == ".json")
    for path in [folder / "report.json", *parts]:
        report: Any = None
        with suppress(OSError, ValueError):
            report = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(report, dict):  # else it is not one of ours
            entries = report.get("skipped") or list(report.get("failures", {}).values())
            found |= {entry["sha256"] for entry in entries if "sha256" in entry}
    return found


def is_sound(path: Path, settings: str) -> bool:
    """Tell whether a latents file is whole and was made with these settings (their hash)."""
    try:
        return read_latents_metadata(path).get("settings_hash") == settings
    except ArtifactError:
        return False
