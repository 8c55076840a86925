"""`ttv prep split`: videos to clips of one length, frame rate and size."""

from typing import Annotated

import typer

from ttvcli.cli.options import Force, Fps, Limit, Out, Size, Videos, Workers
from ttvcli.cli.run_step import step_command

Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="3s|5s",
        help="3s: segments of 3 s, 16 fps, 720x480. 5s: of 5 s, 24 fps, 1280x720.",
    ),
]
ClipSeconds = Annotated[
    float | None,
    typer.Option("--seconds", help="Length of a clip: whole segments, such as 9 or 63."),
]
Detector = Annotated[
    str | None,
    typer.Option("--detector", metavar="scdet|transnetv2|none", help="What finds the scenes."),
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", help="Of the detector: scdet 10 (percent), the other 0.4."),
]
Join = Annotated[
    str | None,
    typer.Option(
        "--join",
        metavar="source|scene",
        help="Long clips take segments of the whole source, or of one scene only.",
    ),
]
Short = Annotated[
    str | None,
    typer.Option(
        "--short",
        metavar="drop|hold",
        help="Scenes of 2 s up to a segment: drop, or hold their last frame.",
    ),
]
Margin = Annotated[
    float | None, typer.Option("--margin", help="Seconds left out on either side of a cut.")
]
Bars = Annotated[
    str | None,
    typer.Option("--bars", metavar="crop|keep", help="Black bars around the picture."),
]
AllowUpscale = Annotated[
    bool | None,
    typer.Option("--allow-upscale", help="Take videos that are smaller than the size."),
]
Crf = Annotated[
    int | None, typer.Option("--crf", help="Quality of the H.264 files, 0 is lossless.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "split")
    def split(
        source: Videos = None,
        out: Out = None,
        profile: Profile = None,
        seconds: ClipSeconds = None,
        size: Size = None,
        fps: Fps = None,
        detector: Detector = None,
        threshold: Threshold = None,
        join: Join = None,
        short: Short = None,
        margin: Margin = None,
        bars: Bars = None,
        allow_upscale: AllowUpscale = None,
        crf: Crf = None,
        workers: Workers = None,
        limit: Limit = None,
        force: Force = None,
    ) -> None:
        """Cut videos along their scenes into clips of one length, frame rate and size.

        A scene gives as many whole segments as fit; what is over is cut away evenly at both ends.
        Every frame of a clip is of its scene. Scenes under 2 s are dropped. Black bars are cut off.
        Videos are turned upright, brought to square pixels, mapped from HDR to SDR, scaled and
        cropped. A video that cannot be used is skipped with its reason in report.json, and the exit
        code is then 5. Run the same command again to continue after a stop.

        \b
        Examples:
          ttv prep split raw/ --out clips/
          ttv prep split clean/manifest.jsonl --out clips/ --size 128x128 --seconds 9
          ttv prep split raw/ --out clips/ --profile 5s --detector transnetv2
          ttv prep split raw/ --out clips/ --dry-run
        """
