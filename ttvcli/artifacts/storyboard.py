"""Storyboards: one text for each 3 s segment of a video, and where new scenes begin.

Read forms: our JSON (`{"segments": [{"text", "negative"?, "scene_start"?}], "seconds"?}`), the
prompt files of TTT-Video (`.json` a list of videos, `.jsonl` one video a line; a video is a list of
`{"text", "requires_scene_transition"?, "neg_text"?}`), plain text with one segment a line, and the
sidecar of a video made from a storyboard, which holds it in our form.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import write_json
from ttvcli.errors import ArtifactError, counted, nearest

SEGMENT_SECONDS = 3
SCENE_END = " <end_scene>"
SCENE_START = "<start_scene> "

OUR_KEYS = ("text", "negative", "scene_start")
PUBLIC_KEYS = {
    "text": "text",
    "neg_text": "negative",
    "requires_scene_transition": "scene_start",
}


@dataclass(frozen=True)
class Segment:
    """Three seconds: what is seen, what is not wanted, and whether a new scene begins here."""

    text: str
    negative: str = ""
    scene_start: bool = False


@dataclass(frozen=True)
class Storyboard:
    """The segments of one video in order. The first one never marks a new scene."""

    segments: tuple[Segment, ...]

    @property
    def seconds(self) -> int:
        """Length of the video."""
        return SEGMENT_SECONDS * len(self.segments)

    @property
    def prompts(self) -> list[str]:
        """Texts as the model gets them: marked where one scene ends and the next begins."""
        texts = [segment.text for segment in self.segments]
        for number in range(1, len(texts)):
            if self.segments[number].scene_start:
                texts[number - 1] += SCENE_END
                texts[number] = SCENE_START + texts[number]
        return texts

    @property
    def negatives(self) -> list[str]:
        """Negative texts, "" where there is none."""
        return [segment.negative for segment in self.segments]

    def to_json(self) -> dict[str, Any]:
        """Return the storyboard in our JSON form, without the keys that say nothing."""
        segments = []
        for segment in self.segments:
            entry: dict[str, Any] = {"text": segment.text}
            if segment.negative:
                entry["negative"] = segment.negative
            if segment.scene_start:
                entry["scene_start"] = True
            segments.append(entry)
        return {"segments": segments, "seconds": self.seconds}


def read_storyboard(path: str | Path) -> Storyboard:
    """Read the only storyboard of a file, or of standard input ("-")."""
    boards = read_storyboards(path)
    if len(boards) != 1:
        raise ArtifactError(
            f"the file holds {len(boards)} videos, expected one",
            where=str(path),
            fix="keep one video in the file",
        )
    return boards[0]


def read_storyboards(path: str | Path) -> list[Storyboard]:
    """Read every storyboard of a file, in any of the forms."""
    where = "standard input" if str(path) == "-" else str(path)
    try:
        text = sys.stdin.read() if str(path) == "-" else Path(path).read_text("utf-8-sig")
    except FileNotFoundError:
        raise ArtifactError("there is no such storyboard", where=where) from None
    except UnicodeDecodeError as error:
        raise ArtifactError(f"a storyboard is UTF-8 text: {error}", where=where) from None
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=where) from error
    suffix = Path(path).suffix.lower()
    if suffix == ".jsonl":
        videos = [_parse(line, where) for line in text.splitlines() if line.strip()]
    elif suffix == ".json" or text.lstrip()[:1] in ("{", "["):
        videos = _videos(_parse(text, where))
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        videos = [[{"text": line} for line in lines]]
    boards = [_board(video, where, number, len(videos)) for number, video in enumerate(videos, 1)]
    if not boards:
        raise ArtifactError("the storyboard is empty", where=where, fix="write a text a segment")
    return boards


def write_storyboard(path: str | Path, board: Storyboard) -> None:
    """Write a storyboard in our JSON form."""
    write_json(path, board.to_json())


def check_storyboard(
    board: Storyboard,
    *,
    seconds: float | None = None,
    count_tokens: Callable[[str], int] | None = None,
    max_tokens: int | None = None,
    where: str = "",
) -> None:
    """Raise ArtifactError if the length is not `seconds`, or a text is over the token budget."""
    if seconds is not None and seconds != board.seconds:
        wanted = counted(round(seconds / SEGMENT_SECONDS), "segment")
        raise ArtifactError(
            f"{counted(len(board.segments), 'segment')} of {SEGMENT_SECONDS} s: "
            f"{board.seconds} s in all, not {seconds:g} s",
            where=where,
            fix=f"--seconds {board.seconds}, or {wanted}",
        )
    if count_tokens is None or max_tokens is None:
        return
    for kind, texts in (("text", board.prompts), ("negative text", board.negatives)):
        for number, text in enumerate(texts, start=1):
            count = count_tokens(text)
            if count > max_tokens:
                raise ArtifactError(
                    f"segment {number}: its {kind} has {count} tokens, the limit is {max_tokens}",
                    where=where,
                    fix="shorten it",
                )


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ArtifactError(f"not valid JSON: {error}", where=where) from None


def _videos(value: Any) -> list[Any]:
    """Return the videos of a `.json` file: ours is one object, the public form a list of lists."""
    if isinstance(value, dict) and value.get("kind") == "video" and "storyboard" in value:
        return [value["storyboard"]]
    if isinstance(value, list) and not all(isinstance(entry, dict) for entry in value):
        return value
    return [value]


def _board(video: Any, where: str, number: int, count: int) -> Storyboard:
    which = f"video {number}, " if count > 1 else ""
    seconds = None
    if isinstance(video, dict):
        extra = [key for key in video if key not in ("segments", "seconds")]
        if extra:
            hint = nearest(extra[0], ("segments", "seconds"))
            raise ArtifactError(f"{which}there is no key {extra[0]!r}", where=where, fix=hint)
        seconds = video.get("seconds")
        video = video.get("segments")
    if not isinstance(video, list) or not video:
        raise ArtifactError(
            f"{which}expected a list of segments",
            where=where,
            fix='write {"segments": [{"text": "..."}, ...]}',
        )
    segments = [_segment(entry, where, f"{which}segment {i}") for i, entry in enumerate(video, 1)]
    # A video starts with a scene anyway: the mark would only cost tokens.
    segments[0] = Segment(segments[0].text, segments[0].negative)
    board = Storyboard(tuple(segments))
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise ArtifactError(f"{which}seconds is {seconds!r}, expected a number", where=where)
        check_storyboard(board, seconds=seconds, where=where)
    return board


def _segment(entry: Any, where: str, which: str) -> Segment:
    if isinstance(entry, str):
        entry = {"text": entry}
    if not isinstance(entry, Mapping):
        raise ArtifactError(
            f"{which}: expected an object with a text, found {entry!r}", where=where
        )
    values: dict[str, Any] = {}
    for key, value in entry.items():
        name = key if key in OUR_KEYS else PUBLIC_KEYS.get(key)
        if name is None:
            known = dict.fromkeys([*OUR_KEYS, *PUBLIC_KEYS])
            raise ArtifactError(
                f"{which}: there is no key {key!r}", where=where, fix=nearest(key, known)
            )
        expected = bool if name == "scene_start" else str
        if value is None and name == "negative":
            continue
        if not isinstance(value, expected):
            words = "true or false" if expected is bool else "text"
            raise ArtifactError(f"{which}: {key} is {value!r}, expected {words}", where=where)
        values[name] = value.strip() if isinstance(value, str) else value
    if not values.get("text"):
        raise ArtifactError(f"{which}: the text is empty", where=where, fix="say what is seen")
    return Segment(**values)
