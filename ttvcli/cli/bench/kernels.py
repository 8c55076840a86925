"""`ttv bench kernels`: the speed of the TTT operations."""

from typing import Annotated

import typer

from ttvcli.cli.options import Device, Out, Threads
from ttvcli.cli.run_step import step_command

Sizes = Annotated[
    str | None,
    typer.Option("--sizes", help="video: of --seconds; published: public CPU sizes, with memory."),
]
Rows = Annotated[
    str | None,
    typer.Option("--rows", help="ttt_linear, ttt_mlp, local-attention, layer; default all."),
]
Seconds = Annotated[
    str | None,
    typer.Option("--seconds", help="Video lengths: 3,9,18,30,63. Default: 3 on a CPU, else all."),
]
Heads = Annotated[
    int | None, typer.Option("--heads", help="Heads; default 48 on a GPU, 4 on a CPU.", min=1)
]
MiniBatch = Annotated[int | None, typer.Option("--mini-batch", help="Tokens of one update.", min=1)]
Passes = Annotated[str | None, typer.Option("--passes", help="forward, backward or both.")]
Sides = Annotated[
    str | None, typer.Option("--sides", help="Of scan,public,compiled,triton; default all.")
]
Compile = Annotated[
    bool | None, typer.Option("--compile", help="Measure the compiled scan on a CPU as well.")
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="fp32, bf16, fp16; default bf16 on a GPU, else fp32."),
]
Repeats = Annotated[int | None, typer.Option("--repeats", help="Timed runs of a side.", min=1)]
Limit = Annotated[
    float | None, typer.Option("--limit", help="Seconds; what surely takes longer is not run.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "bench_kernels")
    def kernels(
        out: Out = None,
        sizes: Sizes = None,
        rows: Rows = None,
        seconds: Seconds = None,
        heads: Heads = None,
        mini_batch: MiniBatch = None,
        passes: Passes = None,
        sides: Sides = None,
        compile: Compile = None,
        dtype: Dtype = None,
        repeats: Repeats = None,
        limit: Limit = None,
        device: Device = None,
        threads: Threads = None,
    ) -> None:
        """Time the TTT operations beside the public form and local attention.

        Every side has to agree with the float64 reference first, output and all gradients, and
        every block with itself in float64. Rows say seconds, TFLOP/s, GB/s, the share of what this
        machine allows (measured), how many times as quick as the public operation, and the ratio to
        local attention. What cannot run here is listed with the reason.

        With --sizes published: the sizes at which the public operations were measured on a CPU, and
        the whole TTT layer, each side in a process of its own, with the memory it takes.

        \b
        Examples:
          ttv bench kernels --threads 1 -o rows.jsonl
          ttv bench kernels --sizes published --threads 1 --repeats 1 -o cpu.jsonl
          ttv bench kernels --rows ttt_mlp --heads 1 --sides scan,public --json
          ttv bench kernels --device cuda --seconds 3,63 -o h100.jsonl
        """
