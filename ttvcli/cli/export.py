"""`ttv export`: artifacts in the formats of other programs, and theirs as ours."""

from pathlib import Path
from typing import Annotated

import typer

from ttvcli.cli.options import Force, Out
from ttvcli.cli.run_step import step_command

Source = Annotated[
    str | None,
    typer.Argument(
        help="Model, checkpoint, latents, TTT-Video dataset or storyboard.", show_default=False
    ),
]
Format = Annotated[
    str | None,
    typer.Option("--format", help="auto, diffusers, sat, ttt-video, or ttv for data of ours."),
]
StoredDtype = Annotated[
    str | None, typer.Option("--dtype", help="Number format: stored, fp32, bf16 or fp16.")
]
Base = Annotated[
    str | None,
    typer.Option("--base", help="Model folder for what the source lacks: VAE, T5, tokenizer."),
]
Text = Annotated[
    Path | None, typer.Option("--text", help="Folder of `ttv embed-text` of the latents.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "export")
    def export(
        source: Source = None,
        out: Out = None,
        format: Format = None,
        dtype: StoredDtype = None,
        base: Base = None,
        text: Text = None,
        force: Force = None,
    ) -> None:
        """Write a model, data or storyboard for another program, or read one from it.

        A model becomes a diffusers folder, or with --format a SAT or TTT-Video checkpoint. Such a
        checkpoint becomes a model folder; --base names the model that has its other parts. Latents
        become the dataset of TTT-Video and back, storyboards its prompt files and back.

        \b
        Examples:
          ttv export path/to/CogVideoX-5b --out half/ --dtype bf16
          ttv export runs/latest/model --format ttt-video --out checkpoint/
          ttv export ttt-video/step-5000 --base path/to/CogVideoX-5b --out model/
          ttv export CogVideoX-2b-sat/ --base path/to/CogVideoX-2b --out model/
          ttv export latents/ --text text/ --out dataset/
          ttv export dataset/dataset.jsonl --base path/to/CogVideoX-5b --out data/
          ttv export story.json --out prompts.json
        """
