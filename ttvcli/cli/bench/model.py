"""`ttv bench model`: a model folder of full size with random weights, to measure on."""

from typing import Annotated

import typer

from ttvcli.cli.options import ConfigFile, DryRun, Dtype, Json, Out, Quiet, Seed, Set, ShowConfig
from ttvcli.cli.run_step import execute

Variant = Annotated[str | None, typer.Option("--variant", help="CogVideoX of this size: 2b, 5b.")]
Ssm = Annotated[
    str | None,
    typer.Option("--ssm", help="Global layers: none, ttt_linear, ttt_mlp or ttt_large_chunk."),
]
TextLayers = Annotated[
    int | None, typer.Option("--text-layers", help="Layers of the T5; 24 are the real ones.", min=1)
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("model")
    def model(
        out: Out = None,
        variant: Variant = None,
        ssm: Ssm = None,
        text_layers: TextLayers = None,
        dtype: Dtype = None,
        seed: Seed = None,
        json: Json = False,
        quiet: Quiet = False,
        dry_run: DryRun = False,
        show_config: ShowConfig = False,
        sets: Set = None,
        config: ConfigFile = None,
    ) -> None:
        """Write a CogVideoX of full size with random weights: memory and speed, nothing downloaded.

        Every command takes the folder as --model. It makes noise for videos, but the memory and
        the time that it needs are those of the real one.

        \b
        Examples:
          ttv bench model --dry-run -o 5b
          ttv bench model --ssm ttt_mlp --text-layers 2 -o 5b-ttt
          ttv sample "a dog" --model 5b-ttt --size 256x256 --steps 1 --offload disk -o dog.mp4
        """
        execute(
            "bench_model",
            {
                "out": out,
                "variant": variant,
                "ssm": ssm,
                "text_layers": text_layers,
                "dtype": dtype,
                "seed": seed,
            },
            json=json,
            quiet=quiet,
            dry_run=dry_run,
            show_config=show_config,
            sets=sets,
            config_file=config,
        )
