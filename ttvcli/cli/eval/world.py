"""`ttv eval world`: how well a model draws what it was never shown."""

from typing import Annotated

import typer

from ttvcli.cli.options import (
    ConfigFile,
    Device,
    DryRun,
    Dtype,
    Force,
    Guidance,
    Json,
    Model,
    Out,
    Quiet,
    Seed,
    Set,
    ShowConfig,
    Steps,
    Threads,
)
from ttvcli.cli.run_step import execute
from ttvcli.cli.sample import ContactSheet, Sampler

Prompts = Annotated[
    int | None, typer.Option("--prompts", help="Number of held-out prompts.", min=1)
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("world")
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
        json: Json = False,
        quiet: Quiet = False,
        dry_run: DryRun = False,
        show_config: ShowConfig = False,
        sets: Set = None,
        config: ConfigFile = None,
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
        execute(
            "eval_world",
            {
                "out": out,
                "model": model,
                "prompts": prompts,
                "steps": steps,
                "guidance": guidance,
                "sampler": sampler,
                "dtype": dtype,
                "seed": seed,
                "contact_sheet": contact_sheet,
                "device": device,
                "threads": threads,
                "force": force,
            },
            json=json,
            quiet=quiet,
            dry_run=dry_run,
            show_config=show_config,
            sets=sets,
            config_file=config,
        )
