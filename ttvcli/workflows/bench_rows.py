"""Rows of `ttv bench sample`: the same work by ttv and by diffusers, on the same random weights.

Both sides of a row share their weights and inputs, and return what they computed, so that a row is
timed only when both agree.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ttvcli.core.diffusion.guidance import constant, guide
from ttvcli.core.diffusion.noise import draw_noise
from ttvcli.core.diffusion.parameterization import denoiser
from ttvcli.core.diffusion.samplers import ddim
from ttvcli.core.diffusion.schedules import NoiseSchedule
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.vae.causal3d import CausalVAE
from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.errors import UsageError

PIPELINE_STEPS = 10
_SMALL_VAE = VAEConfig(
    block_out_channels=(32, 32, 64, 64), layers_per_block=1, norm_num_groups=8, scaling_factor=1.0
)
_SMALL = CogVideoXConfig(
    num_attention_heads=4,
    num_layers=4,
    text_embed_dim=128,
    time_embed_dim=64,
    sample_width=8,
    sample_height=8,
    max_text_seq_length=32,
    use_rotary_positional_embeddings=True,
)
_TWO_LAYERS = CogVideoXConfig(
    num_attention_heads=48, num_layers=2, use_rotary_positional_embeddings=True
)


@dataclass(frozen=True)
class Pair:
    """Two ways to the same tensor, and how far apart they may be (relative to its norm)."""

    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    tolerance: float


@dataclass(frozen=True)
class Row:
    """What a row measures; `build` makes its networks in a dtype on a device."""

    shape: str
    build: Callable[[torch.dtype, torch.device], Pair]


def public() -> Any:
    """The module `diffusers`; UsageError if it is not installed."""
    try:
        import diffusers
    except ImportError as error:
        raise UsageError(
            f"diffusers cannot be imported: {error}",
            fix="pip install -c constraints.txt -e '.[dev]'",
        ) from error
    diffusers.utils.logging.set_verbosity_error()  # hints about fp32 modules, one a network
    return diffusers


def _tolerance(dtype: torch.dtype, device: torch.device) -> float:
    if dtype != torch.float32:
        return 5e-2
    return 1e-3 if device.type == "cuda" else 1e-4  # cuDNN convolves fp32 in TF32, with 11 bits


def _random(network: nn.Module, dtype: torch.dtype, device: torch.device) -> Any:
    """Random weights of unit gain, norms near one."""
    generator = torch.Generator("cpu").manual_seed(0)
    network = network.to_empty(device="cpu")
    with torch.no_grad():
        for name, weight in sorted(network.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                weight.copy_(noise * weight[0].numel() ** -0.5)
            else:
                weight.copy_(float("norm" in name and name.endswith("weight")) + 0.1 * noise)
    return network.to(device, dtype).eval().requires_grad_(False)


def _twins(
    ours: type[nn.Module],
    theirs: Any,
    config: VAEConfig | CogVideoXConfig,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Any, Any]:
    """Our network and the public one around the same weights in memory."""
    with torch.device("meta"):
        public_one, own = theirs.from_config(config.to_dict()), ours(config)
    public_one = _random(public_one, dtype, device)
    own.load_state_dict(public_one.state_dict(), assign=True)
    return own.eval().requires_grad_(False), public_one


def _vae(config: VAEConfig, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    return _twins(CausalVAE, public().AutoencoderKLCogVideoX, config, dtype, device)


def _vae_encode(side: int, dtype: torch.dtype, device: torch.device) -> Pair:
    own, public_one = _vae(VAEConfig(), dtype, device)
    generator = torch.Generator("cpu").manual_seed(1)
    pixels = torch.rand((1, 3, 17, side, side), generator=generator).to(device, dtype) * 2 - 1
    return Pair(
        lambda: own.encode(pixels)[0],
        lambda: public_one.encode(pixels).latent_dist.mean,
        _tolerance(dtype, device),
    )


def _vae_decode(side: int, dtype: torch.dtype, device: torch.device) -> Pair:
    own, public_one = _vae(VAEConfig(), dtype, device)
    generator = torch.Generator("cpu").manual_seed(1)
    latents = torch.randn((1, 16, 5, side // 8, side // 8), generator=generator).to(device, dtype)
    return Pair(
        lambda: own.decode(latents),
        lambda: public_one.decode(latents).sample,
        _tolerance(dtype, device),
    )


def _layers(dtype: torch.dtype, device: torch.device) -> Pair:
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    theirs = public().CogVideoXTransformer3DModel
    own, public_one = _twins(CogVideoXTransformer, theirs, _TWO_LAYERS, dtype, device)
    generator = torch.Generator("cpu").manual_seed(1)
    latents = torch.randn((1, 13, 16, 60, 90), generator=generator).to(device, dtype)
    text = torch.randn((1, 226, 4096), generator=generator).to(device, dtype)
    timestep = torch.tensor([500], device=device)
    rotary = get_3d_rotary_pos_embed(64, ((0, 0), (30, 45)), (30, 45), 13, device=device)
    return Pair(
        lambda: own(latents, text[:, None], timestep),
        lambda: public_one(latents, text, timestep, image_rotary_emb=rotary, return_dict=False)[0],
        _tolerance(dtype, device),
    )


def _pipeline(dtype: torch.dtype, device: torch.device) -> Pair:
    """From embeddings to pixels in [0, 1]: 49 frames of 64x64, guided, `PIPELINE_STEPS` of DDIM."""
    library = public()
    vae, public_vae = _vae(_SMALL_VAE, dtype, device)
    theirs = library.CogVideoXTransformer3DModel
    network, public_network = _twins(CogVideoXTransformer, theirs, _SMALL, dtype, device)
    schedule = NoiseSchedule()
    scheduler = library.CogVideoXDDIMScheduler.from_config(schedule.to_config())
    pipeline = library.CogVideoXPipeline(None, None, public_vae, public_network, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(1)
    text, null = torch.randn((2, 1, 32, 128), generator=generator).to(device, dtype)

    def predict(x: Tensor, timestep: int, text: Tensor) -> Tensor:
        batch = torch.full((len(x),), timestep, device=device)
        return network(x.to(text.dtype), text, batch)

    def ours() -> Tensor:
        noise = torch.Generator("cpu").manual_seed(2)
        x = draw_noise((1, 13, 16, 8, 8), noise, device=device)
        guided = guide(predict, null[None], text[None], constant(6.0), PIPELINE_STEPS)
        clean = ddim(denoiser(guided, schedule), x, schedule, PIPELINE_STEPS, generator=noise)
        return vae.decode(clean.transpose(1, 2).to(dtype))[0].transpose(0, 1) / 2 + 0.5

    def other() -> Tensor:
        frames = pipeline(
            prompt_embeds=text,
            negative_prompt_embeds=null,
            height=64,
            width=64,
            num_frames=49,
            num_inference_steps=PIPELINE_STEPS,
            guidance_scale=6.0,
            generator=torch.Generator("cpu").manual_seed(2),
            output_type="pt",
        ).frames
        return frames[0]

    # In bfloat16 the public pipeline rounds its latents at every step, ours does not.
    loose = 10 if dtype == torch.float32 else 2
    return Pair(lambda: ours().clamp(0, 1), other, loose * _tolerance(dtype, device))


ROWS: dict[str, Row] = {
    "vae-encode-128": Row("17x128x128", partial(_vae_encode, 128)),
    "vae-decode-128": Row("17x128x128", partial(_vae_decode, 128)),
    "vae-encode-256": Row("17x256x256", partial(_vae_encode, 256)),
    "vae-decode-256": Row("17x256x256", partial(_vae_decode, 256)),
    "layers": Row("2 layers of 5B, 17776 tokens", _layers),
    "pipeline": Row(f"49x64x64, {PIPELINE_STEPS} steps", _pipeline),
}
