"""`ttv embed-text`: captions to T5 embeddings."""

from typing import Annotated

import typer

from ttvcli.cli.options import (
    ConfigFile,
    Device,
    DryRun,
    Dtype,
    Force,
    Json,
    Limit,
    Model,
    Out,
    Quiet,
    Set,
    Shard,
    ShowConfig,
    Threads,
)
from ttvcli.cli.run_step import execute


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("embed-text")
    def embed_text(
        source: Annotated[
            str | None,
            typer.Argument(
                help="Folder of latents, a manifest, a .txt of one prompt a line, or - for stdin.",
                show_default=False,
            ),
        ] = None,
        out: Out = None,
        model: Model = None,
        encoder: Annotated[
            str | None,
            typer.Option("--encoder", help="t5 of the model, or clip with --model CLIP_FOLDER."),
        ] = None,
        max_tokens: Annotated[
            int | None,
            typer.Option("--max-tokens", help="Tokens a segment. Default: the model's.", min=1),
        ] = None,
        dtype: Dtype = None,
        device: Device = None,
        threads: Threads = None,
        limit: Limit = None,
        batch: Annotated[
            int | None,
            typer.Option("--batch", help="Texts at once, as far as no bit changes.", min=1),
        ] = None,
        shard: Shard = None,
        force: Force = None,
        json: Json = False,
        quiet: Quiet = False,
        dry_run: DryRun = False,
        show_config: ShowConfig = False,
        sets: Set = None,
        config: ConfigFile = None,
    ) -> None:
        """Embed the captions of clips, one row of tokens for each 3 s segment.

        The empty prompt is always embedded too. Run the same command again to continue after a
        stop, or after captions were changed: only what is new is embedded, each text once.

        \b
        Examples:
          ttv embed-text latents/ --out text/
          ttv embed-text latents/ --out text/ --model CogVideoX-5b/ --dtype bf16
          ttv embed-text latents/ --out clip/ --model clip-vit-large-patch14/ --encoder clip
          ttv embed-text latents/ --out text/ --shard 2/8
          echo "a red circle moves right" | ttv embed-text - --out text/
        """
        flags = {
            "source": source,
            "out": out,
            "model": model,
            "encoder": encoder,
            "max_tokens": max_tokens,
            "dtype": dtype,
            "device": device,
            "threads": threads,
            "limit": limit,
            "batch": batch,
            "shard": shard,
            "force": force,
        }
        execute(
            "embed_text",
            flags,
            json=json,
            quiet=quiet,
            dry_run=dry_run,
            show_config=show_config,
            sets=sets,
            config_file=config,
        )
