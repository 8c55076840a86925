"""`ttv prep encode`: videos to latents."""

from typing import Annotated

import typer

from ttvcli.cli.options import (
    Device,
    Dtype,
    Force,
    Fps,
    Frames,
    Limit,
    Model,
    Out,
    Shard,
    Size,
    Threads,
    Videos,
    Workers,
)
from ttvcli.cli.run_step import step_command

Engine = Annotated[
    str | None, typer.Option("--engine", help="local, or ray: encoders on a Ray cluster.")
]
Verify = Annotated[
    bool | None,
    typer.Option("--verify", help="Decode one latent again, to verify.mp4 beside its source."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "encode")
    def encode(
        source: Videos = None,
        out: Out = None,
        model: Model = None,
        size: Size = None,
        fps: Fps = None,
        frames: Frames = None,
        dtype: Dtype = None,
        device: Device = None,
        threads: Threads = None,
        limit: Limit = None,
        workers: Workers = None,
        shard: Shard = None,
        engine: Engine = None,
        verify: Verify = None,
        force: Force = None,
    ) -> None:
        """Encode videos of any kind to latents of one size, frame rate and length.

        Longer videos give several clips. A video that cannot be read is skipped with its reason in
        report.json, and the exit code is then 5. A .txt file beside a video is its caption. Run
        the same command again to continue after a stop; what is done is not done twice.
        Processes decode ahead of the encoder. On many machines that share a folder, each does one
        part with --shard, and the last to end merges them; --engine ray spreads over a Ray cluster.

        \b
        Examples:
          ttv prep encode raw/ --out latents/
          ttv prep encode videos/ --out latents/ --frames 145 --size 128x128
          ttv prep encode clips/manifest.jsonl --out latents/ --model CogVideoX-5b/ --dtype bf16
          ttv prep encode videos/ --out latents/ --dry-run
          ttv prep encode videos/ --out latents/ --shard 2/8 --workers 15
          ttv prep encode videos/ --out latents/ --limit 1 --verify
        """
