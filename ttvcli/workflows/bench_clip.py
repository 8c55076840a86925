"""A whole clip, from the model folder to the video file, by ttv and by diffusers.

Each side is a process of its own, so that its memory is its own. The process gets a `Clip` as JSON
in its argument and answers with one line of JSON; a side that fails answers why.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ttvcli.artifacts.latents import load_latents
from ttvcli.core.device import DTYPES
from ttvcli.core.video.encode import write_video
from ttvcli.errors import TtvError, UsageError, WorkFailed
from ttvcli.workflows import components, process_memory
from ttvcli.workflows.bench_child import answer
from ttvcli.workflows.memory_plan import parse_bytes
from ttvcli.workflows.sample import SampleConfig
from ttvcli.workflows.sample import run as sample
from ttvcli.workflows.sample_request import Request, check
from ttvcli.workflows.step import Silent

PROMPT = "A red circle moves to the right over a blue background."
GUIDANCE = 6.0
SEED = 0
# Relative distance of the latents after all steps; diffusers rounds them to the dtype at each.
TOLERANCE = {"fp32": 1e-3, "bf16": 0.2, "fp16": 0.2}


@dataclass(frozen=True)
class Clip:
    """What both sides make; `folder` is where a side leaves its video and latents."""

    model: str
    size: str = ""
    frames: int = 0
    steps: int = 50
    dtype: str = "auto"
    device: str = "auto"
    threads: int = 0
    vram_limit: str = ""
    offload: str = "auto"
    folder: str = ""

    def request(self) -> Request:
        """The clip with every setting settled.

        Raises:
            UsageError, ArtifactError: what `ttv sample` would refuse, or a model of segments.
        """
        request = check(
            SampleConfig(
                prompt=PROMPT,
                model=self.model,
                out=Path(self.folder) / "ttv.mp4",
                size=self.size or None,
                frames=self.frames or None,
                steps=self.steps,
                guidance=GUIDANCE,
                guidance_mode="constant",
                sampler="ddim",
                step_rule="diffusers",
                null_text="empty",
                seed=SEED,
                dtype=self.dtype,  # type: ignore[arg-type]
                keep_latents=True,
                checkpoint_every=0,
                device=self.device,
                threads=self.threads,
                offload=self.offload,  # type: ignore[arg-type]
                vram_limit=self.vram_limit,
            )
        )
        if not request.is_clip or request.transformer.get("ssm", "none") != "none":
            raise UsageError(
                "diffusers knows no TTT layers and no segments, so its clip would be another one",
                where=str(request.folder),
                fix="give a public CogVideoX, or what `ttv bench model` writes without --ssm",
            )
        return request


class _StepClock(Silent):
    """Notes when each denoising step ends."""

    def __init__(self, device: torch.device) -> None:
        self.ends: list[float] = []
        self._device = device
        self._denoising = False

    def start(
        self, description: str, total: int | None = None, unit: str = "", *, done: int = 0
    ) -> None:
        self._denoising = description == "denoising"

    def advance(self, n: int = 1, **fields: Any) -> None:
        if self._denoising:
            self.tick()

    def tick(self) -> None:
        """Note the end of a step, once the device has done what it was given."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.ends.append(time.perf_counter())


def ttv(request: Request, clock: _StepClock) -> None:
    """`ttv sample` as it is."""
    sample(request.config, clock)


def diffusers(request: Request, clock: _StepClock) -> None:
    """`CogVideoXPipeline`, its networks moved to the card in turn where memory is limited.

    Slices and tiles of the VAE are what its documentation gives for a card of 24 GB.
    """
    import diffusers as library

    config, device = request.config, components.device_named(request.config.device)
    dtype = DTYPES[config.dtype]
    pipeline: Any = library.CogVideoXPipeline.from_pretrained(
        request.folder, tokenizer=None, torch_dtype=dtype
    )
    scheduler = library.CogVideoXDDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.scheduler = scheduler
    pipeline.set_progress_bar_config(disable=True)
    if device.type == "cuda" and config.vram_limit:
        pipeline.enable_model_cpu_offload(device=device)
        pipeline.vae.enable_slicing()
        pipeline.vae.enable_tiling()
    else:
        pipeline.to(device)
    tokenizer = components.load_tokenizer(request.folder)
    ids = [tokenizer.encode(text, request.tokens) for text in (PROMPT, "")]
    text, null = pipeline.text_encoder(torch.tensor(ids, device=device))[0][:, None]
    latents: list[torch.Tensor] = []

    def after_step(_: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        clock.tick()
        latents[:] = [given["latents"]]
        return {}

    frames = pipeline(
        prompt_embeds=text.to(dtype),
        negative_prompt_embeds=null.to(dtype),
        width=request.width,
        height=request.height,
        num_frames=request.frames,
        num_inference_steps=config.steps,
        guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(SEED),
        callback_on_step_end=after_step,
        output_type="np",
    ).frames[0]
    video = config.out.with_name("diffusers.mp4")
    write_video(video, ((frame * 255).round().astype("uint8") for frame in frames), request.fps)
    scaled = latents[0][0, request.front_frames :].transpose(0, 1).float().cpu()
    torch.save(scaled / components.scaling_factor(request.vae), video.with_suffix(".pt"))


SIDES: dict[str, Callable[[Request, _StepClock], None]] = {"ttv": ttv, "diffusers": diffusers}


def measured(side: str, clip: Clip) -> dict[str, Any]:
    """Make the clip in this process: seconds of it all and of a step, and the most memory.

    `peak_vram` counts what torch took from the card, its reserve included.
    """
    request = clip.request()
    device = components.device_named(clip.device)
    if device.type == "cuda" and clip.vram_limit:
        total = torch.cuda.get_device_properties(device).total_memory
        part = min(1.0, parse_bytes(clip.vram_limit) / total)
        torch.cuda.set_per_process_memory_fraction(part, device)
    if clip.threads:
        torch.set_num_threads(clip.threads)
    if side == "diffusers":
        import diffusers as library

        library.utils.logging.set_verbosity_error()
    clock = _StepClock(device)
    start = time.perf_counter()
    with torch.inference_mode():
        SIDES[side](request, clock)
    seconds = time.perf_counter() - start
    steps = [end - before for before, end in zip(clock.ends, clock.ends[1:], strict=False)]
    return {
        "seconds": seconds,
        "step_seconds": statistics.median(steps),
        "peak_rss": process_memory.peak(),
        "peak_vram": torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None,
    }


def in_process(side: str, clip: Clip) -> dict[str, Any]:
    """What `measured` gives in a process of its own, or `{"not_run": reason}`."""
    found = answer(__name__, side, json.dumps(asdict(clip)))
    return {"not_run": found} if isinstance(found, str) else found


def row(clip: Clip, repeats: int, advance: Callable[[], None]) -> dict[str, Any]:
    """Medians of both sides over `repeats` clips, which take turns in who goes first.

    Where diffusers cannot make the clip, such as for want of memory, `against_not_run` says why.

    Raises:
        WorkFailed: ttv did not make the clip, or the two made different ones.
    """
    taken: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    errors: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats):
            here = replace(clip, folder=str(Path(folder) / str(turn)))
            Path(here.folder).mkdir()
            for side in SIDES if turn % 2 == 0 else reversed(SIDES):
                taken[side].append(in_process(side, here))
            errors += _distance(here, *(runs[-1] for runs in taken.values()))
            advance()
    ours, theirs = taken.values()
    found = _medians("", ours)
    reasons = [run["not_run"] for run in theirs if "not_run" in run]
    if reasons:
        return {**found, "ratio": None, "relative_error": None, "against_not_run": reasons[0]}
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
    found |= {**_medians("against_", theirs), "ratio": statistics.median(ratios)}
    return {**found, "relative_error": max(errors)}


def _medians(prefix: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median times, and the most memory of all runs."""
    found: dict[str, Any] = {}
    for key in ("seconds", "step_seconds"):
        found[prefix + key] = statistics.median(run[key] for run in runs)
    for key in ("peak_rss", "peak_vram"):
        counted = [run[key] for run in runs if run[key] is not None]
        found[prefix + key] = max(counted, default=None)
    return found


def _distance(clip: Clip, ours: dict[str, Any], theirs: dict[str, Any]) -> list[float]:
    """Relative distance of the latents of both sides; nothing where diffusers made none."""
    if "not_run" in ours:
        raise WorkFailed(f"ttv did not make the clip: {ours['not_run']}", where=clip.model)
    if "not_run" in theirs:
        return []
    mine = load_latents(Path(clip.folder) / "ttv.latents.safetensors")[0].double()
    other = torch.load(Path(clip.folder) / "diffusers.pt").double()
    error = float((mine - other).norm() / other.norm())
    if not error <= TOLERANCE[clip.dtype]:
        raise WorkFailed(
            f"latents differ by {error:.1e}, {TOLERANCE[clip.dtype]:.0e} is allowed",
            where=clip.model,
            fix="pytest -m parity finds the part that differs",
        )
    return [error]


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(measured(sys.argv[1], Clip(**json.loads(sys.argv[2])))) + "\n")
    except TtvError as error:
        sys.exit(f"Error: {error}")
