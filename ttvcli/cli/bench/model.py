"""`ttv bench model`: a model folder of full size with random weights, to measure on."""

from typing import Annotated

import typer

from ttvcli.cli.options import Dtype, Out, Seed
from ttvcli.cli.run_step import step_command

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

    @step_command(app, "bench_model")
    def model(
        out: Out = None,
        variant: Variant = None,
        ssm: Ssm = None,
        text_layers: TextLayers = None,
        dtype: Dtype = None,
        seed: Seed = None,
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
