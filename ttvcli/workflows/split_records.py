"""Lines of the clips manifest, and the report of a `prep split` run.

Both are functions of the sources and of what is in the folder, never of when or in how many runs
the work was done: that is what makes a resumed run equal an uninterrupted one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ttvcli.artifacts.schema import header
from ttvcli.core.video.crop import Edges
from ttvcli.core.video.segments import DroppedScene, Segment, SegmentRule
from ttvcli.core.video.shots import MICRO, FoundShots
from ttvcli.workflows.video_sources import Source, Sources, clean, clip_segments

_SPAN = ("scene", "source_start", "source_end", "scene_start", "scene_end")


@dataclass(frozen=True)
class SourceCut:
    """How a source was cut; the same in the lines of all its clips."""

    seconds: float
    scenes: int
    dropped_scenes: dict[str, int]  # by reason
    segments: int  # cut from its scenes
    unused_segments: int  # left over when clips were assembled
    bars: dict[str, int]  # pixels of the file cut off each side, as shown; empty if none were


@dataclass(frozen=True)
class Clip:
    """What is known about a clip; the fields are those of its manifest line."""

    id: str
    path: str  # relative to the manifest
    sha256: str
    bytes: int
    width: int
    height: int
    fps: int | float
    frames: int
    source_sha256: str
    clip: int  # number of the clip in its source
    clips: int  # how many the source has
    start: float  # seconds into the source
    held: int  # frames that show the last frame of a scene once more
    spans: list[dict[str, Any]]  # of each segment: where it is in the source
    cut: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Clip":
        """Read it back from a manifest line."""
        found = {entry.name: record[entry.name] for entry in fields(cls) if entry.name != "spans"}
        spans = [{key: segment[key] for key in _SPAN} for segment in record["segments"]]
        return cls(**found, spans=spans)


def source_cut(
    found: FoundShots,
    segments: Sequence[Segment],
    dropped: Sequence[DroppedScene],
    used: int,
    edges: Edges,
) -> SourceCut:
    """Sum up how a source was cut; `used` segments are part of a clip."""
    upright = edges.upright(found.info.rotation)
    return SourceCut(
        seconds=round(found.clock.end / MICRO, 6),
        scenes=len(found.shots),
        dropped_scenes=dict(sorted(Counter(scene.reason for scene in dropped).items())),
        segments=len(segments),
        unused_segments=len(segments) - used,
        bars=asdict(upright) if upright else {},
    )


def spans_of(clip: Sequence[Segment], rule: SegmentRule) -> list[dict[str, Any]]:
    """Return for each segment of a clip its scene and where it is in the source."""
    return [
        {
            "scene": segment.scene,
            "source_start": _seconds(segment.start),
            "source_end": _seconds(segment.start + rule.length),
            "scene_start": segment.number == 0,
            "scene_end": segment.number == segment.of - 1,
        }
        for segment in clip
    ]


def clip_record(
    clip: Clip, source: Source, rule: SegmentRule, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the manifest line of a clip: its facts, its captions, and unknown fields.

    What later steps wrote into the line `before` stays: its verdict, captions that are not from the
    source, and fields of their own.
    """
    captions = source.segments()
    before = before or {}
    written = before.get("segments", [{}] * len(clip.spans))
    record: dict[str, Any] = {
        "id": clip.id,
        "path": clip.path,
        "sha256": clip.sha256,
        "bytes": clip.bytes,
        "width": clip.width,
        "height": clip.height,
        "fps": clip.fps,
        "frames": clip.frames,
        "duration": round(clip.frames / clip.fps, 6),
        "keep": before.get("keep", True),
        "segments": [
            _segment(captions, span, number, rule, written[number])
            for number, span in enumerate(clip.spans)
        ],
        "source": source.name,
    }
    if "id" in source.record:
        record["source_id"] = clean(source.record["id"])
    facts = asdict(clip)
    del facts["spans"]
    record |= {key: value for key, value in facts.items() if key not in record}
    later = {key: value for key, value in before.items() if key not in record}
    return record | later | source.passed_on(record)


def make_report(
    settings: dict[str, Any],
    sources: Sources,
    records: list[dict[str, Any]],
    failed: list[dict[str, Any]],
    duplicates: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the content of `report.json`."""
    first = [record for record in records if record["clip"] == 0]
    dropped: Counter[str] = Counter()
    for record in first:
        dropped.update(record["cut"]["dropped_scenes"])
    notes = [{"item": r["source"], "notes": r["notes"]} for r in first if r["notes"]]
    uncaptioned = sum(not all(s.get("caption") for s in r["segments"]) for r in records)
    per_clip = settings["segments"] * settings["segment_frames"]
    fps = records[0]["fps"] if records else 1
    return {
        **header("report", settings),
        "videos": len(sources.videos),
        "cut_videos": len(first),
        "clips": len(records),
        "clips_without_caption": uncaptioned,
        "seconds_of_video": round(sum(r["cut"]["seconds"] for r in first), 3),
        "seconds_of_clips": round(len(records) * per_clip / fps, 3),
        "scenes": sum(record["cut"]["scenes"] for record in first),
        "dropped_scenes_by_reason": dict(sorted(dropped.items())),
        "videos_with_bars_cropped": sum(bool(record["cut"]["bars"]) for record in first),
        "unused_segments": sum(record["cut"]["unused_segments"] for record in first),
        "left_out_by_manifest": sources.left_out,
        "skipped": failed,
        "skipped_by_reason": dict(sorted(Counter(f["reason"] for f in failed).items())),
        "duplicates": duplicates,
        "notes": notes,
    }


def _segment(
    captions: list[dict[str, Any]],
    span: dict[str, Any],
    number: int,
    rule: SegmentRule,
    written: dict[str, Any],
) -> dict[str, Any]:
    length = float(rule.frames / rule.fps)
    whole = [(0.0, span["source_end"] - span["source_start"])]
    (captioned,) = clip_segments(captions, span["source_start"], whole)
    since = written.get("caption_source") != captioned.get("caption_source")
    if written.get("caption") and (since or not captioned.get("caption")):
        captioned = written
    bounds = {"start": round(number * length, 6), "end": round((number + 1) * length, 6)}
    return {**captioned, **bounds, **span}


def _seconds(micro: Any) -> float:
    return round(float(micro) / MICRO, 6)
