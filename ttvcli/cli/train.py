"""`ttv train`: train the transformer, the VAE or the text encoder of a model."""

from pathlib import Path
from typing import Annotated

import typer

from ttvcli.cli.options import Device, Force, Gpu, Model, Out, Resume, Seed, Stage, Steps, Threads
from ttvcli.cli.run_step import step_command

Data = Annotated[
    Path | None,
    typer.Option("--data", help="Latents of `prep encode` (or clips, for the VAE)."),
]
Text = Annotated[Path | None, typer.Option("--text", help="Embeddings of `embed-text`.")]
Target = Annotated[
    str | None, typer.Option("--target", help="What to train: transformer, vae or text_encoder.")
]
Batch = Annotated[
    int | None, typer.Option("--batch-size", help="Clips of one forward pass.", min=1)
]
StopAfter = Annotated[
    int | None, typer.Option("--stop-after", help="Stop early after this step; resumable.", min=1)
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "train", presets=("stage", "gpu"))
    def train(
        data: Data = None,
        text: Text = None,
        out: Out = None,
        model: Model = None,
        target: Target = None,
        stage: Stage = None,
        gpu: Gpu = None,
        steps: Steps = None,
        batch_size: Batch = None,
        stop_after: StopAfter = None,
        resume: Resume = None,
        force: Force = None,
        seed: Seed = None,
        device: Device = None,
        threads: Threads = None,
    ) -> None:
        """Train a component of a model; the same command continues a stopped run.

        Prints the model folder, ready for `ttv sample --model`.

        \b
        Examples:
          ttv train --data latents/ --text text/ --steps 200 --out runs/first
          ttv train --stage 9s --data latents9/ --text text9/ --out runs/nine
          ttv train --config configs/train/tiny-vae.toml --data raw/ --out runs/vae
          ttv train --data latents/ --text text/ --set optimizer.lr=3e-4 --dry-run
        """
