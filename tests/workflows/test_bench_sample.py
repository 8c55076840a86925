"""`ttv bench sample`: rows are timed only where both sides agree."""

import json
from pathlib import Path

import pytest
import torch

from ttvcli.errors import Interrupted, UsageError, WorkFailed
from ttvcli.workflows import bench_rows, bench_sample
from ttvcli.workflows.bench_rows import Pair, Row
from ttvcli.workflows.bench_sample import BenchSampleConfig, plan, run

pytest.importorskip("diffusers")


def fake(monkeypatch: pytest.MonkeyPatch, offset: float) -> list[str]:
    """One cheap row whose sides are `offset` apart; the calls made are listed."""
    calls: list[str] = []

    def side(name: str, value: float) -> torch.Tensor:
        calls.append(name)
        return torch.full((3,), value)

    pair = Pair(lambda: side("ours", 1.0 + offset), lambda: side("theirs", 1.0), 1e-4)
    rows = {"row": Row("3", lambda dtype, device: pair)}
    monkeypatch.setattr(bench_sample, "ROWS", rows)
    return calls


def test_sides_take_turns_and_every_row_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = fake(monkeypatch, 0.0)
    out = tmp_path / "rows.jsonl"
    result = run(BenchSampleConfig(repeats=3, dtypes="fp32,bf16", out=out, device="cpu"))
    one_row = ["ours", "theirs", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert calls == one_row * 2
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert rows == result.rows
    assert [row["dtype"] for row in rows] == ["fp32", "bf16"]
    for row in rows:
        assert row["relative_error"] == 0.0
        assert row["seconds"] > 0
        assert row["against_cpu_seconds"] >= 0
        assert {"torch", "diffusers", "ttv"} <= set(row["versions"])
        assert row["date"][:2] == "20"
    assert len(result.table) == 2


def test_sides_that_disagree_are_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = fake(monkeypatch, 1e-3)
    out = tmp_path / "rows.jsonl"
    with pytest.raises(WorkFailed, match=r"row in fp32: results differ by 1.0e-03"):
        run(BenchSampleConfig(out=out, device="cpu"))
    assert calls == ["ours", "theirs"]
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rows": "pipline"}, "no row 'pipline'"),
        ({"dtypes": "fp32,int8"}, "no dtype 'int8'"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"threads": -1}, "threads must not be negative"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        BenchSampleConfig(**changes)


def test_the_plan_names_every_row() -> None:
    names = [name for name, _ in plan(BenchSampleConfig()).items]
    made = [f"row {name} {dtype}" for name in bench_rows.ROWS for dtype in ("fp32", "bf16")]
    assert made == names[: len(made)]


@pytest.mark.slow
@pytest.mark.parity
def test_the_small_pipeline_agrees_with_diffusers_and_is_timed() -> None:
    (row,) = run(BenchSampleConfig(rows="pipeline", dtypes="fp32", repeats=1, device="cpu")).rows
    assert row["relative_error"] < 1e-4
    assert row["ratio"] > 0


def test_an_interrupted_benchmark_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake(monkeypatch, 0.0)

    def stop(dtype: torch.dtype, device: torch.device) -> Pair:
        raise KeyboardInterrupt

    rows = {**bench_sample.ROWS, "second": Row("3", stop)}
    monkeypatch.setattr(bench_sample, "ROWS", rows)
    out = tmp_path / "rows.jsonl"
    with pytest.raises(Interrupted, match=r"second in fp32; 1 row kept in .*rows\.jsonl"):
        run(BenchSampleConfig(repeats=1, dtypes="fp32", out=out, device="cpu"))
    assert len(out.read_text(encoding="utf-8").splitlines()) == 1
