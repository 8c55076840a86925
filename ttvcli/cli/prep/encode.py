"""`ttv prep encode`: videos to latents."""

from typing import Annotated

import typer

from ttvcli.cli.options import (
    ConfigFile,
    Device,
    DryRun,
    Dtype,
    Force,
    Fps,
    Frames,
    Json,
    Limit,
    Model,
    Out,
    Quiet,
    Set,
    Shard,
    ShowConfig,
    Size,
    Threads,
    Workers,
)
from ttvcli.cli.run_step import execute

Engine = Annotated[
    str | None, typer.Option("--engine", help="local, or ray: encoders on a Ray cluster.")
]
Verify = Annotated[
    bool | None,
    typer.Option("--verify", help="Decode one latent again, to verify.mp4 beside its source."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("encode")
    def encode(
        source: Annotated[
            str | None,
            typer.Argument(
                help="Folder of videos (sub-folders too), one video, a manifest, or - for stdin.",
                show_default=False,
            ),
        ] = None,
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
        json: Json = False,
        quiet: Quiet = False,
        dry_run: DryRun = False,
        show_config: ShowConfig = False,
        sets: Set = None,
        config: ConfigFile = None,
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
        flags = {
            "source": source,
            "out": out,
            "model": model,
            "size": size,
            "fps": fps,
            "frames": frames,
            "dtype": dtype,
            "device": device,
            "threads": threads,
            "limit": limit,
            "workers": workers,
            "shard": shard,
            "engine": engine,
            "verify": verify,
            "force": force,
        }
        execute(
            "encode",
            flags,
            json=json,
            quiet=quiet,
            dry_run=dry_run,
            show_config=show_config,
            sets=sets,
            config_file=config,
        )
