"""`ttv bench sample`: the speed of sampling beside diffusers."""

from typing import Annotated

import typer

from ttvcli.cli.options import Device, Frames, Offload, Out, Size, Steps, Threads, VramLimit
from ttvcli.cli.run_step import step_command

Against = Annotated[str | None, typer.Option("--against", help="Compare with: diffusers.")]
Rows = Annotated[
    str | None, typer.Option("--rows", help="Rows to measure, commas between; default all.")
]
Dtypes = Annotated[str | None, typer.Option("--dtypes", help="Number formats: fp32,bf16.")]
ClipModel = Annotated[
    str | None, typer.Option("--model", help="Folder of a CogVideoX: measure a whole clip of it.")
]
Repeats = Annotated[int | None, typer.Option("--repeats", help="Timed runs of a side.", min=1)]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "bench_sample")
    def sample(
        out: Out = None,
        against: Against = None,
        rows: Rows = None,
        dtypes: Dtypes = None,
        model: ClipModel = None,
        size: Size = None,
        frames: Frames = None,
        steps: Steps = None,
        offload: Offload = None,
        vram_limit: VramLimit = None,
        repeats: Repeats = None,
        device: Device = None,
        threads: Threads = None,
    ) -> None:
        """Time VAE, transformer layers and a whole small pipeline beside diffusers.

        Both sides of a row run on the same random weights, have to agree first, and then take
        turns. Prints medians and ratios; above 1, ttv is quicker. --dry-run lists the rows.

        With --model both make a whole clip of that folder, from text encoder to video file, each
        in a process of its own, which also measures seconds a step and peak memory; the card is
        limited to --vram-limit for both.

        \b
        Examples:
          ttv bench sample --threads 2 -o rows.jsonl
          ttv bench sample --rows vae-decode-128,pipeline --dtypes bf16 --json
          ttv bench sample --model 5b --device cuda --vram-limit 24GB --repeats 1 -o clip.jsonl
        """
