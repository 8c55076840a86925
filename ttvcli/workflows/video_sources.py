"""Find the videos a step works on, with their captions: a folder, one file, a manifest, or "-"."""

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ttvcli.artifacts.captions import TABLE_NAMES, VIDEOS
from ttvcli.artifacts.manifest import MANIFEST_NAME, read_manifest
from ttvcli.artifacts.schema import HEADER_NAME, read_header
from ttvcli.errors import ArtifactError, UsageError

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("mp4", "m4v", "mov", "qt", "3gp", "3g2", "webm", "mkv", "avi", "gif", "flv", "wmv"),
        *("asf", "mpg", "mpeg", "m2v", "ts", "mts", "m2ts", "vob", "ogv", "ogg", "rm", "rmvb"),
        *("mxf", "dv", "nut", "ivf", "obu", "y4m", "h264", "264", "hevc", "265", "mjpg", "mjpeg"),
    )
)
MANIFEST_SUFFIXES = (".jsonl", ".json", ".ndjson")
# Fields of a source's own record that describe the source file, not the clips made of it.
_OF_THE_FILE = {"id", "path", "segments", "caption", "keep", "bytes", "codec", "container"}
OTHER_FILE = "it is not the file that the manifest describes: run what wrote that again"
_LONGEST_CAPTION = 1 << 20  # bytes of a caption file that are read

Segment = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """One video: where it is, what it is called in reports, and what is known about it."""

    path: Path
    name: str  # relative to the folder or manifest it was found through, always valid text
    record: dict[str, Any] = field(default_factory=dict)  # its line of the manifest, if any

    def segments(self) -> list[Segment]:
        """Captioned spans in seconds of the source: from the manifest, else from `<name>.txt`.

        A caption for the whole video is one span without an end.
        """
        if self.record.get("segments"):
            return [clean(segment) for segment in self.record["segments"]]
        if self.record.get("caption"):
            return [{"start": 0.0, "end": None, "caption": clean(str(self.record["caption"]))}]
        caption = read_caption(self.path.with_suffix(".txt"))
        if caption is None:
            return []
        return [{"start": 0.0, "end": None, "caption": caption, "caption_source": "sidecar"}]

    def described(self, sha256: str) -> bool:
        """Whether a file of this hash may be the one that its line of the manifest describes."""
        stated = self.record.get("sha256")
        return not isinstance(stated, str) or stated.lower() == sha256

    def passed_on(self, own: Container[str]) -> dict[str, Any]:
        """Fields of its line that go on into a line of a clip that has the fields `own`."""
        left = {k: v for k, v in self.record.items() if k not in own and k not in _OF_THE_FILE}
        found: dict[str, Any] = clean(left)
        return found


@dataclass(frozen=True)
class Sources:
    """All videos in a fixed order, and how many the manifest told to leave out."""

    videos: list[Source]
    left_out: int = 0
    dropped: tuple[Source, ...] = ()  # those that were left out, for a step that passes them on

    def first(self, limit: int) -> "Sources":
        """The first `limit` videos; 0 for all."""
        return replace(self, videos=self.videos[:limit]) if limit else self


def find_sources(source: str | Path) -> Sources:
    """List the videos of a folder (of its manifest, if it has one), a manifest, a file or "-".

    Folders are searched through all sub-folders and links, in the order of the names' bytes; hidden
    files are passed over.

    Raises:
        ArtifactError: nothing there, or no video in it.
    """
    if str(source) == "-":
        return _from_manifest("-", Path())
    path = Path(source)
    if path.is_dir() and (path / MANIFEST_NAME).is_file():
        _check_videos(path)
        return _from_manifest(path / MANIFEST_NAME, path)
    if path.is_dir():
        found = sorted(_walk(path), key=lambda file: os.fsencode(file))
        if not found:
            raise ArtifactError(
                "there is no video in this folder",
                where=str(path),
                fix=f"videos end in {', '.join(sorted(VIDEO_SUFFIXES)[:12])}, ...",
            )
        return Sources([Source(path / file, printable(file.as_posix())) for file in found])
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return _from_manifest(path, path.parent)
    if not path.exists() and not path.is_symlink():
        raise ArtifactError(
            "there is no such file or folder",
            where=printable(str(path)),
            fix="give a folder of videos, one video, or a manifest",
        )
    return Sources([Source(path, printable(path.name))])


def check_apart(source: str, out: Path, *, below: bool = False) -> None:
    """Raise UsageError if the output would be among the sources.

    Args:
        source: as for `find_sources`.
        out: folder of the output.
        below: refuse folders below the sources, too, where the next run would find it. A manifest
            lists its videos, so that nothing else is found.
    """
    if source == "-":
        return
    path = Path(source)
    folder = (path if path.is_dir() else path.parent).resolve()
    place = out.resolve()
    searched = path.is_dir() and not (path / MANIFEST_NAME).is_file()
    inside = below and searched and place.is_relative_to(folder)
    if inside or (out.exists() and folder == place):
        raise UsageError(
            "the output would be among the source videos",
            where=str(out),
            fix="choose another --out; sources are never changed",
        )


def path_from(folder: Path, file: Path) -> str:
    """Return the path of a file from a folder; links to folders do not lead astray, nor vanish.

    `a/../b` is not `b` where `a` is a link: both folders are taken for where they really are.
    """
    place = Path(os.path.realpath(file.parent), file.name)
    return Path(os.path.relpath(place, os.path.realpath(folder))).as_posix()


def read_caption(path: Path) -> str | None:
    """Return a caption file as one line, whatever its encoding and line ends; None if empty.

    Cameras and old systems write names in capitals: `.TXT` is read where there is no `.txt`.
    """
    if not path.is_file():
        path = path.with_suffix(path.suffix.upper())
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_CAPTION)
    except OSError:
        return None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(encoding, errors="replace").replace("\0", " ")
    return " ".join(text.split()) or None


def unread_tables(source: str, sources: Sources) -> str:
    """Say which table of captions beside the videos is not read here; "" if there is none."""
    folders = {video.path.parent for video in sources.videos}
    if Path(source).is_dir():
        folders.add(Path(source))
    tables = (folder / name for folder in sorted(folders) for name in (*TABLE_NAMES, VIDEOS))
    found = next((table for table in tables if table.is_file()), None)
    if found is None:
        return ""
    return (
        f"the captions of {found} are not taken: `ttv prep caption SOURCE --out FOLDER` reads "
        "them, and this step then reads FOLDER"
    )


def clip_segments(
    segments: list[Segment], start: float, bounds: list[tuple[float, float]]
) -> list[Segment]:
    """Give each span of a clip the caption of the source span it overlaps most.

    Where one source span fills several, only the first of them begins its scene and only the last
    ends it.

    Args:
        segments: captioned spans in seconds of the source, as from `Source.segments`.
        start: where the clip begins in the source, in seconds.
        bounds: (start, end) of each segment in seconds of the clip.
    """
    result: list[Segment] = []
    before: Segment | None = None
    for first, last in bounds:
        best: Segment = {"caption": ""}
        most = 0.0
        for segment in segments:
            overlap = _overlap(segment, start + first, start + last)
            if overlap > most + 1e-9:
                best, most = segment, overlap
        span = {**best, "start": round(first, 6), "end": round(last, 6)}
        if best is before and "scene_end" in result[-1]:
            result[-1]["scene_end"] = False
        if best is before and "scene_start" in span:
            span["scene_start"] = False
        result.append(span)
        before = best
    return [{key: s[key] for key in sorted(s, key=_field_order)} for s in result]


def printable(name: str) -> str:
    """Return a file name as valid text; bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def clean(value: Any) -> Any:
    """Replace what cannot be written as UTF-8 in the strings of a JSON value."""
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode()
    if isinstance(value, dict):
        return {clean(key): clean(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [clean(entry) for entry in value]
    return value


def _from_manifest(manifest: str | Path, folder: Path) -> Sources:
    records = read_manifest(manifest)
    where = "standard input" if str(manifest) == "-" else str(manifest)
    videos: list[Source] = []
    dropped: list[Source] = []
    for number, record in enumerate(records, start=1):
        if not isinstance(record.get("path"), str) or not record["path"]:
            raise ArtifactError(
                f"record {number} has no path", where=where, fix="every record names its video"
            )
        file = record["path"]
        kind = dropped if record.get("keep") is False else videos
        kind.append(Source(folder / file, printable(Path(file).as_posix()), record))
    if not records:
        raise ArtifactError(
            "the manifest is empty", where=where, fix="run the step that writes it again"
        )
    return Sources(videos, len(dropped), tuple(dropped))


def _check_videos(folder: Path) -> None:
    """Refuse the folders of later steps, whose manifests name other files."""
    kind = read_header(folder).get("kind") if (folder / HEADER_NAME).is_file() else None
    if kind in ("latents", "embeddings"):
        raise ArtifactError(
            f"the folder holds {kind}, not videos",
            where=str(folder),
            fix="give the folder of the videos",
        )


def _walk(root: Path) -> Iterator[Path]:
    seen = set()
    closed: list[OSError] = []
    for folder, folders, files in os.walk(root, followlinks=True, onerror=closed.append):
        found = Path(folder).stat()
        if (found.st_dev, found.st_ino) in seen:  # a link back to a folder above
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES:
                yield Path(folder, name).relative_to(root)
    for error in closed:  # a folder that may not be listed is reported as one unreadable source
        if error.filename is not None and Path(error.filename) != root:
            yield Path(error.filename).relative_to(root)


def _overlap(segment: Segment, start: float, end: float) -> float:
    first = float(segment.get("start") or 0.0)
    last = segment.get("end")
    return min(end, float("inf") if last is None else float(last)) - max(start, first)


def _field_order(key: str) -> tuple[int, str]:
    first = ("start", "end", "caption", "language", "caption_source", "scene_start", "scene_end")
    return (first.index(key), "") if key in first else (len(first), key)
