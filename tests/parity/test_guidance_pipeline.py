"""A whole guided sampling loop against diffusers' CogVideoXPipeline, with its own transformer."""

import pytest
import torch
from torch import Tensor

from ttvcli.core.diffusion.guidance import constant, guide, legacy
from ttvcli.core.diffusion.noise import draw_noise
from ttvcli.core.diffusion.parameterization import denoiser
from ttvcli.core.diffusion.samplers import ddim, dpm_pp_2m_sde
from ttvcli.core.diffusion.schedules import NoiseSchedule

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity

SCHEDULE = NoiseSchedule()
SHAPE = (1, 3, 4, 8, 12)  # 9 frames of 96x64 pixels


def random_weights(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, weight in sorted(module.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.1 * noise)
    return module.eval()


@pytest.fixture(scope="module")
def transformer() -> torch.nn.Module:
    model = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=24,
        text_embed_dim=32,
        num_layers=2,
        sample_width=12,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=10,
    )
    return random_weights(model, 0)


@pytest.fixture(scope="module")
def vae() -> torch.nn.Module:
    """Only its sizes are used: the pipeline returns latents."""
    return diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=4
    )


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["ddim", "dpm"])
def test_final_latents_are_equal(
    transformer: torch.nn.Module, vae: torch.nn.Module, name: str, dynamic: bool
) -> None:
    kind = {"ddim": "CogVideoXDDIMScheduler", "dpm": "CogVideoXDPMScheduler"}[name]
    scheduler = getattr(diffusers, kind).from_config(SCHEDULE.to_config())
    pipeline = diffusers.CogVideoXPipeline(None, None, vae, transformer, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    embeddings = torch.Generator().manual_seed(7)
    cond = torch.randn(1, 10, 32, generator=embeddings)
    uncond = torch.randn(1, 10, 32, generator=embeddings)
    theirs = pipeline(
        prompt_embeds=cond,
        negative_prompt_embeds=uncond,
        height=64,
        width=96,
        num_frames=9,
        num_inference_steps=8,
        guidance_scale=6.0,
        use_dynamic_cfg=dynamic,
        generator=torch.Generator().manual_seed(42),
        output_type="latent",
    ).frames

    @torch.no_grad()
    def model(x: Tensor, timestep: int, text: Tensor) -> Tensor:
        timesteps = torch.full((len(x),), timestep)
        prediction: Tensor = transformer(x, text, timesteps, return_dict=False)[0]
        return prediction

    generator = torch.Generator().manual_seed(42)
    x = draw_noise(SHAPE, generator)
    scale = legacy(6.0) if dynamic else constant(6.0)
    denoise = denoiser(guide(model, uncond, cond, scale, 8), SCHEDULE)
    sampler = {"ddim": ddim, "dpm": dpm_pp_2m_sde}[name]
    mine = sampler(denoise, x, SCHEDULE, 8, generator=generator)
    assert torch.equal(mine, theirs), (mine - theirs).abs().max()
