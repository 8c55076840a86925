"""The tensor half of sampling: texts to embeddings, noise to latents, latents to frames.

Shape legend: B videos, S segments, L tokens, E text width, T latent frames, C channels,
H W latent size.
"""

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ttvcli import catalog
from ttvcli.artifacts.schema import producer
from ttvcli.core.device import DTYPES, release_unused
from ttvcli.core.diffusion import guidance
from ttvcli.core.diffusion.noise import draw_noise
from ttvcli.core.diffusion.parameterization import denoiser
from ttvcli.core.models.vae.tiles import Tiling
from ttvcli.core.models.vae.tiling import tiled_decode_chunks
from ttvcli.core.video.contact_sheet import contact_sheet, evenly_spaced
from ttvcli.core.video.encode import write_video
from ttvcli.workflows import components, offload
from ttvcli.workflows.first_frame import load_pixels
from ttvcli.workflows.sample_request import Request
from ttvcli.workflows.sample_state import StateFile
from ttvcli.workflows.step import Progress

if TYPE_CHECKING:
    from ttvcli.workflows.sample import SampleConfig

OFS = 2.0  # what CogVideoX-1.5-I2V was trained with, always
_SHEET_SIDE = 128  # small frames are enlarged to about this on the contact sheet


def machine(config: "SampleConfig") -> dict[str, Any]:
    """What the last bits of a video depend on besides its settings: device, threads, versions."""
    return {
        "device": str(components.device_named(config.device)),
        "threads": torch.get_num_threads(),
        **{name: getattr(config, name) for name in ("offload", "vram_limit")},
        "versions": {
            "ttv": producer().removeprefix("ttv "),
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "av", "numpy")},
        },
    }


def _use_threads(config: "SampleConfig") -> None:
    if config.threads:
        torch.set_num_threads(config.threads)


def encode_texts(request: Request, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """Embedding [L, E] of each different text, with the model and dtype of `request`."""
    tokenizer = components.load_tokenizer(request.folder)
    encode = offload.load_text_encoder(request, device)
    different = list(dict.fromkeys(texts))
    ids = [tokenizer.encode(text, request.tokens) for text in different]
    return dict(zip(different, encode(torch.tensor(ids, device=device)), strict=True))


def text_branches(requests: Sequence[Request], device: torch.device) -> tuple[Tensor, Tensor]:
    """Text of the conditional and the unconditional branch, each [B, S, L, E].

    Without a negative text the unconditional branch gets what the model was trained with: the
    embedding of the empty prompt, or zeros.
    """
    prompts = [request.board.prompts for request in requests]
    negatives = [request.board.negatives for request in requests]
    rows = encode_texts(requests[0], [t for texts in prompts + negatives for t in texts], device)
    text = torch.stack([torch.stack([rows[t] for t in texts]) for texts in prompts])
    if requests[0].config.null_text == "zero":
        rows[""] = torch.zeros_like(text[0, 0])
    null = torch.stack([torch.stack([rows[t] for t in texts]) for texts in negatives])
    return text, null


@torch.inference_mode()
def generate_latents(
    requests: Sequence[Request], progress: Progress, unfinished: StateFile | None = None
) -> Tensor:
    """Denoise one video for each request; they may differ in texts, image and seed only.

    With `unfinished`, goes on from the state it holds, and keeps it up to date.

    Returns:
        Unscaled latents [B, C, T, H, W] float32 on the CPU.
    """
    request, config = requests[0], requests[0].config
    _use_threads(config)
    device = components.device_named(config.device)
    text, null = text_branches(requests, device)
    generators = [torch.Generator("cpu").manual_seed(r.config.seed) for r in requests]
    # The image draws before the noise does, as in the public pipeline.
    image = image_latents(requests, generators) if config.image is not None else None
    network = offload.load_denoiser(request, device, videos=len(requests))
    schedule = components.load_schedule(request.folder)
    assert config.steps is not None  # settled by `check`, as is the next
    assert config.guidance is not None
    steps, scale = config.steps, config.guidance

    def predict(x: Tensor, timestep: int, text: Tensor) -> Tensor:
        return velocity(network, x, timestep, text, image)

    scale_at = catalog.get("guidance", str(config.guidance_mode))(scale)
    predict_v = guidance.guide(predict, null, text, scale_at, steps)
    frames, *rest = request.latent_shape
    shape = (len(requests), request.front_frames + frames, *rest)
    noise = draw_noise(shape, generators, device=device)
    sampler = catalog.get("sampler", str(config.sampler))
    state = unfinished.load() if unfinished is not None else None
    done = state.next_step if state is not None else 0
    progress.start("denoising", total=steps, unit="steps", done=done)

    def after_step(event: dict[str, Any]) -> None:
        if unfinished is not None:
            unfinished.update(event["state"])
        progress.advance()

    clean = sampler(
        denoiser(predict_v, schedule),
        noise,
        schedule,
        steps,
        generator=generators,
        state=state,
        callback=after_step,
        previous=config.step_rule,
    )
    progress.finish()
    latents = clean[:, request.front_frames :].transpose(1, 2).float().cpu().contiguous()
    return latents / components.scaling_factor(request.vae)


def velocity(
    network: nn.Module, x: Tensor, timestep: int, text: Tensor, image: Tensor | None
) -> Tensor:
    """One call of the transformer, for as many copies of the batch as guidance evaluates.

    Args:
        x: noisy latents [kB, T, C, H, W].
        text: [kB, S, L, E], whose dtype is that of the network.
        image: latents [B, T, C, H, W] of the first frame, for image-to-video.
    """
    batch = torch.full((len(x),), timestep, device=x.device)
    x = x.to(text.dtype)
    if image is not None:
        copies = image.to(text.dtype).repeat(len(x) // len(image), 1, 1, 1, 1)
        x = torch.cat([x, copies], dim=2)
    config: Any = network.config
    ofs = None if config.ofs_embed_dim is None else x.new_full((1,), OFS)
    return network(x, text, batch, ofs)


def image_latents(requests: Sequence[Request], generators: Sequence[torch.Generator]) -> Tensor:
    """First frames as the transformer reads them, [B, T, C, H, W]: at the first place, then zeros.

    For CogVideoX-1.5 the first place is the frame that fills the patch in front of the clip. Drawn
    from the VAE's posterior, as in the public pipeline.
    """
    request = requests[0]
    vae = load_vae(request)
    device = components.device_named(request.config.device)
    paths = [request.config.image for request in requests]
    pixels = [load_pixels(path, request.width, request.height) for path in paths if path]
    batch = torch.from_numpy(np.stack(pixels))[:, :, None]
    mean, logvar = vae.encode(batch.to(device, DTYPES[request.config.dtype]))  # type: ignore[operator]
    noise = draw_noise(mean.shape, generators, device=device, dtype=mean.dtype)
    first = (mean + (0.5 * logvar).exp() * noise).float().transpose(1, 2)
    factor = components.scaling_factor(request.vae)
    # CogVideoX-1.5 was trained with the inverse of the factor here.
    first = first / factor if request.vae.get("invert_scale_latents") else first * factor
    frames = request.front_frames + request.latent_shape[0]
    return torch.cat([first, first.new_zeros((len(first), frames - 1, *first.shape[2:]))], dim=1)


def load_vae(request: Request) -> nn.Module:
    """The VAE of a request's model, in its dtype and on its device."""
    _use_threads(request.config)  # latents of an earlier run may be all there is to decode
    device = components.device_named(request.config.device)
    release_unused(device)
    return components.load(request.folder, "vae", dtype=request.config.dtype, device=device)


@torch.inference_mode()
def decode_frames(
    request: Request, latents: Tensor, progress: Progress, vae: nn.Module | None = None
) -> Iterator[np.ndarray]:
    """Yield uint8 RGB frames [height, width, 3] of latents [C, T, H, W], a few at a time."""
    vae = vae or load_vae(request)
    device = components.device_named(request.config.device)
    dtype = DTYPES[request.config.dtype]
    progress.start("decoding", total=request.frames, unit="frames")
    latents = latents[None].to(device, dtype)
    chunks = (
        tiled_decode_chunks(vae, latents, Tiling())  # type: ignore[arg-type]
        if request.config.vae_tiling
        else vae.decode_chunks(latents)  # type: ignore[operator]
    )
    for pixels in chunks:
        for frame in _to_bytes(pixels[0]):
            progress.advance()
            yield frame
    progress.finish()


@torch.inference_mode()
def reconstruct(request: Request, frames: np.ndarray, vae: nn.Module | None = None) -> np.ndarray:
    """What the VAE makes of uint8 frames [T, H, W, 3]."""
    vae = vae or load_vae(request)
    device = components.device_named(request.config.device)
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].to(device)
    pixels = (pixels.float() / 127.5 - 1).to(DTYPES[request.config.dtype])
    mean, _ = vae.encode(pixels)  # type: ignore[operator]
    return _to_bytes(vae.decode(mean)[0])  # type: ignore[operator]


def _to_bytes(pixels: Tensor) -> np.ndarray:
    """Pixels [3, T, H, W] in [-1, 1] as uint8 [T, H, W, 3]."""
    shown = (pixels.float() / 2 + 0.5).clamp(0, 1).mul(255).round()
    return shown.to("cpu", torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()


def decode_to_video(
    request: Request, latents: Tensor, path: Path, progress: Progress, tiles: int
) -> bytes:
    """Decode into `path` as H.264; returns a contact sheet of `tiles` frames as PNG."""
    wanted = set(evenly_spaced(request.frames, tiles))
    kept: dict[int, np.ndarray] = {}

    def watched() -> Iterator[np.ndarray]:
        for number, frame in enumerate(decode_frames(request, latents, progress)):
            if number in wanted:
                kept[number] = frame
            yield frame

    write_video(path, watched(), request.fps, crf=request.config.crf)
    numbers = sorted(kept)
    return contact_sheet(
        [kept[number] for number in numbers],
        [number / request.fps for number in numbers],
        columns=6,
        scale=max(1, _SHEET_SIDE // request.height),
    )
