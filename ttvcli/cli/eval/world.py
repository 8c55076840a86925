"""`ttv eval world`: how well a model draws what it was never shown."""

from typing import Annotated

import typer

from ttvcli.cli.options import Device, Dtype, Force, Guidance, Model, Out, Seed, Steps, Threads
from ttvcli.cli.run_step import step_command
from ttvcli.cli.sample import ContactSheet, Sampler

Prompts = Annotated[
    int | None, typer.Option("--prompts", help="Number of held-out prompts.", min=1)
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "eval_world")
    def world(
        out: Out = None,
        model: Model = None,
        prompts: Prompts = None,
        steps: Steps = None,
        guidance: Guidance = None,
        sampler: Sampler = None,
        dtype: Dtype = None,
        seed: Seed = None,
        contact_sheet: ContactSheet = None,
        device: Device = None,
        threads: Threads = None,
        force: Force = None,
    ) -> None:
        """Measure a tiny-world model on combinations held out of training.

        Finds the object in every generated frame and compares shape, colour and motion with the
        prompt; beside it the same figures for rendered clips, as they are and after the VAE.
        A killed run goes on where it was.

        \b
        Examples:
          ttv eval world -o world.json --contact-sheet world.png
          ttv eval world --model runs/latest/model --prompts 32 --json
        """
