"""The options that commands share: one object each, so that name, short form and help agree.

Every option that sets a field of the step's config defaults to None, "not given": the default
itself is in the config dataclass and nowhere else.
"""

from pathlib import Path
from typing import Annotated

import typer

Videos = Annotated[
    str | None,
    typer.Argument(
        help="Folder of videos (sub-folders too), one video, a manifest, or - for stdin.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Where the result goes.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only errors.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
]
ShowConfig = Annotated[
    bool,
    typer.Option("--show-config", help="Print every setting with its origin as TOML, and stop."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set any setting: --set optimizer.lr=1e-4. May be repeated."),
]
ConfigFile = Annotated[
    list[Path] | None,
    typer.Option("--config", help="TOML file of settings. May be repeated, later ones win."),
]
Force = Annotated[
    bool | None,
    typer.Option("--force", help="Replace what other settings made in the same place."),
]

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Model: tiny (built in) or a CogVideoX folder."),
]
Stage = Annotated[
    str | None, typer.Option("--stage", help="Preset by video length, such as 3s or 63s.")
]
Gpu = Annotated[str | None, typer.Option("--gpu", help="Preset by graphics card, such as 4090.")]

Seed = Annotated[
    str | None, typer.Option("--seed", metavar="INT|random", help="Seed of all randomness.")
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1 or auto. Environment: TTV_DEVICE.")
]
Dtype = Annotated[str | None, typer.Option("--dtype", help="Number format: fp32, bf16 or fp16.")]
AutoDtype = Annotated[
    str | None,
    typer.Option("--dtype", help="Number format: auto (as the model is stored), fp32, bf16, fp16."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="CPU threads. Environment: TTV_THREADS.", min=1)
]
VramLimit = Annotated[
    str | None,
    typer.Option("--vram-limit", help="Memory to stay under: 22GiB. Env.: TTV_VRAM_LIMIT."),
]
Offload = Annotated[
    str | None, typer.Option("--offload", help="Where idle weights go: auto, none, cpu or disk.")
]

Frames = Annotated[
    int | None, typer.Option("--frames", help="Frames of a clip: 49 (3 s), 145, ... or 8k+1.")
]
Size = Annotated[
    str | None, typer.Option("--size", metavar="WxH", help="Picture size in pixels: 720x480.")
]
Fps = Annotated[float | None, typer.Option("--fps", help="Frames per second.")]
Seconds = Annotated[float | None, typer.Option("--seconds", help="Length: a multiple of 3 s.")]
Limit = Annotated[int | None, typer.Option("--limit", help="Take only the first N items.", min=1)]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", help="Processes; suits the CPU cores if not given. Env.: TTV_WORKERS.", min=1
    ),
]
Shard = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Do only the I-th of N parts.")
]
Steps = Annotated[int | None, typer.Option("--steps", help="Number of steps.", min=1)]
Guidance = Annotated[
    float | None, typer.Option("--guidance", help="Strength of the prompt; 1 turns it off.")
]
Negative = Annotated[
    str | None, typer.Option("--negative", help="Prompt for what should not be seen.")
]
Resume = Annotated[
    str | None, typer.Option("--resume", help="Continue: latest, or a checkpoint folder.")
]
