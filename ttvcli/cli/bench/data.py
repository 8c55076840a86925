"""`ttv bench data`: the speed of data preparation beside bare video readers."""

from typing import Annotated

import typer

from ttvcli.cli.options import Limit, Out, Size
from ttvcli.cli.run_step import step_command

Rows = Annotated[
    str | None, typer.Option("--rows", help="encode, filter, duplicates; default all.")
]
Counts = Annotated[str | None, typer.Option("--threads", help="Numbers of threads: 1,2.")]
Clips = Annotated[
    str | None, typer.Option("--clips", help="Clips among which duplicates are searched.")
]
Repeats = Annotated[int | None, typer.Option("--repeats", help="Timed runs of a side.", min=1)]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "bench_data")
    def data(
        source: Annotated[
            str | None,
            typer.Argument(
                help="Video or folder of videos; without it a film is drawn.", show_default=False
            ),
        ] = None,
        out: Out = None,
        rows: Rows = None,
        size: Size = None,
        threads: Counts = None,
        clips: Clips = None,
        repeats: Repeats = None,
        limit: Limit = None,
    ) -> None:
        """Time decoding, filtering and the search for duplicates beside bare readers.

        PyAV, OpenCV and torchcodec read the same files where they are installed, each side in a
        process of its own. Sides that give other frames than ttv are an error and not timed. Above
        1, ttv is quicker.

        \b
        Examples:
          ttv bench data videos/ -o rows.jsonl
          ttv bench data --rows encode --threads 1 --json
          ttv bench data --rows duplicates --clips 1000,10000
        """
