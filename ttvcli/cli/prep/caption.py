"""`ttv prep caption`: a usable caption for every segment."""

from pathlib import Path
from typing import Annotated

import typer

from ttvcli.cli.options import Device, Force, Limit, Out, Workers
from ttvcli.cli.run_step import step_command

Source = Annotated[
    str | None,
    typer.Argument(
        help="Folder of clips, a manifest, one video, or - for a manifest on stdin.",
        show_default=False,
    ),
]
Captioner = Annotated[
    str | None,
    typer.Option(
        "--captioner",
        metavar="FOLDER|URL|tiny-world",
        help="Who writes captions: a vision-language model or a server that runs one.",
        show_default=False,
    ),
]
CaptionerModel = Annotated[
    str | None,
    typer.Option(
        "--captioner-model",
        metavar="NAME",
        help="Model on the server. Default: its first.",
        show_default=False,
    ),
]
FromFile = Annotated[
    Path | None,
    typer.Option(
        "--from-file",
        help="Take captions from a .jsonl, .json, .csv or .tsv.",
        show_default=False,
    ),
]
FillIn = Annotated[
    Path | None,
    typer.Option(
        "--fill-in",
        help="Table to fill in by hand. Default: captions.todo.jsonl beside the manifest.",
        show_default=False,
    ),
]
Sheets = Annotated[
    bool | None,
    typer.Option(
        "--sheets/--no-sheets",
        help="Draw a contact sheet of each segment in that table.",
        show_default=False,
    ),
]
Style = Annotated[
    str | None,
    typer.Option("--style", metavar="paragraph|sentence", help="How captions are worded."),
]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", help="Requests to a server at a time.", min=1)
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "caption")
    def caption(
        source: Source = None,
        out: Out = None,
        captioner: Captioner = None,
        captioner_model: CaptionerModel = None,
        from_file: FromFile = None,
        fill_in: FillIn = None,
        sheets: Sheets = None,
        style: Style = None,
        concurrency: Concurrency = None,
        device: Device = None,
        workers: Workers = None,
        limit: Limit = None,
        force: Force = None,
    ) -> None:
        """Find missing, too short, boiler-plate and non-English captions, and replace them.

        Captions are read from the manifest, name.txt beside name.mp4, metadata.jsonl or .csv, and
        prompts.txt with videos.txt. What is needed is asked of a vision-language model, one
        paragraph for each 3 s. Without one, a table to fill in by hand is written with a contact
        sheet of each segment, and the exit code is 5. Good captions stay, unless --force; replaced
        ones are kept beside. The key of a server is read from the variable CAPTIONER_API_KEY.

        \b
        Examples:
          ttv prep caption clips/ --dry-run
          ttv prep caption clips/ --captioner Qwen2.5-VL-7B-Instruct/
          ttv prep caption clips/ --captioner http://localhost:8000/v1 --concurrency 16
          ttv prep caption clips/ --from-file clips/captions.todo.jsonl
          ttv prep caption raw/ --out captioned/ --captioner tiny-world
        """
