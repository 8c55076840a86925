"""Captions in tables: those that come with a data set, and the one that is filled in by hand.

Read forms: JSON Lines (`.jsonl`, `.ndjson`, or a `.json` list) and CSV or TSV with one row a video
or a segment, and `prompts.txt` with `videos.txt`, line by line. A table names a video in one of the
columns FILE_KEYS, its text in one of CAPTION_KEYS, and if it likes the segment: its number in
`segment`, or its `start` in seconds.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import json_text, write_text
from ttvcli.errors import ArtifactError, counted

FILE_KEYS = ("path", "file_name", "filename", "file", "video", "video_path", "videos", "id")
CAPTION_KEYS = ("caption", "text", "prompt", "description")
TABLE_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.tsv")
PROMPTS, VIDEOS = ("prompts.txt", "prompt.txt"), "videos.txt"
_SHOWN = 80  # characters of a value in a complaint
FILL_IN_COLUMNS = (
    *("path", "id", "segment", "start", "end"),
    *("problem", "present", "contact_sheet", "caption"),
)


@dataclass(frozen=True)
class CaptionRow:
    """One caption of a table: of a whole video, or of one of its segments."""

    file: str  # as the table has it, see `in_a_table`
    caption: str  # one line, "" where it is still to be filled in
    id: str = ""
    segment: int | None = None
    start: float | None = None
    language: str = ""


def read_caption_table(path: Path) -> list[CaptionRow]:
    """Read a table of any of the forms.

    Raises:
        ArtifactError: missing, no such form, or without the columns that are needed.
    """
    text = _read(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        rows = _from_csv(text, path, "\t" if suffix == ".tsv" else ",")
    elif suffix in (".jsonl", ".ndjson", ".json"):
        rows = _from_json(text, path)
    else:
        raise ArtifactError(
            "captions are read from .jsonl, .json, .csv and .tsv", where=str(path), fix="rename it"
        )
    return [_row(number, row, path) for number, row in rows]


def read_prompt_lists(folder: Path) -> list[CaptionRow]:
    """Read `prompts.txt` and `videos.txt` of a folder; empty if it does not have both.

    Raises:
        ArtifactError: they are not of the same number of lines.
    """
    prompts = next((folder / name for name in PROMPTS if (folder / name).is_file()), None)
    videos = folder / VIDEOS
    if prompts is None or not videos.is_file():
        return []
    texts, files = (_read(path).rstrip("\n").split("\n") for path in (prompts, videos))
    if len(texts) != len(files):
        raise ArtifactError(
            f"{prompts.name} has {counted(len(texts), 'line')}, {VIDEOS} has {len(files)}",
            where=str(folder),
            fix="line n of one belongs to line n of the other",
        )
    pairs = zip(files, texts, strict=True)
    return [CaptionRow(file.strip(), one_line(text)) for file, text in pairs if file.strip()]


def write_fill_in(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the table to fill in by hand, as CSV or JSON Lines by its suffix."""
    if path.suffix.lower() != ".csv":
        lines = ({key: row.get(key, "") for key in FILL_IN_COLUMNS} for row in rows)
        write_text(path, "".join(json_text(line) + "\n" for line in lines))
        return
    data = io.StringIO()
    writer = csv.DictWriter(data, FILL_IN_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    # The mark lets spreadsheets see that it is UTF-8.
    write_text(path, "\ufeff" + data.getvalue().encode("utf-8", "backslashreplace").decode())


def in_a_table(path: str) -> str:
    """Return a path as tables have it: bytes that are not UTF-8 as \\udcNN, which CSV can hold."""
    return path.encode("utf-8", "backslashreplace").decode()


def one_line(text: Any) -> str:
    """Return a text without line breaks, runs of spaces, NULs and what is no Unicode."""
    return " ".join(str(text).replace("\0", " ").encode("utf-8", "replace").decode().split())


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(
            "there is no such table of captions",
            where=str(path),
            fix="--fill-in FILE writes one to be filled in",
        ) from None
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=str(path)) from error
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(encoding, errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", " ")


def _from_csv(text: str, path: Path, delimiter: str) -> list[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(1 << 24)
    # Strict: a quotation mark that is never closed would swallow all rows behind it.
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows: list[tuple[int, dict[Any, Any]]] = []
    try:
        for row in reader:
            rows.append((len(rows) + 2, row))
    except csv.Error as error:
        raise ArtifactError(
            f"row {len(rows) + 2}: {error}",
            where=str(path),
            fix='a text in quotation marks ends with one; a " inside of it is written twice',
        ) from error
    for number, row in rows:
        if any(row.get(None) or []):
            raise ArtifactError(
                f"row {number} has more columns than the first row names",
                where=str(path),
                fix="a text with a comma or a tab in it stands in quotation marks",
            )
    return rows


def _from_json(text: str, path: Path) -> list[tuple[int, dict[str, Any]]]:
    if text.lstrip().startswith("["):
        try:
            values = list(enumerate(json.loads(text), start=1))
        except ValueError as error:
            raise ArtifactError(f"not JSON: {error}", where=str(path)) from error
    else:
        values = []
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                values.append((number, _object(line, number, path)))
    for number, value in values:
        if not isinstance(value, dict):
            raise ArtifactError(f"entry {number} is no object", where=str(path))
    return values


def _object(line: str, number: int, path: Path) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ArtifactError(
            f"line {number} is not JSON: {error}", where=str(path), fix="correct the line"
        ) from error


def _row(number: int, row: Mapping[str, Any], path: Path) -> CaptionRow:
    given = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
    file = next((str(given[key]) for key in FILE_KEYS if given.get(key)), "")
    texts = [key for key in CAPTION_KEYS if key in given]
    if not file or not texts:
        names = FILE_KEYS if not file else CAPTION_KEYS
        raise ArtifactError(
            f"row {number} has none of {', '.join(names)}, only {', '.join(given) or 'nothing'}",
            where=str(path),
            fix="every row names a video and has its caption",
        )
    several = next((key for key in texts if isinstance(given[key], list | dict)), None)
    if several is not None:
        raise ArtifactError(
            f"row {number}: {several} is {json.dumps(given[several])[:_SHOWN]}, expected one text",
            where=str(path),
            fix="a row for each caption; the first one of a video counts",
        )
    caption = next((one_line(given[key]) for key in texts if given[key]), "")
    try:
        segment = given.get("segment")
        start = given.get("start")
        return CaptionRow(
            file=in_a_table(file.strip()),
            caption=caption,
            id=str(given.get("id") or "").strip(),
            segment=int(segment) if segment not in (None, "") else None,
            start=float(start) if start not in (None, "") else None,
            language=str(given.get("language") or "").strip(),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(
            f"row {number}: segment and start are numbers: {error}", where=str(path)
        ) from error
