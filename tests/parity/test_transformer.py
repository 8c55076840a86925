"""Our transformer against diffusers', all five published variants at toy size with random weights.

Every weight is random: default norms (1 and 0) would hide a missing affine. `tiny_amp` scales the
inputs by 1e-3, where the eps of a LayerNorm is visible: at full amplitude a wrong one passes.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from variant_folders import TRANSFORMER, VARIANTS, randomise

from ttvcli.core.models.cogvideox import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity

COMMON = {**TRANSFORMER, "num_layers": 3, "max_text_seq_length": 10}
# fp32 relative L2 error; torch sums the same numbers in another order at most
TOLERANCE = 1e-5
CASES = ("base", "tiny_amp", "othersize")


def rotary_of_pipeline(model: Any, frames: int, rows: int, columns: int) -> Any:
    """The tables a diffusers pipeline hands to its transformer."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo import pipeline_cogvideox

    config = model.config
    if not config.use_rotary_positional_embeddings:
        return None
    base = (config.sample_height // 2, config.sample_width // 2)
    if config.patch_size_t is not None:
        return get_3d_rotary_pos_embed(
            16, None, (rows, columns), frames // 2, grid_type="slice", max_size=base
        )
    crop = pipeline_cogvideox.get_resize_crop_region_for_grid((rows, columns), base[1], base[0])
    return get_3d_rotary_pos_embed(16, crop, (rows, columns), frames)


def case(variant: str, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(CASES.index(name))
    frames, height, width = (3, 8, 12)
    if name == "othersize":
        frames, height, width = (4, 12, 8)
    if variant.startswith("1.5"):
        frames = frames + 2 - frames % 2
    scale = 1e-3 if name == "tiny_amp" else 1.0
    channels = {**COMMON, **VARIANTS[variant]}["in_channels"]
    latents = scale * torch.randn(2, frames, channels, height, width, generator=generator)
    text = scale * torch.randn(2, 10, 32, generator=generator)
    ofs = torch.full((1,), 2.0) if variant == "1.5-i2v" else None
    return latents, text, torch.tensor([999, 37]), ofs


@pytest.fixture(scope="session", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """A variant's name and a diffusers transformer of it with random weights."""
    values = {**COMMON, **VARIANTS[request.param]}
    model = diffusers.CogVideoXTransformer3DModel(**values)
    return request.param, randomise(model, torch.Generator().manual_seed(0))


def ours(public: Any, **changes: Any) -> CogVideoXTransformer:
    model = CogVideoXTransformer(CogVideoXConfig.from_dict({**public.config, **changes}))
    model.load_state_dict(public.state_dict(), strict=True)
    return model.eval()


@torch.no_grad()
def relative_error(name: str, public: Any, model: CogVideoXTransformer, which: str) -> float:
    latents, text, timestep, ofs = case(name, which)
    frames, height, width = latents.shape[1], *latents.shape[-2:]
    rotary = rotary_of_pipeline(public, frames, height // 2, width // 2)
    expected = public(latents, text, timestep, ofs=ofs, image_rotary_emb=rotary, return_dict=False)[
        0
    ]
    output = model(latents, text[:, None], timestep, ofs)
    return ((output - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("which", CASES)
def test_output_equals_diffusers(variant: tuple[str, Any], which: str):
    name, public = variant
    if name == "5b-i2v" and which == "othersize":  # its learned table has one size
        latents, text, timestep, _ = case(name, which)
        with pytest.raises(ValueError, match="learned position table"):
            ours(public)(latents, text[:, None], timestep)
        return
    assert relative_error(name, public, ours(public), which) < TOLERANCE


def test_a_wrong_eps_is_seen_at_small_amplitude(variant: tuple[str, Any]):
    name, public = variant
    wrong = ours(public, norm_eps=1e-6)
    assert relative_error(name, public, wrong, "tiny_amp") > TOLERANCE


def test_every_norm_has_the_eps_of_its_counterpart(variant: tuple[str, Any]):
    """Behind the first block inputs are too large for a wrong one to show in the output."""

    def epsilons(model: nn.Module) -> dict[str, float]:
        norms = ((name, m) for name, m in model.named_modules() if isinstance(m, nn.LayerNorm))
        return {name: norm.eps for name, norm in norms}

    _, public = variant
    expected = epsilons(public)
    assert epsilons(ours(public)) == expected
    assert set(expected.values()) == {1e-5, 1e-6}
    assert set(epsilons(ours(public, norm_eps=1e-3)).values()) == {1e-3, 1e-6}


def test_the_norms_of_queries_and_keys_have_an_eps_of_their_own(variant: tuple[str, Any]):
    name, public = variant
    faint = copy.deepcopy(public)
    with torch.no_grad():
        for block in faint.transformer_blocks:  # so faint that an eps of 1e-6 shows
            block.attn1.to_q.weight.mul_(1e-3)
            block.attn1.to_q.bias.mul_(1e-3)
    model = ours(faint)
    assert relative_error(name, faint, model, "base") < TOLERANCE
    for block in model.transformer_blocks:
        block.attn1.norm_q.eps = public.config.norm_eps
    assert relative_error(name, faint, model, "base") > TOLERANCE


def test_gradients_equal_diffusers(variant: tuple[str, Any]):
    name, public = variant
    model = ours(public)
    latents, text, timestep, ofs = case(name, "base")
    rotary = rotary_of_pipeline(public, latents.shape[1], 4, 6)
    public.zero_grad()
    public(latents, text, timestep, ofs=ofs, image_rotary_emb=rotary, return_dict=False)[
        0
    ].square().mean().backward()
    model(latents, text[:, None], timestep, ofs).square().mean().backward()
    expected = {key: p.grad for key, p in public.named_parameters()}
    for key, parameter in model.named_parameters():
        error = (parameter.grad - expected[key]).norm() / expected[key].norm().clamp_min(1e-6)
        assert error.item() < TOLERANCE, key


def test_saved_config_is_read_by_diffusers(variant: tuple[str, Any]):
    _, public = variant
    values = CogVideoXConfig.from_dict(dict(public.config)).to_dict()
    again = diffusers.CogVideoXTransformer3DModel.from_config(values)
    assert again.state_dict().keys() == public.state_dict().keys()
