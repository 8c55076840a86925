"""`prep encode --verify`: one latent decoded again, beside the frames it was made from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttvcli.artifacts.latents import load_latents
from ttvcli.artifacts.video import new_video
from ttvcli.core.video.clip_stream import ClipTask, Frames
from ttvcli.core.video.encode import write_video
from ttvcli.workflows.encode_job import Job
from ttvcli.workflows.step import Progress

VERIFY_NAME = "verify.mp4"


def verify(job: Job, folder: Path, record: dict[str, Any], progress: Progress) -> Path:
    """Write `verify.mp4`: the frames of a clip at the left, its decoded latent at the right.

    The mean is decoded in float32. The sidecar has the peak signal-to-noise ratio of the two.
    """
    import numpy as np

    path = folder / VERIFY_NAME
    squared, values = 0.0, 0
    progress.start("decoding one latent", job.config.frames, "frames")

    def pairs() -> Iterator[Any]:
        nonlocal squared, values
        for source, decoded in zip(
            _source(job, record), _decoded(job, folder, record), strict=True
        ):
            difference = source.astype(np.float64) - decoded
            squared += float((difference * difference).sum())
            values += difference.size
            progress.advance()
            yield np.concatenate([source, decoded], axis=1)

    settings = {"clip": record["id"], "source": record["source"], "start": record["start"]}
    with new_video(path, settings, {"latents": record["sha256"]}) as (temporary, facts):
        write_video(temporary, pairs(), job.fps)
        error = squared / max(values, 1)
        facts["psnr_db"] = round(float(10 * np.log10(255**2 / error)), 2) if error else None
    progress.finish()
    progress.note(f"{path.name}: source left, decoded right, {facts['psnr_db']} dB")
    return path


def _source(job: Job, record: dict[str, Any]) -> Iterator[Any]:
    """The frames of the clip, uint8 `[H, W, 3]`, from the video once more."""
    (path,) = (v.path for v in job.sources.videos if v.name == record["source"])
    skip = frozenset(range(record["clips"])) - {record["clip"]}
    for event in ClipTask(path, job.size, job.fps, job.config.frames, skip).events():
        if isinstance(event, Frames):
            yield from event.pictures


def _decoded(job: Job, folder: Path, record: dict[str, Any]) -> Iterator[Any]:
    """The frames that the VAE makes of the latent, uint8 `[H, W, 3]`."""
    import torch

    from ttvcli.workflows import components

    device = components.device_named(job.config.device)
    vae: Any = components.load(job.model, "vae", device=device)
    mean, _, _ = load_latents(folder / record["path"])
    with torch.inference_mode():
        for chunk in vae.decode_chunks(mean.float().to(device)[None]):
            pixels = ((chunk[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            yield from pixels.permute(1, 2, 3, 0).cpu().numpy()
