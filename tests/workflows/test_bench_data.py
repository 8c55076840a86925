"""`ttv bench data`: nothing is timed that was not compared, and what cannot run is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_files import make_video

from ttvcli.core.video.encode import write_video
from ttvcli.errors import UsageError, WorkFailed
from ttvcli.workflows import bench_data, bench_readers
from ttvcli.workflows.bench_data import BenchDataConfig, compare, plan, read, run
from ttvcli.workflows.bench_data_memory import memory_rows
from ttvcli.workflows.bench_readers import SIDES, Reading, measure_reading


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 frames of 96x64, which clips of 8k + 1 frames do not fill."""
    folder = tmp_path_factory.mktemp("video")
    return make_video(folder / "a.mp4", size=(96, 64), fps=16, frames=36)


def here(reading: Reading) -> dict[str, Any]:
    """`bench_data.read` without a process of its own."""
    return measure_reading(reading)


def reading(video: Path, side: str, **changes: Any) -> Reading:
    return Reading(**{"side": side, "paths": [str(video)], "width": 48, "height": 32, **changes})


def kept(video: Path, side: str, tmp_path: Path) -> np.ndarray:
    path = tmp_path / f"{side}.npy"
    measure_reading(reading(video, side, threads=1, keep=str(path), kept=(0, 17, 35)))
    return np.load(path)


def test_our_side_leaves_out_no_frame_and_gives_those_of_pyav(video: Path, tmp_path: Path) -> None:
    ours, *others = (kept(video, side, tmp_path) for side in ("ttv", "pyav", "pyav-planes"))
    for bare in others:
        assert ours.shape == bare.shape == (3, 32, 48, 3)
        assert np.abs(ours.astype(int) - bare).mean() < 3  # its swscale rounds less exactly
    assert np.abs(ours[0].astype(int) - ours[2]).mean() > 0


@pytest.mark.parametrize(
    "side", ["ttv", "ttv-filter", "pyav", "pyav-planes", "pyav-decode", "pyav-small"]
)
def test_every_side_reads_all_frames(video: Path, side: str) -> None:
    found = measure_reading(reading(video, side, threads=1))
    assert found["frames"] == 36
    assert found["seconds"] > 0
    assert found["peak_rss_mb"] > 10


@pytest.mark.parametrize("side", ["ttv", "ttv-filter"])
def test_with_more_threads_our_sides_read_every_video_in_processes_of_their_own(
    video: Path, side: str
) -> None:
    asked = reading(video, side, threads=2, paths=[str(video), str(video)])
    found = read(asked)
    assert isinstance(found, dict), found
    assert found["frames"] == 72
    assert found["peak_rss_mb_worker"] > 10
    assert found["cpu_seconds"] > 0


def test_memory_rows_compare_each_length_with_the_shortest(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([100.0, 110.0, 200.0, 190.0])

    def read(asked: Reading) -> dict[str, Any]:
        return here(asked) | {"peak_rss_mb": next(peaks), "peak_rss_mb_worker": 0.0}

    monkeypatch.setattr(bench_data, "read", read)
    asked = BenchDataConfig(
        source=str(video), rows="memory", size="48x32", threads="1", lengths="2,1"
    )
    rows = run(asked).rows
    assert [(row["side"], row["times"]) for row in rows] == [
        *(("ttv-filter", 1), ("ttv-filter", 2)),
        *(("ttv", 1), ("ttv", 2)),
    ]
    assert [row["growth"] for row in rows] == [1.0, 1.1, 1.0, 0.95]
    assert [row["frames"] for row in rows[:2]] == [36, 72]


def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (160, 240, 3), np.uint8)
    frames = [np.roll(noise, 8 * number, axis=1) for number in range(24)]
    write_video(tmp_path / "a.mp4", frames, 16, preset="ultrafast")
    rows = list(
        memory_rows(str(tmp_path / "a.mp4"), (1, 16), 1, (240, 160), tmp_path, bench_data.read)
    )
    held = 15 * 24 * 240 * 160 * 1.5 / 2**20  # MiB that the frames beyond the shorter video have
    for short, long in (rows[:2], rows[2:]):
        assert long["frames"] >= 15 * short["frames"]
        assert long["peak_rss_mb"] - short["peak_rss_mb"] < held / 2


def test_rows_are_those_asked_for_with_ours_first(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(asked: Reading) -> dict[str, Any] | str:
        return "no such library" if asked.side in ("opencv", "torchcodec") else here(asked)

    monkeypatch.setattr(bench_data, "read", read)
    out = tmp_path / "rows.jsonl"
    asked = BenchDataConfig(
        source=str(video), rows="encode", size="48x32", threads="1", repeats=2, out=out
    )
    result = run(asked)
    sides = [row["side"] for row in result.rows]
    assert sides == ["ttv", "pyav", "pyav-planes", "opencv", "torchcodec"]
    assert result.rows == [json.loads(line) for line in out.read_text().splitlines()]
    ours, bare, planes, missing, _ = result.rows
    assert missing["not_run"] == "no such library"
    assert {ours["ratio_against"], ours["cpu_ratio_against"]} <= {bare["side"], planes["side"]}
    assert min(ours["ratio"], ours["cpu_ratio"]) > 0
    assert "ratio" not in bare
    assert bare["difference"] < 4
    assert {"repeats", "peak_rss_mb", "device_name", "date", "versions"} <= ours.keys()
    assert len(result.table) == 5


def test_the_ratio_is_the_rate_beside_the_quickest_bare_reader() -> None:
    def runs(*seconds: float) -> list[dict[str, Any]]:
        return [{"frames": 100, "seconds": s, "cpu_seconds": 2 * s} for s in seconds]

    times = {"own": runs(1, 2, 9), "slow": runs(4), "quick": runs(1, 1, 5), "absent": []}
    found = bench_data._beside(times, ["slow", "quick"], "own")
    assert (found["ratio"], found["ratio_against"]) == (0.5, "quick")
    assert found["cpu_ratio"] == 0.5
    assert found["ratios"] == {"slow": 2.0, "quick": 0.5}


def test_other_frames_are_not_timed(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inverted(asked: Reading) -> Any:
        return (255 - frame for frame in bench_readers.pyav(asked))

    monkeypatch.setattr(bench_data, "read", here)
    monkeypatch.setitem(SIDES, "pyav", inverted)
    own = reading(video, "ttv", threads=1)
    with pytest.raises(WorkFailed, match="pyav: frames are"):
        compare({"ttv": own, "pyav": replace(own, side="pyav")}, tmp_path)


def test_growth_of_the_duplicate_search_is_a_row() -> None:
    (small, large) = run(BenchDataConfig(rows="duplicates", clips="100,200")).rows
    assert (small["clips"], large["clips"]) == (100, 200)
    assert small["found"] == small["copies"] == 1
    assert large["growth"] is not None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rows": "encod"}, "no row 'encod'"),
        ({"threads": "1,x"}, "threads: 'x'"),
        ({"clips": "0"}, "clips: '0'"),
        ({"lengths": "1,0"}, "lengths: '0'"),
        ({"repeats": 0}, "repeats must be at least 1"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        BenchDataConfig(**changes)


def test_the_plan_names_every_row() -> None:
    names = [name for name, _ in plan(BenchDataConfig()).items]
    assert names[:4] == [f"row {name}" for name in bench_data.ROWS]


@pytest.mark.slow
def test_a_drawn_film_is_read_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_data, "_FILM", (128, 96, 24, 48))
    rows = run(BenchDataConfig(rows="encode", size="48x32", threads="1,2", repeats=1)).rows
    ours = [row for row in rows if row["side"] == "ttv"]
    assert [row["threads"] for row in ours] == [1, 2]
    assert ours[1]["peak_rss_mb_worker"] > 10
