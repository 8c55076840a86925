"""`ttv sample`: a video from a prompt or a storyboard."""

from pathlib import Path
from typing import Annotated

import typer

from ttvcli.cli.options import (
    AutoDtype,
    Device,
    Force,
    Frames,
    Gpu,
    Guidance,
    Model,
    Negative,
    Offload,
    Out,
    Seconds,
    Seed,
    Size,
    Steps,
    Threads,
    VramLimit,
)
from ttvcli.cli.run_step import step_command

Prompt = Annotated[
    str | None, typer.Argument(help="What should be seen; - reads it from standard input.")
]
StoryboardFile = Annotated[
    Path | None, typer.Option("--storyboard", help="File with one text for each 3 s segment.")
]
Image = Annotated[
    Path | None, typer.Option("--image", help="First frame, for an image-to-video model.")
]
Fps = Annotated[int | None, typer.Option("--fps", help="Frames per second of one clip.", min=1)]
Sampler = Annotated[str | None, typer.Option("--sampler", help="ddim, dpm++2m or dpm++2m-sde.")]
GuidanceMode = Annotated[
    str | None,
    typer.Option("--guidance-mode", help="constant, ramp, or legacy (as the public pipelines)."),
]
ContactSheet = Annotated[
    Path | None, typer.Option("--contact-sheet", help="Also write a PNG of evenly spaced frames.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "sample", presets=("gpu",))
    def sample(
        prompt: Prompt = None,
        storyboard: StoryboardFile = None,
        out: Out = None,
        model: Model = None,
        image: Image = None,
        seconds: Seconds = None,
        frames: Frames = None,
        fps: Fps = None,
        size: Size = None,
        steps: Steps = None,
        guidance: Guidance = None,
        guidance_mode: GuidanceMode = None,
        negative: Negative = None,
        sampler: Sampler = None,
        seed: Seed = None,
        contact_sheet: ContactSheet = None,
        gpu: Gpu = None,
        dtype: AutoDtype = None,
        device: Device = None,
        threads: Threads = None,
        offload: Offload = None,
        vram_limit: VramLimit = None,
        force: Force = None,
    ) -> None:
        """Make a video from a prompt or a storyboard; prints its path.

        Beside the video goes a .json with every setting: --config out.json makes it again, to
        the byte.

        \b
        Examples:
          ttv sample "a red circle moves right" -o out.mp4
          ttv sample "a blue star bounces" --seed 7 --contact-sheet out.png
          ttv sample --storyboard story.json --seconds 9 -o film.mp4
          ttv sample --config film.json -o same.mp4
          echo "a green ring grows" | ttv sample - -o ring.mp4
          ttv sample "a dog playing fetch" --model path/to/CogVideoX-5b --dry-run
          ttv sample "it wakes up" --image cat.png --model path/to/CogVideoX-5b-I2V -o cat.mp4
        """
