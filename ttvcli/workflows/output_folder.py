"""An output folder that a run can be killed over: first a file, then its manifest line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import write_json
from ttvcli.artifacts.manifest import (
    MANIFEST_NAME,
    ManifestWriter,
    read_manifest,
    to_line,
    write_manifest,
)
from ttvcli.artifacts.schema import HEADER_NAME, Header, check_settings, claim_folder, read_header
from ttvcli.errors import ArtifactError, UsageError, counted
from ttvcli.workflows.shards import (
    Shard,
    all_manifests,
    manifest_name,
    refuse_force,
    remove_parts,
)
from ttvcli.workflows.step import Progress


class OutputFolder:
    """The files and the manifest of one step; hold `shards.writing` while using it.

    `done` has the items of all manifests there, those of other parts too; `own` names those of the
    manifest that is written.
    """

    def __init__(self, path: Path, shard: Shard | None = None) -> None:
        self.path = path
        self.manifest = path / manifest_name(shard)
        # To look into a folder must not begin a manifest.
        self._writer = ManifestWriter(self.manifest) if self.manifest.exists() else None
        self.done: dict[str, dict[str, Any]] = {}
        for manifest in [*all_manifests(path), self.manifest]:
            self.done |= {record["id"]: record for record in _records(manifest)}
        self.own = {record["id"] for record in _records(self.manifest)}
        self._of_source: dict[str, dict[str, None]] = {}  # ids, in order
        for record in self.done.values():
            self._of_source.setdefault(record.get("source_sha256", ""), {})[record["id"]] = None

    @classmethod
    def open(
        cls, path: Path, header: Header, *, force: bool, shard: Shard | None = None
    ) -> "OutputFolder":
        """Take or continue a folder, or a part of it.

        Raises:
            UsageError: it holds something else, or was made with other settings and not `force`.
        """
        refuse_force(shard, force)
        check_ours(path, header["kind"])
        if force:
            _remove_results(path)
        claim_folder(path, header, force=force)
        ManifestWriter(path / manifest_name(shard))  # begins or repairs it
        return cls(path, shard)

    def add(self, record: dict[str, Any]) -> None:
        """Record a finished item, whose file is already in place."""
        if self._writer is None:
            self._writer = ManifestWriter(self.manifest)
        self._writer.append(record)
        self.done[record["id"]] = record
        self.own.add(record["id"])
        self._of_source.setdefault(record.get("source_sha256", ""), {})[record["id"]] = None

    def forget(self, name: str) -> None:
        """Drop an item whose file turned out to be missing or damaged, so that it is made again."""
        self.done.pop(name, None)
        if name in self.own:
            self.own.discard(name)
            self._write([r for r in self.done.values() if r["id"] in self.own])

    def of_source(self, digest: str) -> list[dict[str, Any]]:
        """Return the records of items made from the file with this hash."""
        return [self.done[name] for name in self._of_source.get(digest, {}) if name in self.done]

    def finish(self, records: list[dict[str, Any]]) -> int:
        """Bring the manifest into the order of `records`; other lines it has stay behind them.

        Returns how many others there are that later steps would take.
        """
        present = {record["id"] for record in records}
        rest = [r for name, r in self.done.items() if name in self.own - present]
        self._write([*records, *rest])
        self.done |= {record["id"]: record for record in records}
        self.own |= present
        return sum(record.get("keep") is not False for record in rest)

    def complete(self, records: list[dict[str, Any]], report: dict[str, Any]) -> int:
        """Write the manifest and the report of all items; what parts left is in them then.

        Returns how many other lines it has that later steps would take.
        """
        self.own = set(self.done)
        others = self.finish(records)
        write_json(self.path / "report.json", report)
        remove_parts(self.path)
        return others

    def _write(self, records: list[dict[str, Any]]) -> None:
        """Replace the manifest, if that changes it."""
        lines = "".join(to_line(record) + "\n" for record in records)
        if not self.manifest.exists() or self.manifest.read_bytes() != lines.encode():
            write_manifest(self.manifest, records)


def _records(manifest: Path) -> list[dict[str, Any]]:
    try:
        return read_manifest(manifest)
    except ArtifactError:
        if manifest.exists():
            raise
        return []  # parts were merged in this moment


def summary(clips: int, used: int, videos: int, copies: int) -> str:
    """Say what became of the videos of a run in one line."""
    same = f", {copies} of the same bytes as another" if copies else ""
    return f"{counted(clips, 'clip')} from {used} of {counted(videos, 'video')}{same}"


def warn_of_others(progress: Progress, others: int) -> None:
    """Tell of clips in the folder that are of none of the videos of a run."""
    if others:
        progress.warn(
            f"the manifest also has {counted(others, 'clip')} of other videos, made before: these "
            'are gone, changed or left out now; "keep": false in a line leaves it out, '
            "--force makes the folder anew"
        )


def check_output(path: Path, kind: str, settings: Mapping[str, Any], *, force: bool) -> None:
    """Refuse what `OutputFolder.open` would, as far as these settings tell; for plans."""
    check_ours(path, kind)
    check_settings(path, settings, force=force)


def check_ours(path: Path, kind: str, called: str = "") -> None:
    """Raise UsageError if a folder holds anything else than results of this kind, `called` so."""
    if (path / HEADER_NAME).exists():
        found = read_header(path).get("kind")
        if found != kind:
            raise UsageError(
                f"the output folder holds {found}, not {called or kind}",
                where=str(path),
                fix="choose another --out",
            )
    elif (path / MANIFEST_NAME).exists():
        raise UsageError(
            "the output folder has a manifest of something else",
            where=str(path),
            fix="choose another --out",
        )


def _remove_results(path: Path) -> None:
    """Delete what an earlier run made: the manifest first, so that no line outlives its file."""
    manifest = path / MANIFEST_NAME
    if not all_manifests(path):
        return
    manifest.unlink(missing_ok=True)
    remove_parts(path)
    for file in path.glob("*.safetensors"):
        file.unlink()
