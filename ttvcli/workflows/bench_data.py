"""Time reading videos as data preparation does it beside bare readers, on the same files.

Each side runs in a process of its own, so that its memory is its own and no import is in its time.
A side is timed only after its frames were found to be those of ttv; then the sides take turns, so
that whatever else the machine does hits all of them. Ratios above 1 mean that ttv is quicker.
"""

import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ttvcli.core.video.decode import probe
from ttvcli.core.video.encode import write_video
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.errors import ArtifactError, UsageError, WorkFailed, nearest
from ttvcli.workflows import bench_readers
from ttvcli.workflows.bench_child import answer
from ttvcli.workflows.bench_clock import listed, machine
from ttvcli.workflows.bench_data_memory import SIDES, memory_rows
from ttvcli.workflows.bench_file import BenchResult, RowFile
from ttvcli.workflows.bench_readers import Reading
from ttvcli.workflows.encode_job import parse_size
from ttvcli.workflows.output_file import check_output_file
from ttvcli.workflows.step import SILENT, Plan, Progress
from ttvcli.workflows.video_sources import find_sources

ROWS = {
    "encode": "decode and resize of prep encode, beside readers that give the same frames",
    "filter": "one pass of prep filter, beside decoding alone and to the size filters look at",
    "memory": "peak of both on one video and on the same many times as long",
    "duplicates": "search for near duplicates among 1,000, 10,000 and 100,000 clips",
}
BARE = {
    "encode": ("pyav", "pyav-planes", "opencv", "torchcodec"),
    "filter": ("pyav-decode", "pyav-small", "opencv-decode"),
}
OWN = {"encode": "ttv", "filter": "ttv-filter"}
_LIKENESS = 0.95  # correlation: scalers and colour matrices differ, frames do not
_COMPARED = 6  # frames
_FILM = (1280, 720, 24, 240)  # width, height, frames per second, frames of the drawn film


@dataclass(frozen=True, kw_only=True)
class BenchDataConfig:
    """Settings of `ttv bench data`."""

    source: str = field(
        default="", metadata={"help": "video or folder of videos; empty draws a film"}
    )
    rows: str = field(default="", metadata={"help": "names of rows, commas between; empty is all"})
    size: str = field(default="720x480", metadata={"help": "WxH that frames are resized to"})
    threads: str = field(default="1,2", metadata={"help": "numbers of threads, commas between"})
    clips: str = field(
        default="1000,10000,100000", metadata={"help": "clips among which duplicates are searched"}
    )
    lengths: str = field(
        default="1,4,16", metadata={"help": "how many times as long, for the memory"}
    )
    repeats: int = field(default=3, metadata={"help": "timed runs of each side"})
    limit: int = field(default=0, metadata={"help": "take only the first N videos; 0 takes all"})
    out: Path | None = field(
        default=None, metadata={"help": "file for the rows, one JSON object a line"}
    )

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UsageError(f"repeats must be at least 1, got {self.repeats}")
        for name in listed(self.rows):
            if name not in ROWS:
                raise UsageError(f"there is no row {name!r}", fix=nearest(name, ROWS))
        for setting in ("threads", "clips", "lengths"):
            for part in listed(getattr(self, setting)):
                if not part.isdecimal() or int(part) < 1:
                    raise UsageError(f"{setting}: {part!r} is not a number from 1 on")
        parse_size(self.size)
        if self.out is not None:
            check_output_file(self.out, ".jsonl", "--out")

    def row_names(self) -> list[str]:
        """The rows asked for, in their order."""
        return [name for name in ROWS if name in (listed(self.rows) or ROWS)]


def plan(config: BenchDataConfig) -> Plan:
    """Say what would be measured."""
    videos = len(find_sources(config.source).videos) if config.source else 1
    return Plan(
        command="bench data",
        items=[
            *[(f"row {name}", ROWS[name]) for name in config.row_names()],
            ("videos", min(videos, config.limit or videos)),
            ("threads", config.threads),
            ("runs of each side", config.repeats + 1),
        ],
    )


def run(config: BenchDataConfig, progress: Progress = SILENT) -> BenchResult:
    """Measure every row; the file is written anew after each.

    Raises:
        WorkFailed: a side gives other frames than ttv; nothing is timed then.
        ArtifactError: no video among the sources can be read.
        Interrupted: says what is kept.
    """
    about = machine(torch.device("cpu"), "av")
    del about["threads"]
    file = RowFile(config.out)
    with file.kept(), tempfile.TemporaryDirectory() as folder:
        for row in _measured(config, Path(folder), progress):
            file.add({"bench": "data", **row, **about})
    progress.finish()
    return file.result([(_title(row), _readable(row)) for row in file.rows])


def _measured(
    config: BenchDataConfig, folder: Path, progress: Progress
) -> Iterator[dict[str, Any]]:
    """Rows as they get ready."""
    paths = _videos(config, folder, progress)
    for name in config.row_names():
        if name == "duplicates":
            yield from _duplicates(config, progress)
            continue
        for threads in map(int, listed(config.threads)):
            if name == "memory":
                yield from _memory(paths[0], threads, config, folder, progress)
                continue
            yield from _readers(name, paths, threads, config, folder, progress)


def _videos(config: BenchDataConfig, folder: Path, progress: Progress) -> list[str]:
    """The videos to read: those given that are readable, or a film drawn for it."""
    if set(config.row_names()) <= {"duplicates"}:
        return []
    if not config.source:
        progress.start("drawing a film")
        width, height, fps, frames = _FILM
        film = folder / "film.mp4"
        write_video(film, draw_film(width, height, frames), fps, preset="veryfast")
        # As many as there are threads: `prep filter` gives each process a video of its own.
        copies = range(1, max(map(int, listed(config.threads))))
        return [str(film), *(str(shutil.copy(film, folder / f"film-{n}.mp4")) for n in copies)]
    found = []
    videos = find_sources(config.source).videos
    for source in videos[: config.limit or None]:
        try:
            probe(source.path)
        except UnreadableVideo as error:
            progress.warn(f"{source.name}: {error}")
            continue
        found.append(str(source.path))
    if not found:
        raise ArtifactError("no video can be read", where=config.source)
    return found


def draw_film(width: int, height: int, frames: int) -> Iterator[np.ndarray]:
    """A texture of coarse and fine grain that a camera pans over, with noise as of a sensor."""
    generator = np.random.default_rng(0)
    shape = (height + 2 * frames, width + 3 * frames, 3)
    coarse = generator.integers(0, 200, (shape[0] // 32 + 1, shape[1] // 32 + 1, 3), np.uint8)
    texture = coarse.repeat(32, axis=0).repeat(32, axis=1)[: shape[0], : shape[1]]
    texture = texture + generator.integers(0, 40, shape, np.uint8)
    for index in range(frames):
        view = texture[2 * index : 2 * index + height, 3 * index : 3 * index + width]
        yield view + generator.integers(0, 8, view.shape, np.uint8)


def _readers(
    name: str,
    paths: list[str],
    threads: int,
    config: BenchDataConfig,
    folder: Path,
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """The rows of all sides with one number of threads, ours first."""
    own = OWN[name]
    width, height = parse_size(config.size)
    warm = folder / "warm.mp4"
    if not warm.exists():
        write_video(warm, draw_film(160, 96, 48), 24, preset="veryfast")
    start = Reading(own, paths, width, height, threads, warm=str(warm))
    readings = {side: replace(start, side=side) for side in (own, *BARE[name])}
    progress.start(f"{name}, {threads} threads: comparing frames")
    differences, obstacles = compare(readings, folder) if name == "encode" else ({}, {})
    times: dict[str, list[dict[str, Any]]] = {side: [] for side in readings}
    progress.start(f"{name}, {threads} threads", config.repeats, "rounds")
    for turn in range(config.repeats):
        sides = [side for side in readings if side not in obstacles]
        for side in sides if turn % 2 == 0 else sides[::-1]:
            found = read(readings[side])
            if isinstance(found, str):
                obstacles[side] = found
            else:
                times[side].append(found)
        progress.advance()
    for side in readings:
        row = {"row": name, "side": side, "threads": threads, "videos": len(paths)}
        row |= {"size": config.size} if name == "encode" else {}
        if side in obstacles:
            yield {**row, "not_run": obstacles[side]}
            continue
        row |= summary(times[side])
        if side in differences:
            row["difference"] = differences[side]
        if side == own:
            row |= _beside(times, [bare for bare in BARE[name] if bare not in obstacles], own)
        yield row


def compare(readings: dict[str, Reading], folder: Path) -> tuple[dict[str, float], dict[str, str]]:
    """Return how far each side's frames are from ours (mean, grey levels), and what cannot run.

    Raises:
        WorkFailed: a side gives other frames, or other numbers of frames.
    """
    own = readings["ttv"]
    count = _frames(replace(own, paths=own.paths[:1]))
    places = tuple(int(i) for i in np.linspace(0, max(count - 1, 0), min(_COMPARED, count)))
    found: dict[str, np.ndarray] = {}
    obstacles: dict[str, str] = {}
    for side, reading in readings.items():
        file = str(folder / f"{side}.npy")
        result = read(replace(reading, paths=own.paths[:1], keep=file, kept=places, threads=1))
        if isinstance(result, str):
            obstacles[side] = result
        else:
            found[side] = np.load(file).astype(np.int16)
    differences = {}
    for side, frames in found.items():
        likeness = _likeness(frames, found["ttv"])
        if not likeness >= _LIKENESS:
            raise WorkFailed(
                f"{side}: frames are not those of ttv, their correlation is {likeness:.2f} and "
                f"{_LIKENESS} is needed",
                where=own.paths[0],
                fix="only videos with a constant frame rate can be compared; nothing was timed",
            )
        differences[side] = round(float(np.abs(frames - found["ttv"]).mean()), 3)
    return differences, obstacles


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Least correlation of two frames of the same place; bare readers may have other colours."""
    if one.shape != other.shape:
        return 0.0
    least = 1.0
    for left, right in zip(one.astype(np.float64), other.astype(np.float64), strict=True):
        left, right = left - left.mean((0, 1)), right - right.mean((0, 1))
        spread = np.sqrt((left**2).sum() * (right**2).sum())
        if spread > left.size:  # else plain, and as good as any
            least = min(least, float((left * right).sum() / spread))
    return least


def _frames(reading: Reading) -> int:
    found = read(reading)
    if isinstance(found, str):
        raise WorkFailed(f"ttv cannot read it: {found}", where=reading.paths[0])
    return int(found["frames"])


def read(reading: Reading) -> dict[str, Any] | str:
    """Measure one reading in a process of its own, or say why that does not work."""
    threads = str(reading.threads)
    return answer(bench_readers.__name__, json.dumps(asdict(reading)), OMP_NUM_THREADS=threads)


def summary(times: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of a side's runs."""
    seconds = statistics.median(run["seconds"] for run in times)
    cpu = statistics.median(run["cpu_seconds"] for run in times)
    frames = times[0]["frames"]
    return {
        "frames": frames,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "frames_per_second": round(frames / seconds, 1),
        "frames_per_cpu_second": round(frames / cpu, 1),
        "peak_rss_mb": max(run["peak_rss_mb"] for run in times),
        "peak_rss_mb_worker": max(run["peak_rss_mb_worker"] for run in times),
        "repeats": len(times),
    }


def _beside(times: dict[str, list[dict[str, Any]]], bare: list[str], own: str) -> dict[str, Any]:
    """Our rate over that of the quickest bare reader, and of each: by wall clock, by CPU time."""
    found: dict[str, Any] = {}
    for key, clock in (("ratio", "seconds"), ("cpu_ratio", "cpu_seconds")):
        rates = {
            side: statistics.median(run["frames"] / run[clock] for run in times[side])
            for side in (own, *bare)
        }
        if bare:
            best = max(bare, key=lambda side: rates[side])
            found |= {key: round(rates[own] / rates[best], 3), f"{key}_against": best}
            found[f"{key}s"] = {side: round(rates[own] / rates[side], 3) for side in bare}
    return found


def _memory(
    path: str, threads: int, config: BenchDataConfig, folder: Path, progress: Progress
) -> Iterator[dict[str, Any]]:
    times = [int(many) for many in listed(config.lengths)]
    progress.start(f"memory, {threads} threads", len(SIDES) * len(times), "films")
    for row in memory_rows(path, times, threads, parse_size(config.size), folder, read):
        progress.advance()
        yield row


def _duplicates(config: BenchDataConfig, progress: Progress) -> Iterator[dict[str, Any]]:
    from ttvcli.workflows.bench_data_duplicates import growth_rows

    sizes = [int(size) for size in listed(config.clips)]
    progress.start("searching for duplicates", len(sizes), "sizes")
    for row in growth_rows(sizes):
        progress.advance()
        yield row


def _title(row: dict[str, Any]) -> str:
    if row["row"] == "duplicates":
        return f"duplicates {row['clips']:,} clips"
    if row["row"] == "memory":
        return f"memory {row['side']} {row['threads']} threads {row['times']} times"
    return f"{row['row']} {row['side']} {row['threads']} threads"


def _readable(row: dict[str, Any]) -> str:
    if "not_run" in row:
        return f"not run: {row['not_run']}"
    if row["row"] == "duplicates":
        return f"{row['seconds']:.3g} s, {row['found']} of {row['copies']} found"
    if row["row"] == "memory":
        peak = max(row["peak_rss_mb"], row["peak_rss_mb_worker"])
        return f"{row['frames']} frames, {peak:.0f} MB, {row['growth']:.2f} of the shortest"
    parts = [f"{row['frames_per_second']:.0f} frames/s", f"{row['peak_rss_mb']:.0f} MB"]
    for key in ("ratio", "cpu_ratio"):
        if key in row:
            name = "of" if key == "ratio" else "of the CPU time rate of"
            parts.append(f"{row[key]:.2f} {name} {row[f'{key}_against']}")
    return ", ".join(parts)
