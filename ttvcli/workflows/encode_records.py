"""Lines of the latents manifest, and the report of a `prep encode` run.

Both are functions of the sources and of what is in the folder, never of when or in how many runs
the work was done: that is what makes a resumed run equal an uninterrupted one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ttvcli.artifacts.schema import header
from ttvcli.core.video.resample import SEGMENT_FRAMES, segment_count
from ttvcli.workflows.video_sources import Source, Sources, clean, clip_segments


@dataclass(frozen=True)
class Clip:
    """What is known about an encoded clip; the fields are those of its manifest line."""

    id: str
    path: str  # of the latents, relative to the manifest
    sha256: str  # of the latents file
    width: int
    height: int
    fps: int | float
    frames: int
    source_sha256: str
    clip: int  # number of the clip in its source
    clips: int  # how many the source has
    start: float  # seconds into the source
    held: int  # frames at the end that repeat the last one
    dropped: int  # frames at the end of the source that made no clip
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Clip":
        """Read it back from a manifest line."""
        return cls(**{entry.name: record[entry.name] for entry in fields(cls)})


def clip_record(clip: Clip, source: Source) -> dict[str, Any]:
    """Return the manifest line of a clip: its facts, its captions, and unknown fields."""
    seconds_per_frame = 1 / clip.fps
    bounds = []
    for number in range(segment_count(clip.frames)):
        first = number * SEGMENT_FRAMES
        last = min(first + SEGMENT_FRAMES, clip.frames - 1) or clip.frames
        bounds.append((first * seconds_per_frame, last * seconds_per_frame))
    record: dict[str, Any] = {
        "id": clip.id,
        "path": clip.path,
        "sha256": clip.sha256,
        "width": clip.width,
        "height": clip.height,
        "fps": clip.fps,
        "frames": clip.frames,
        "duration": round(clip.frames * seconds_per_frame, 6),
        "keep": True,
        "segments": clip_segments(source.segments(), clip.start, bounds),
        "source": source.name,
    }
    if "id" in source.record:
        record["source_id"] = clean(source.record["id"])
    record |= {key: value for key, value in asdict(clip).items() if key not in record}
    return record | source.passed_on(record)


@dataclass(frozen=True)
class Outcome:
    """What became of each source, in the order of the sources."""

    records: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    duplicates: list[dict[str, Any]]


def outcome(
    videos: list[Source],
    digests: dict[str, str],
    failures: dict[str, dict[str, Any]],
    clips_of: Callable[[str], list[Clip]],
) -> Outcome:
    """Bring together what is known of the sources, whoever found it out and when.

    Args:
        videos: all sources, in order.
        digests: name of a source to the hash of its bytes; those that cannot be read are not there.
        failures: name of a source to its entry in the report.
        clips_of: the clips of a source, by the hash of its bytes.
    """
    found, seen = Outcome([], [], []), dict[str, str]()
    for source in videos:
        digest = digests.get(source.name)
        if digest in seen:
            found.duplicates.append({"item": source.name, "same_as": seen[digest]})
            continue
        if digest is not None:
            seen[digest] = source.name
        if digest is None or source.name in failures:
            found.failed.append(failures[source.name])
        else:
            found.records.extend(clip_record(clip, source) for clip in clips_of(digest))
    return found


def make_report(settings: dict[str, Any], sources: Sources, found: Outcome) -> dict[str, Any]:
    """Return the content of `report.json`."""
    records, failed = found.records, found.failed
    first = [record for record in records if record["clip"] == 0]
    notes = [{"item": r["source"], "notes": r["notes"]} for r in first if r["notes"]]
    uncaptioned = sum(not all(s.get("caption") for s in r["segments"]) for r in records)
    return {
        **header("report", settings),
        "videos": len(sources.videos),
        "encoded_videos": len(first),
        "clips": len(records),
        "clips_without_caption": uncaptioned,
        "frames_dropped_at_ends": sum(record["dropped"] for record in first),
        "left_out_by_manifest": sources.left_out,
        "skipped": failed,
        "skipped_by_reason": dict(sorted(Counter(f["reason"] for f in failed).items())),
        "duplicates": found.duplicates,
        "notes": notes,
    }
