"""`ttv bench kernels --sizes published`: both sides at the published CPU sizes, with memory."""

import importlib
import json
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY, run_ttv

from ttvcli.core.kernel_bench import gate, published
from ttvcli.core.kernel_bench.published import PUBLISHED_SIDES, SIZES, Size
from ttvcli.errors import UsageError, WorkFailed
from ttvcli.workflows import bench_kernels, bench_kernels_published
from ttvcli.workflows.bench_kernels import BenchKernelsConfig, plan, run
from ttvcli.workflows.bench_kernels_published import Measured, in_process, measured
from ttvcli.workflows.bench_kernels_text import markdown

TINY = [
    Size("ttt_linear", "ttt_linear", tokens=32, heads=1, mini_batch=16),
    Size("ttt_mlp", "ttt_mlp", tokens=32, heads=1, mini_batch=16, training=True),
    Size("layer", "ttt_linear", tokens=32, heads=1, mini_batch=16, training=True),
]
CONFIG: dict[str, Any] = {"sizes": "published", "repeats": 1}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens, and no processes, which take seconds to start."""
    monkeypatch.setattr(bench_kernels, "SIZES", TINY)
    monkeypatch.setattr(bench_kernels_published, "in_process", measured)


def test_sizes_are_the_published_ones() -> None:
    alone = {(s.op, s.tokens, s.heads, s.mini_batch) for s in SIZES if s.row != "layer"}
    assert {("ttt_linear", 64 * count, 4, 64) for count in (256, 512, 1024)} < alone
    assert {("ttt_mlp", 18048, 48, 64)} < alone
    assert {("ttt_linear", 18048, 48, mini_batch) for mini_batch in (64, 16)} < alone
    layers = {(s.op, s.training, s.tokens, s.heads) for s in SIZES if s.row == "layer"}
    kinds = [("ttt_mlp", False), ("ttt_mlp", True), ("ttt_linear", True)]
    assert layers == {(op, training, 18048, 48) for op, training in kinds}


def test_every_size_has_both_sides_with_seconds_and_memory(tiny: None, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    result = run(BenchKernelsConfig(**CONFIG, out=out))
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert rows == result.rows
    found = [(row["row"], row["op"], row["side"], row["pass"]) for row in rows]
    passes = {True: ("training forward", "backward"), False: ("forward",)}
    expected = [
        (size.row, size.op, side, which)
        for size in TINY
        for side in PUBLISHED_SIDES
        for which in passes[size.training]
    ]
    assert found == expected
    for row in rows:
        assert row["seconds"] > 0
        assert row["peak_bytes"] is None or row["peak_bytes"] >= 0
        assert {"device_name", "date", "versions", "threads", "repeats"} <= set(row)
        assert ("times_public" in row) == (row["side"] == "scan")
    ours, theirs = (next(r for r in rows if r["side"] == side) for side in PUBLISHED_SIDES)
    assert ours["times_public"] == pytest.approx(theirs["cpu_seconds"] / ours["cpu_seconds"])
    assert len(result.table) == len(rows)


def test_a_wrong_layer_is_not_timed(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    original = gate.layer

    def wrong(size: Size, side: str) -> Any:
        made = original(size, side)
        made.base_lr *= 1 + 0.01 * (side == "public")
        return made

    monkeypatch.setattr(gate, "layer", wrong)
    monkeypatch.setattr(bench_kernels_published, "in_process", lambda *_: pytest.fail("timed"))
    with pytest.raises(WorkFailed, match=r"ttt_linear layer, public: .* away from the reference"):
        run(BenchKernelsConfig(**CONFIG))


def test_the_public_layer_is_computed_the_public_way(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    original = published.operation

    def spy(op: str, side: str) -> Any:
        called.append((op, side))
        return original(op, side)

    monkeypatch.setattr(published, "operation", spy)
    forward, given = published.work(TINY[2], "public")
    assert forward().shape == (1, 32, 64)
    assert called == [("ttt_linear", "public")]
    assert len(given) == 1 + len(list(published.layer(TINY[2], "scan").parameters()))


def test_a_side_that_ended_early_is_a_row_with_the_reason(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(size: Size, side: str, *rest: int) -> Measured | str:
        return "the process ended with code -9" if side == "public" else measured(size, side, *rest)

    monkeypatch.setattr(bench_kernels_published, "in_process", killed)
    result = run(BenchKernelsConfig(**CONFIG, rows="ttt_mlp"))
    reasons = {(row["side"], row["pass"]): row.get("not_run") for row in result.rows}
    assert reasons["public", "backward"] == "the process ended with code -9"
    assert reasons["scan", "backward"] is None
    assert not any("times_public" in row for row in result.rows)
    assert [text for _, text in result.table if "not run" in text]


def dies(sender: Connection, *_: Any) -> None:
    os._exit(9)


@pytest.mark.slow
def test_a_process_that_dies_says_with_which_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_kernels_published, "_child", dies)
    assert str(in_process(TINY[0], "scan", 1, 1)).startswith("the process ended with code 9")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_a_process_is_what_its_arrays_take() -> None:
    """Inputs, gradients and output of the operation alone: 8 arrays of 16 MiB, and the groups."""
    size = Size("ttt_linear", "ttt_linear", tokens=64 * 256, heads=4, training=True)
    found = in_process(size, "scan", 1, 1)
    assert isinstance(found, Measured)
    assert found.peak_bytes is not None
    assert 8 * 2**24 < found.peak_bytes < 16 * 2**24


def test_numbers_of_a_published_size_cannot_be_changed() -> None:
    for change in ({"heads": 2}, {"seconds": "9"}, {"mini_batch": 16}, {"passes": "forward"}):
        with pytest.raises(UsageError, match=r"is fixed by --sizes published"):
            BenchKernelsConfig(sizes="published", **change)  # type: ignore[arg-type]
    for change in ({"dtype": "bf16"}, {"device": "cuda"}):
        with pytest.raises(UsageError, match=r"--sizes published is measured with"):
            BenchKernelsConfig(sizes="published", **change)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"sizes: there is no 'publisched'"):
        BenchKernelsConfig(sizes="publisched")


def test_the_plan_names_every_size() -> None:
    items = plan(BenchKernelsConfig(**CONFIG, rows="layer")).items
    named = [(name, text) for name, text in items if name.endswith("layer")]
    assert len(named) == 3
    steps = [text for _, text in named if text.startswith("forward and backward, 18048 tokens")]
    assert len(steps) == 2


def test_the_table_has_both_sides_in_one_line(tmp_path: Path) -> None:
    facts = {"row": "layer", "op": "ttt_mlp", "tokens": 64, "heads": 2, "mini_batch": 16}
    facts |= {"sizes": "published", "pass": "backward", "seconds": 1.0}
    ours = {**facts, "side": "scan", "cpu_seconds": 2.0, "peak_bytes": 2**30, "times_public": 4.0}
    theirs = {**facts, "side": "public", "cpu_seconds": 8.0, "peak_bytes": 3 * 2**30}
    missing = {**facts, "pass": "forward", "side": "scan", "not_run": "no room"}
    del missing["seconds"]
    lines = markdown([ours, theirs, missing]).splitlines()
    what = "ttt_mlp layer, 2 heads, 64 tokens, mini-batch 16"
    assert lines[2] == f"| {what} | backward | 8.00 | 2.00 | 4.0x | 3.00 | 1.00 |"
    assert lines[3] == f"| {what} | no gradient | – | – | – | – | – |"
    assert {line.count("|") for line in lines} == {8}


def test_the_command_takes_the_sizes(tiny: None) -> None:
    words = ("bench", "kernels", "--sizes", "published", "--rows", "ttt_linear", "--repeats", "1")
    done = run_ttv(*words, "--json", "--quiet")
    assert done.code == 0, done.stderr
    assert {row["side"] for row in done.json["rows"]} == {"scan", "public"}


def test_the_script_prints_rows_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "docs")
    script = importlib.import_module("bench_table")
    row = {"row": "ttt_mlp", "op": "ttt_mlp", "tokens": 64, "heads": 2, "mini_batch": 16}
    row |= {"side": "scan", "pass": "forward", "seconds": 1.0, "cpu_seconds": 1.5}
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    files[0].write_text(json.dumps(row) + "\n")
    files[1].write_text(json.dumps({**row, "tokens": 128}) + "\n")
    script.main([str(file) for file in files])
    printed = capsys.readouterr().out
    assert "| ttt_mlp, 2 heads, 64 tokens, mini-batch 16 | no gradient | – | 1.50 |" in printed
    assert "128 tokens" in printed

    video = {"row": "ttt_mlp", "side": "triton", "pass": "forward", "tokens": 18048, "heads": 48}
    video |= {"video_seconds": 3, "seconds": 0.0123456, "tflops": 3.14159, "gb_s": 271.8}
    video |= {"bound_share": 0.25, "local_attention_ratio": 1.414, "peak_bytes": 2**29}
    missing = {**video, "side": "compiled", "not_run": "needs a CUDA device"}
    for name in ("seconds", "tflops", "gb_s", "bound_share", "local_attention_ratio", "peak_bytes"):
        del missing[name]
    files[1].write_text("".join(json.dumps(each) + "\n" for each in (video, missing)))
    script.main([str(file) for file in files])
    printed = capsys.readouterr().out
    assert "| ttt_mlp, 2 heads, 64 tokens, mini-batch 16 | no gradient | – | 1.50 |" in printed
    measured = "3 s, 48 heads | 0.01235 | 0.50 | 3.14 | 272 | 25% | – | – | 1.41 | – | – |"
    assert f"| ttt_mlp, triton | forward | {measured}" in printed
    reason = "3 s, 48 heads | needs a CUDA device | – | – |"
    assert f"| ttt_mlp, compiled | forward | {reason}" in printed
    assert {line.count("|") for line in printed.splitlines()} == {0, 8, 14}

    files[1].write_text('{"bench": "data"}\n')
    with pytest.raises(SystemExit, match=r"b\.jsonl: no row of `ttv bench kernels`: {'bench'"):
        script.main([str(file) for file in files])
