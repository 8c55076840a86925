"""One output folder, many machines: each does its share of the items and keeps its own manifest.

The share of an item follows from a name that it has everywhere, so it stays when items are added.
Files of items are named after their content and are the same whoever makes them. Every part writes
`manifest.2-of-8.jsonl` and, when it has ended, `report.2-of-8.json`; whoever finds that all of them
are there makes the one manifest and the one report that a run without parts would have written.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import write_json
from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.manifest import MANIFEST_NAME
from ttvcli.errors import UsageError, counted

_MANIFEST = re.compile(r"^manifest\.(\d+)-of-(\d+)\.jsonl$")
_REPORT = re.compile(r"^report\.(\d+)-of-(\d+)\.json$")


@dataclass(frozen=True)
class Shard:
    """The `index`-th of `count` parts, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard | None":
        """Read "2/8"; None for an empty text.

        Raises:
            UsageError: it is neither.
        """
        if not text:
            return None
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(
                f"a part is I/N with I from 1 to N, got {text!r}",
                fix="--shard 1/8 on the first of 8 machines, --shard 8/8 on the last",
            )
        return cls(int(found[1]), int(found[2]))

    def owns(self, key: str) -> bool:
        """Tell whether an item of this name belongs to the part; depends on nothing else."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1

    @property
    def label(self) -> str:
        """What its files are called after: "2-of-8"."""
        return f"{self.index}-of-{self.count}"

    @property
    def manifest(self) -> str:
        """The name of its manifest."""
        return f"manifest.{self.label}.jsonl"

    @property
    def report(self) -> str:
        """The name of its report, which is there once the part has ended."""
        return f"report.{self.label}.json"


@contextmanager
def writing(folder: Path, shard: Shard | None) -> Iterator[None]:
    """Hold the lock of a folder, or of a part of it; UsageError if another process has it.

    Parts may write at the same time, but none of them beside a run for the whole folder.
    """
    with only_writer(folder, shard.label if shard else None):
        yield


def manifest_name(shard: Shard | None) -> str:
    """The manifest that a run writes."""
    return shard.manifest if shard else MANIFEST_NAME


def part_files(folder: Path) -> list[Path]:
    """Manifests and reports of parts, in the order of their names."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _MANIFEST.match(p.name) or _REPORT.match(p.name))


def all_manifests(folder: Path) -> list[Path]:
    """Every manifest of a folder that exists, the merged one last."""
    parts = [path for path in part_files(folder) if _MANIFEST.match(path.name)]
    whole = folder / MANIFEST_NAME
    return [*parts, whole] if whole.exists() else parts


def remove_parts(folder: Path) -> None:
    """Delete what parts wrote, once it is in the one manifest."""
    for path in part_files(folder):
        path.unlink(missing_ok=True)


def refuse_force(shard: Shard | None, force: bool) -> None:
    """Raise UsageError for a part that would delete what other parts made."""
    if shard and force:
        raise UsageError(
            "--force deletes what all parts made, so a part cannot have it",
            fix="choose another --out, or run --force without --shard",
        )


def names_hash(names: Iterable[str]) -> str:
    """Return a hash of all items in order: parts fit together only if they saw the same."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def write_part_report(folder: Path, shard: Shard, items: str, content: dict[str, Any]) -> None:
    """Say that a part has ended; `items` is the `names_hash` of all items, of all parts."""
    write_json(folder / shard.report, {"part": shard.label, "items": items, **content})


def finished_parts(folder: Path, shard: Shard, items: str) -> list[dict[str, Any]] | None:
    """Return the reports of all parts; None unless each has ended with the same items."""
    found = []
    for index in range(1, shard.count + 1):
        report: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            path = folder / Shard(index, shard.count).report
            report = json.loads(path.read_text(encoding="utf-8"))
        if report.get("items") != items:
            return None
        found.append(report)
    return found


def merge_parts(
    folder: Path, shard: Shard, items: str, finish: Callable[[list[dict[str, Any]]], int | None]
) -> str:
    """Finish a folder if all of its parts have ended, and say so.

    Called by every part when it has ended and given back its lock. Of several that end together the
    one that gets the lock of the whole folder merges, and it sees the reports of all.

    Args:
        folder: of all parts.
        shard: the part that calls.
        items: the `names_hash` of all items, of all parts.
        finish: makes one manifest and one report out of the parts' reports, and returns how many
            clips there are; None if files are missing.
    """
    parts = counted(shard.count, "part")
    try:
        with writing(folder, None):
            reports = finished_parts(folder, shard, items)
            if reports is not None:
                clips = finish(reports)
                if clips is None:
                    return (
                        "files of a part are missing: the same command without --shard makes them"
                    )
                return f"{parts} merged: {counted(clips, 'clip')} in manifest.jsonl"
    except UsageError:  # another part has the lock
        pass
    return f"manifest.jsonl follows when all {parts} have ended"
