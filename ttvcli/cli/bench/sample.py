"""`ttv bench sample`: the speed of sampling beside diffusers."""

from typing import Annotated

import typer

from ttvcli.cli.options import Device, Out, Threads
from ttvcli.cli.run_step import step_command

Against = Annotated[str | None, typer.Option("--against", help="Compare with: diffusers.")]
Rows = Annotated[
    str | None, typer.Option("--rows", help="Rows to measure, commas between; default all.")
]
Dtypes = Annotated[str | None, typer.Option("--dtypes", help="Number formats: fp32,bf16.")]
Repeats = Annotated[int | None, typer.Option("--repeats", help="Timed runs of a side.", min=1)]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "bench_sample")
    def sample(
        out: Out = None,
        against: Against = None,
        rows: Rows = None,
        dtypes: Dtypes = None,
        repeats: Repeats = None,
        device: Device = None,
        threads: Threads = None,
    ) -> None:
        """Time VAE, transformer layers and a whole small pipeline beside diffusers.

        Both sides of a row run on the same random weights, have to agree first, and then take
        turns. Prints medians and ratios; above 1, ttv is quicker. --dry-run lists the rows.

        \b
        Examples:
          ttv bench sample --threads 2 -o rows.jsonl
          ttv bench sample --rows vae-decode-128,pipeline --dtypes bf16 --json
        """
