"""`ttv bench kernels` where compilers refuse and on a card, which is not there in these tests."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ttvcli.core.kernel_bench import roofline, shapes, sides
from ttvcli.core.kernel_bench.roofline import Roofline
from ttvcli.core.kernel_bench.shapes import Cost, Shape
from ttvcli.workflows import bench_kernels_rows
from ttvcli.workflows.bench_clock import Timed, machine
from ttvcli.workflows.bench_kernels import BenchKernelsConfig, run
from ttvcli.workflows.bench_kernels_rows import Job, Settings, finished
from ttvcli.workflows.bench_kernels_text import readable

SMALL: dict[str, Any] = {"heads": 2, "repeats": 1, "device": "cpu"}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos of 192 tokens and more, and a machine whose rates are known."""
    monkeypatch.setattr(shapes, "FRAME_GRID", (2, 5))
    monkeypatch.setattr(shapes, "TEXT_TOKENS", {3: 62, 9: 2, 18: 1, 30: 2})
    monkeypatch.setattr(roofline, "measure", lambda device, dtype: Roofline(1e12, 1e11))


@pytest.mark.slow
def test_compiled_steps_are_compiled_at_every_length(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch keeps 8 variants of a function, and would run all others as they are."""
    torch.compiler.reset()  # other tests compile the same functions, which counts
    original, graphs = torch.compile, []

    def keep(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def compile(step: Any, **options: Any) -> Any:
        assert options["fullgraph"]  # which makes it an error
        return original(step, backend=keep, **options)

    monkeypatch.setattr(torch, "compile", compile)
    config = BenchKernelsConfig(
        **SMALL, rows="ttt_mlp", sides="compiled", compile=True, seconds="3,9,18,30", mini_batch=16
    )
    rows = run(config).rows
    assert [row.get("not_run") for row in rows] == [None] * 8
    assert len(graphs) > 8


class OutOfResources(Exception):
    """Named as Triton's."""


@pytest.mark.parametrize("when", ["checked", "measured"])
def test_a_side_that_does_not_compile_for_the_device_is_listed(
    tiny: None, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    original = sides.operation

    def too_large(op: str, side: str) -> Callable[..., Any]:
        right = original(op, side)

        def work(q: torch.Tensor, *rest: torch.Tensor, **options: Any) -> Any:
            if side == "public" and (when == "checked" or q.shape[2] == 192):
                raise OutOfResources("out of resource: shared memory, Required: 110592\nmore")
            return right(q, *rest, **options)

        return work

    monkeypatch.setattr(sides, "operation", too_large)
    config = BenchKernelsConfig(**SMALL, rows="ttt_linear", sides="scan,public", mini_batch=16)
    rows = {(row["side"], row["pass"]): row for row in run(config).rows}
    reason = "does not compile here: out of resource: shared memory, Required: 110592"
    assert rows["public", "forward"]["not_run"] == reason
    assert rows["public", "backward"]["not_run"] == reason
    assert rows["scan", "backward"]["seconds"] > 0


def test_another_error_is_not_hidden(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(sides, "ttt_work", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(BenchKernelsConfig(**SMALL, rows="ttt_linear"))


def test_sides_of_a_card_that_cannot_run_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(sides.dispatch, "triton_imports", lambda: True)
    assert "mini-batch 40 is not one of" in str(sides.obstacle("triton", card, False, 40))
    assert "below (8, 0)" in str(sides.obstacle("triton", card, False))
    assert sides.obstacle("compiled", card, False) is None
    monkeypatch.setattr(sides.dispatch, "triton_imports", lambda: False)
    for side in ("triton", "compiled"):
        assert "triton cannot be imported" in str(sides.obstacle(side, card, False))


class Card:
    """The memory of a card that is not there: what is cached looks taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cached, self.allocated, self.peak = 50, 20, 90
        for name in ("empty_cache", "mem_get_info", "memory_allocated"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)

    def empty_cache(self) -> None:
        self.cached = 0

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        return 100 - self.allocated - self.cached, 100

    def memory_allocated(self, device: torch.device) -> int:
        return self.allocated

    def reset(self, device: torch.device) -> None:
        self.peak = self.allocated


def test_memory_that_earlier_rows_left_in_the_cache_counts_as_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Card(monkeypatch)
    settings = Settings(torch.device("cuda"), torch.bfloat16, 1, 1.0, False, [])
    assert bench_kernels_rows._too_much(0.0, 80.0, settings) is None
    assert "GiB are free" in str(bench_kernels_rows._too_much(0.0, 81.0, settings))


def test_the_peak_on_a_card_is_that_of_the_pass_beyond_its_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = Card(monkeypatch)

    def prepare() -> Callable[[], Any]:
        card.peak += 7
        return lambda: setattr(card, "peak", card.peak + 4)

    taken: list[Timed] = []
    bench_kernels_rows._take_turn(prepare, torch.device("cuda"), taken)
    assert [turn.peak_bytes for turn in taken] == [11]


def test_a_package_that_is_not_there_has_no_version() -> None:
    found = machine(torch.device("cpu"), "no-such-package")["versions"]
    assert found["no-such-package"] is None
    assert found["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("side", "backward", "dtype", "given"),
    [
        ("triton", False, torch.bfloat16, True),
        ("triton", True, torch.bfloat16, False),
        ("triton", False, torch.float32, False),
        ("scan", False, torch.bfloat16, False),
    ],
)
def test_only_forward_kernels_in_half_precision_have_an_estimate(
    side: str, backward: bool, dtype: torch.dtype, given: bool
) -> None:
    settings = Settings(torch.device("cuda"), dtype, 1, 1.0, False, [side])
    job = Job("ttt_mlp", side, Shape(3), backward, Cost(1e12, 1e9), None, None)
    row = finished(
        job, [Timed(0.1, 0.1, 5)], settings, Roofline(1e14, 1e12), "NVIDIA H100 80GB HBM3"
    )
    assert ("estimate_rtx_4090_seconds" in row) == given
    assert row["peak_bytes"] == 5
    assert ("estimate for an RTX 4090" in readable(row)) == given


def test_ratios_to_the_compiled_scan_and_to_the_public_form() -> None:
    shared = {"row": "ttt_mlp", "pass": "forward", "video_seconds": 3}
    rows = [
        {**shared, "side": side, "seconds": seconds}
        for side, seconds in (("public", 12.0), ("compiled", 6.0), ("triton", 1.5))
    ]
    bench_kernels_rows.relate(rows)
    assert [row.get("times_public") for row in rows] == [None, 2.0, 8.0]
    assert [row.get("times_compiled") for row in rows] == [0.5, None, 4.0]
