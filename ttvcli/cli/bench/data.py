"""`ttv bench data`: the speed of data preparation beside bare video readers."""

from typing import Annotated

import typer

from ttvcli.cli.options import Limit, Out, Size
from ttvcli.cli.run_step import step_command

Rows = Annotated[
    str | None, typer.Option("--rows", help="encode, filter, memory, duplicates; default all.")
]
Counts = Annotated[str | None, typer.Option("--threads", help="Numbers of threads: 1,2.")]
Clips = Annotated[
    str | None, typer.Option("--clips", help="Clips among which duplicates are searched.")
]
Lengths = Annotated[
    str | None, typer.Option("--lengths", help="How many times as long, for the memory: 1,4,16.")
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
        lengths: Lengths = None,
        repeats: Repeats = None,
        limit: Limit = None,
    ) -> None:
        """Time decoding, filtering and the search for duplicates beside bare readers.

        PyAV, OpenCV and torchcodec read the same files where they are installed, each side in a
        process of its own. Sides that give other frames than ttv are an error and not timed. Above
        1, ttv is quicker. The rows `memory` show the peak of the filter and of decode and resize on
        one video and on the same many times as long.

        \b
        Examples:
          ttv bench data videos/ -o rows.jsonl
          ttv bench data --rows encode --threads 1 --json
          ttv bench data --rows memory --lengths 1,16
          ttv bench data --rows duplicates --clips 1000,10000
        """
