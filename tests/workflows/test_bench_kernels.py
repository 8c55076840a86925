"""`ttv bench kernels`: nothing wrong is timed, and nothing that is missing is silent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_ttv

from ttvcli.core.kernel_bench import gate, roofline, shapes, sides
from ttvcli.core.kernel_bench.roofline import Roofline, ada_estimate
from ttvcli.core.kernel_bench.shapes import Cost, Shape
from ttvcli.core.models.ttt.layer import TTTLayer
from ttvcli.errors import Interrupted, UsageError, WorkFailed
from ttvcli.workflows import bench_kernels
from ttvcli.workflows.bench_kernels import BenchKernelsConfig, plan, run

HALF_AND_WHOLE = (torch.bfloat16, torch.float32)
SMALL: dict[str, Any] = {"heads": 2, "repeats": 1, "device": "cpu"}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos of 192 and 576 tokens, and a machine whose rates are known."""
    monkeypatch.setattr(shapes, "FRAME_GRID", (2, 5))
    monkeypatch.setattr(shapes, "TEXT_TOKENS", {3: 62, 9: 2})
    monkeypatch.setattr(roofline, "measure", lambda device, dtype: Roofline(1e12, 1e11))


@pytest.mark.parametrize(
    ("seconds", "tokens", "updates"),
    [(3, 18048, 282), (9, 51456, 804), (18, 101376, 1584), (30, 168320, 2630), (63, 351168, 5487)],
)
def test_lengths_are_the_published_ones(seconds: int, tokens: int, updates: int) -> None:
    shape = Shape(seconds)
    assert shape.tokens == tokens
    assert shape.tokens == 64 * updates
    assert shape.window == shape.segments.text_tokens + 13 * 1350


def test_counted_arithmetic_of_the_whole_model_is_the_published_one() -> None:
    """42 layers, forward: 0.34 and 0.47 PFLOP at 3 s, 6.86 and 9.41 at 63 s."""
    counted = [
        42 * shapes.layer_cost(op, Shape(seconds), False, 2).flop / 1e15
        for seconds in (3, 63)
        for op in (None, "ttt_mlp")
    ]
    assert counted == pytest.approx([0.34, 0.47, 6.86, 9.41], rel=0.03)


def test_every_row_is_measured_or_says_why_not(tiny: None, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    result = run(BenchKernelsConfig(**SMALL, out=out))
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert rows == result.rows
    operations = {(op, side) for op in sides.OPS for side in sides.SIDES}
    others = {("local-attention", "sdpa"), *(("layer", side) for side in ("none", *sides.LAYERS))}
    for which in ("forward", "backward"):
        found = {(row["row"], row["side"]) for row in rows if row["pass"] == which}
        assert found == operations | others
    for row in rows:
        assert row["tokens"] == 192
        assert {"device_name", "date", "versions", "threads"} <= set(row)
        if row["side"] in ("triton", "compiled"):
            assert "needs a CUDA device" in row["not_run"] or "--compile" in row["not_run"]
            continue
        assert row["seconds"] > 0
        assert row["tflops"] * row["seconds"] * 1e12 == pytest.approx(row["flop"])
        assert row["gb_s"] * row["seconds"] * 1e9 == pytest.approx(row["bytes"])
        assert row["bound_share"] == pytest.approx(row["bound_seconds"] / row["seconds"])
        assert ("relative_error" in row) == (row["row"] != "local-attention")
        assert ("times_public" in row) == (row["side"] == "scan")
        peer = row["side"] in ("sdpa", "none")
        assert ("local_attention_ratio" in row) != peer
        assert ("training_ratio" in row) == (row["pass"] == "backward" and not peer)
    assert len(result.table) == len(rows)


def test_ratios_are_those_of_the_rows(tiny: None) -> None:
    rows = run(BenchKernelsConfig(**SMALL, rows="ttt_linear,local-attention")).rows
    seconds = {(row["row"], row["side"], row["pass"]): row.get("seconds") for row in rows}
    scan = {row["pass"]: row for row in rows if row["side"] == "scan"}
    ours = [seconds["ttt_linear", "scan", which] for which in ("forward", "backward")]
    theirs = [seconds["local-attention", "sdpa", which] for which in ("forward", "backward")]
    assert scan["forward"]["local_attention_ratio"] == pytest.approx(2 * ours[0] / theirs[0])
    assert scan["backward"]["training_ratio"] == pytest.approx(2 * sum(ours) / sum(theirs))
    public = seconds["ttt_linear", "public", "forward"]
    assert scan["forward"]["times_public"] == pytest.approx(public / ours[0])


@pytest.mark.parametrize("wrong", ["output", "state", "gradient"])
def test_a_wrong_operation_is_not_timed(
    tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    original = sides.operation

    def broken(op: str, side: str) -> Callable[..., Any]:
        right = original(op, side)

        def work(q: torch.Tensor, *rest: torch.Tensor, **options: Any) -> Any:
            if wrong == "gradient":
                rest = (rest[0], rest[1].detach() + 0 * rest[1], *rest[2:])
            output, state = right(q, *rest, **options)
            if wrong == "output":
                output = output + 0.001  # which no gradient shows
            if wrong == "state":
                state = (state[0] * 1.001, *state[1:])
            return output, state

        return work if side == "scan" else right

    monkeypatch.setattr(sides, "operation", broken)
    monkeypatch.setattr(bench_kernels, "measure", lambda *_: pytest.fail("timed"))
    named = {"output": "output", "state": "final W1", "gradient": "d target"}[wrong]
    out = tmp_path / "rows.jsonl"
    with pytest.raises(WorkFailed, match=f"ttt_linear scan: .*{named}.* away from the reference"):
        run(BenchKernelsConfig(**SMALL, out=out))
    assert not out.exists()


def test_a_wrong_layer_is_not_timed(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    original = TTTLayer.learning_rate

    def wrong(layer: TTTLayer, x: torch.Tensor) -> torch.Tensor:
        return original(layer, x) * (1.1 if x.dtype == torch.float32 else 1.0)

    monkeypatch.setattr(TTTLayer, "learning_rate", wrong)
    monkeypatch.setattr(bench_kernels, "measure", lambda *_: pytest.fail("timed"))
    with pytest.raises(WorkFailed, match=r"layer ttt_linear: .* away from the reference"):
        run(BenchKernelsConfig(**SMALL, rows="layer"))


@pytest.mark.parametrize(
    ("op", "dtype", "backend"),
    [
        *((op, dtype, "scan") for op in (None, *sides.LAYERS) for dtype in HALF_AND_WHOLE),
        pytest.param("ttt_linear", torch.float16, "triton", marks=pytest.mark.slow),
        pytest.param("ttt_mlp", torch.float16, "triton", marks=pytest.mark.slow),
    ],
)
def test_every_layer_passes_the_check(
    op: str | None, dtype: torch.dtype, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Triton (in its interpreter) and the scan, which is what the exact block takes."""
    if backend == "triton":
        pytest.importorskip("triton")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("TTV_TTT_BACKEND", backend)
    found = gate.block_distances(op, 16, dtype, torch.device("cpu"))
    inside = {"d W1", "d wq.weight", "d wo.bias"} if op else set()
    assert {"output", "d text", "d video", *inside} <= set(found)
    assert ("d lr_weight" in found) == (op in sides.OPS)
    assert 0 < max(found.values()) < gate.TOLERANCE[dtype]


def test_a_result_that_is_not_a_number_is_not_timed(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"output": 1e-9, "d q": float("nan")}
    monkeypatch.setattr(gate, "distances", lambda *_, **__: found)
    with pytest.raises(WorkFailed, match="d q is nan away"):
        run(BenchKernelsConfig(**SMALL))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", sides.OPS)
@pytest.mark.parametrize("side", ["scan", "public"])
def test_every_side_passes_the_check(op: str, side: str, dtype: torch.dtype) -> None:
    found = gate.distances(
        sides.operation(op, side),
        op,
        side,
        mini_batch=16,
        dtype=dtype,
        device=torch.device("cpu"),
    )
    assert len(found) == (11 if op == "ttt_linear" else 15)
    assert max(found.values()) < gate.TOLERANCE[dtype]


def test_the_compiled_side_runs_compiled_steps(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def keep(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            compiled.append(function.__name__)
            return function(*args, **kwargs)

        return step

    monkeypatch.setattr(torch, "compile", keep)
    config = BenchKernelsConfig(**SMALL, rows="ttt_mlp", sides="compiled", compile=True)
    rows = run(config).rows
    assert [row["side"] for row in rows if "seconds" in row] == ["compiled"] * 2
    assert set(compiled) == {"mlp_step"}


@pytest.mark.slow
@pytest.mark.parametrize("op", sides.OPS)
def test_steps_can_be_compiled_with_their_gradients(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and differentiated ahead of time; what is left out is the code generator."""
    original = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda step, **_: original(step, backend="aot_eager", fullgraph=True)
    )
    found = gate.distances(
        sides.operation(op, "compiled"),
        op,
        "compiled",
        mini_batch=16,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    assert max(found.values()) < gate.TOLERANCE[torch.float32]


def test_what_would_take_too_long_or_too_much_is_listed(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quadratic backward of the public operation is what a limit meets first."""
    monkeypatch.setattr(roofline, "measure", lambda device, dtype: Roofline(1e12, 1e5))
    config = BenchKernelsConfig(**SMALL, rows="ttt_linear", sides="scan,public", limit=20.0)
    rows = {(row["side"], row["pass"]): row for row in run(config).rows}
    assert "--limit allows 20 s" in rows["public", "backward"]["not_run"]
    assert "seconds" in rows["scan", "backward"]
    monkeypatch.setattr("ttvcli.workflows.bench_kernels_rows.memory_bytes", lambda: 1000)
    monkeypatch.setattr(roofline, "measure", lambda device, dtype: Roofline(1e12, 1e11))
    rows = {(row["side"], row["pass"]): row for row in run(config).rows}
    assert all("GiB are free" in row["not_run"] for row in rows.values())


def test_a_side_that_runs_out_of_memory_is_listed_and_the_others_go_on(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = sides.ttt_work

    def work(run_side: Any, op: str, side: str, *rest: Any) -> Any:
        if side == "public":
            raise torch.OutOfMemoryError("no room")
        return original(run_side, op, side, *rest)

    monkeypatch.setattr(sides, "ttt_work", work)
    rows = run(BenchKernelsConfig(**SMALL, rows="ttt_linear", passes="forward")).rows
    assert {row["side"]: row.get("not_run") for row in rows}["public"] == "out of memory"
    assert next(row for row in rows if row["side"] == "scan")["seconds"] > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rows": "ttt_mpl"}, "rows: there is no 'ttt_mpl'"),
        ({"sides": "scan,tritn"}, "sides: there is no 'tritn'"),
        ({"seconds": "5"}, "seconds: there is no '5'"),
        ({"passes": "both"}, "passes: there is no 'both'"),
        ({"dtype": "int8"}, "no dtype 'int8'"),
        ({"heads": -1}, "heads must be at least 0"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"limit": 0.0}, "limit must be above 0"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        BenchKernelsConfig(**changes)


def test_a_mini_batch_that_does_not_divide_the_video_leaves_the_public_side_out(
    tiny: None,
) -> None:
    rows = run(BenchKernelsConfig(**SMALL, rows="ttt_linear", mini_batch=40)).rows
    public = [row["not_run"] for row in rows if row["side"] == "public"]
    assert public == ["192 tokens do not divide into mini-batches of 40"] * 2


def test_defaults_suit_the_device() -> None:
    config = BenchKernelsConfig()
    cpu, card = torch.device("cpu"), torch.device("cuda")
    assert [(shape.seconds, shape.heads) for shape in config.shapes(cpu)] == [(3, 4)]
    assert [shape.seconds for shape in config.shapes(card)] == [3, 9, 18, 30, 63]
    assert {shape.heads for shape in config.shapes(card)} == {48}
    assert config.settings(cpu).dtype == torch.float32
    assert config.settings(card).dtype == torch.bfloat16


def test_the_plan_names_every_row() -> None:
    items = dict(plan(BenchKernelsConfig(device="cpu")).items)
    assert {"row ttt_linear", "row ttt_mlp", "row local-attention", "row layer"} <= set(items)
    assert items["3 s"] == "18048 tokens, 4 heads"


def test_an_interrupted_benchmark_says_what_is_kept(
    tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(sides, "attention_work", stop)
    out = tmp_path / "rows.jsonl"
    rows = "ttt_linear,local-attention"
    with pytest.raises(Interrupted, match=r"8 rows kept in .*rows\.jsonl"):
        run(BenchKernelsConfig(**SMALL, rows=rows, out=out))
    assert len(out.read_text(encoding="utf-8").splitlines()) == 8


def test_bounds_come_from_the_slower_of_arithmetic_and_memory() -> None:
    machine = Roofline(flops=100.0, bandwidth=10.0)
    assert machine.seconds(Cost(200.0, 10.0)) == 2.0
    assert machine.limited_by(Cost(200.0, 10.0)) == "arithmetic"
    assert machine.seconds(Cost(200.0, 50.0)) == 5.0
    assert machine.limited_by(Cost(200.0, 50.0)) == "memory"


def test_measured_rates_of_this_machine_are_plausible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "CPU_SIZES", (128, 1 << 16))
    rates = roofline.measure(torch.device("cpu"), torch.float32)
    assert 1e7 < rates.flops < 1e15
    assert 1e6 < rates.bandwidth < 1e14


def test_an_estimate_for_another_card_lies_between_its_clock_and_its_products() -> None:
    flop, heads = 1e12, 48
    products = roofline.HOPPER.product_seconds(flop, heads)
    alone = ada_estimate("NVIDIA H200", products, flop, heads)
    assert alone == pytest.approx(roofline.ADA.product_seconds(flop, heads))
    waiting = ada_estimate("NVIDIA H100 80GB HBM3", products + 1.0, flop, heads)
    assert waiting is not None
    assert alone is not None
    assert waiting - alone == pytest.approx(1.755 / 2.52)
    assert ada_estimate("NVIDIA A100", 1.0, flop, heads) is None
    assert ada_estimate("NVIDIA H100", 1.0, flop, 192) is None  # more programs than processors


def test_the_command_prints_rows_as_one_object(tiny: None) -> None:
    words = ("bench", "kernels", "--rows", "ttt_linear", "--heads", "1", "--repeats", "1")
    done = run_ttv(*words, "--device", "cpu", "--json", "--quiet")
    assert done.code == 0, done.stderr
    assert {row["side"] for row in done.json["rows"]} == set(sides.SIDES)
    wrong = run_ttv("bench", "kernels", "--rows", "ttt_mpl")
    assert wrong.code == 2
    assert "did you mean ttt_mlp" in wrong.stderr
