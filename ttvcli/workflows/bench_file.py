"""What the benchmarks share: rows that are in a file as soon as they are measured."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import write_text
from ttvcli.errors import Interrupted, counted

Row = dict[str, Any]


@dataclass(frozen=True)
class BenchResult:
    """All rows, measured or not, as they are in the file; `table` is what to read of them."""

    rows: list[Row]
    paths: list[Path]
    table: list[tuple[str, str]]
    failed: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {"rows": self.rows, "paths": [str(path) for path in self.paths]}


class RowFile:
    """The rows of a run, and the file for them, if there is to be one."""

    def __init__(self, path: Path | None) -> None:
        self.rows: list[Row] = []
        self._path = path

    def add(self, *rows: Row) -> None:
        """Add rows and write the file anew."""
        self.rows += rows
        self.write()

    def write(self) -> None:
        """Write the rows as they are now."""
        if self._path is not None:
            write_text(self._path, "".join(json.dumps(row) + "\n" for row in self.rows))

    @contextmanager
    def kept(self, where: str = "") -> Iterator[None]:
        """Say on Ctrl-C what is kept, and `where` it was: Interrupted."""
        try:
            yield
        except KeyboardInterrupt:
            kept = (
                f"{counted(len(self.rows), 'row')} kept in {self._path}"
                if self._path
                else "no rows are kept"
            )
            raise Interrupted(
                f"interrupted{where}; {kept}",
                fix="a benchmark starts over; --rows and another --out measure the rest",
            ) from None

    def result(self, table: list[tuple[str, str]]) -> BenchResult:
        """Return the result of the run."""
        return BenchResult(self.rows, [] if self._path is None else [self._path], table)
