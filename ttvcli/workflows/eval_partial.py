"""What a measurement has found so far, on disk beside its report until the report is written."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.manifest import ManifestWriter, read_manifest
from ttvcli.artifacts.schema import settings_hash
from ttvcli.core.world.checker import CheckResult, FoundObject
from ttvcli.errors import ArtifactError


class Partial:
    """`<report>.partial/results.jsonl`: one line an entry, so that a killed run can go on.

    Its first line names the settings; a file of other settings is thrown away.
    """

    def __init__(self, report: Path, settings: Mapping[str, Any], sheet: Path | None) -> None:
        self.folder = report.with_suffix(".partial")
        self.file = self.folder / "results.jsonl"
        self.about = {"id": settings_hash({"settings": settings, "sheet": sheet})}
        self._lock = only_writer(self.folder)

    def __enter__(self) -> "Partial":
        self._lock.__enter__()
        if self._read()[:1] != [self.about]:
            self.file.unlink(missing_ok=True)
        self.writer = ManifestWriter(self.file)
        if not self.writer.done:
            self.writer.append(self.about)
        self.found = self._read()[1:]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.__exit__(kind, error, trace)

    def entries(self, part: str) -> list[dict[str, Any]]:
        """The entries of a part in their order, as far as there is none missing."""
        known = {line["index"]: line["entry"] for line in self.found if line["part"] == part}
        return list(_without_gap(known))

    def add(self, part: str, index: int, entry: Mapping[str, Any]) -> None:
        """Keep an entry; a later one of the same index takes its place."""
        line = {"id": f"{part}-{index}", "part": part, "index": index, "entry": dict(entry)}
        self.writer.append(line)

    def discard(self) -> None:
        """Remove everything: the report is written."""
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()

    def _read(self) -> list[dict[str, Any]]:
        try:
            return read_manifest(self.file) if self.file.exists() else []
        except ArtifactError:  # damaged: not worth more than measuring again
            return []


def _without_gap(known: Mapping[int, Any]) -> Iterator[Any]:
    index = 0
    while index in known:
        yield known[index]
        index += 1


def short(result: CheckResult) -> dict[str, Any]:
    """A clip's result as plain data, without the tracks."""
    found = [{k: v for k, v in vars(item).items() if k != "track"} for item in result.found]
    return {**result.to_json(), "found": found}


def result_of(entry: Mapping[str, Any]) -> CheckResult:
    """The result that `short` made plain."""
    values = {name: entry[name] for name in CheckResult.__dataclass_fields__}
    found = tuple(FoundObject(**item, track=()) for item in entry["found"])
    return CheckResult(**{**values, "found": found})
