"""An output folder that a run can be killed over: first a file, then its manifest line."""

from pathlib import Path
from typing import Any

from ttvcli.artifacts.manifest import (
    MANIFEST_NAME,
    ManifestWriter,
    read_manifest,
    to_line,
    write_manifest,
)
from ttvcli.artifacts.schema import HEADER_NAME, Header, claim_folder, read_header
from ttvcli.errors import UsageError


class OutputFolder:
    """The files and the manifest of one step; hold `lock.only_writer` while using it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = path / MANIFEST_NAME
        self._writer = ManifestWriter(self.manifest)
        self.done: dict[str, dict[str, Any]] = {r["id"]: r for r in read_manifest(self.manifest)}
        self._of_source: dict[str, list[str]] = {}
        for record in self.done.values():
            self._of_source.setdefault(record.get("source_sha256", ""), []).append(record["id"])

    @classmethod
    def open(cls, path: Path, header: Header, *, force: bool) -> "OutputFolder":
        """Take or continue a folder.

        Raises:
            UsageError: it holds something else, or was made with other settings and not `force`.
        """
        _check_ours(path, header["kind"])
        if force:
            _remove_results(path)
        claim_folder(path, header, force=force)
        return cls(path)

    def add(self, record: dict[str, Any]) -> None:
        """Record a finished item, whose file is already in place."""
        self._writer.append(record)
        self.done[record["id"]] = record

    def forget(self, name: str) -> None:
        """Drop an item whose file turned out to be missing or damaged, so that it is made again."""
        self.done.pop(name, None)
        self.rewrite(list(self.done.values()))

    def of_source(self, digest: str) -> list[dict[str, Any]]:
        """Return the records that were there at the start, made from the file with this hash."""
        return [self.done[name] for name in self._of_source.get(digest, []) if name in self.done]

    def rewrite(self, records: list[dict[str, Any]]) -> None:
        """Replace the manifest, if that changes it."""
        lines = "".join(to_line(record) + "\n" for record in records)
        if self.manifest.read_bytes() != lines.encode():
            write_manifest(self.manifest, records)
        self.done = {record["id"]: record for record in records}


def _check_ours(path: Path, kind: str) -> None:
    if (path / HEADER_NAME).exists():
        found = read_header(path).get("kind")
        if found != kind:
            raise UsageError(
                f"the output folder holds {found}, not {kind}",
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
    if not manifest.exists():
        return
    manifest.unlink()
    for file in path.glob("*.safetensors"):
        file.unlink()
