"""`ttv embed-text`: captions to T5 embeddings."""

from typing import Annotated

import typer

from ttvcli.cli.options import Device, Dtype, Force, Limit, Model, Out, Shard, Threads
from ttvcli.cli.run_step import step_command


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "embed_text")
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
