"""`ttv prep synth`: render captioned clips of the tiny world."""

from typing import Annotated

import typer

from ttvcli.cli.options import Force, Out, Seed
from ttvcli.cli.run_step import step_command

Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="train|heldout|all",
        help="Combinations to draw; train leaves out those of heldout.",
    ),
]
Paths = Annotated[
    str | None,
    typer.Option(
        "--paths",
        metavar="free|fixed",
        help="fixed: one object has one size and few paths, sooner learnt.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "synth")
    def synth(
        out: Out = None,
        clips: Annotated[
            int | None, typer.Option("--clips", help="Number of clips in the folder.")
        ] = None,
        seconds: Annotated[
            int | None, typer.Option("--seconds", help="Length of a clip: 3, 6, ... 63.")
        ] = None,
        size: Annotated[
            int | None, typer.Option("--size", help="Width and height in pixels, even.")
        ] = None,
        fps: Annotated[int | None, typer.Option("--fps", help="Frames per second.")] = None,
        split: Split = None,
        objects: Annotated[
            int | None, typer.Option("--objects", help="Objects of a clip: 1, 2, or 0 for both.")
        ] = None,
        paths: Paths = None,
        crf: Annotated[
            int | None, typer.Option("--crf", help="Quality of the H.264 files, 0 is lossless.")
        ] = None,
        seed: Seed = None,
        force: Force = None,
    ) -> None:
        """Render captioned clips of the tiny world as mp4 files with their exact ground truth.

        Some combinations of shape, colour and motion never appear in the train split: they test
        what a model makes of captions that it has not seen. A folder can be extended with more
        --clips later; a stopped run goes on where it was.

        \b
        Examples:
          ttv prep synth --out raw/
          ttv prep synth --out raw/ --clips 2000 --size 128
          ttv prep synth --out long/ --clips 20 --seconds 63
          ttv prep synth --out test/ --clips 128 --split heldout --objects 1 --json
        """
