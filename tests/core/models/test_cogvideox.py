"""The CogVideoX transformer: configuration, shapes, segments, precision and initialisation."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ttvcli.core.models.cogvideox import FAMILY, CogVideoXConfig, attention
from ttvcli.core.models.cogvideox.attention import from_windows, into_windows
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.ttt.order import Segments
from ttvcli.core.models.ttt.rotary import rotate, table

SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "time_embed_dim": 8,
    "text_embed_dim": 8,
    "sample_height": 8,
    "sample_width": 8,
    "use_rotary_positional_embeddings": True,
    "ttt_mini_batch": 32,
    "ttt_chunk_tokens": 40,
}
KINDS = ("none", "ttt_linear", "ttt_mlp", "ttt_large_chunk")
each_kind = pytest.mark.parametrize("ssm", KINDS)


def make(**changes: object) -> CogVideoXTransformer:
    """A small model of which every parameter matters."""
    model = CogVideoXTransformer(CogVideoXConfig(**{**SMALL, **changes}))
    generator = torch.Generator().manual_seed(0)
    model.init_weights(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def inputs(
    frames: int = 7, segments: int = 3, text: int = 5, batch: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, frames, 4, 8, 8, generator=generator)
    embeddings = torch.randn(batch, segments, text, 8, generator=generator)
    return latents, embeddings, torch.tensor([900, 10])[:batch]


@each_kind
@pytest.mark.parametrize(("frames", "segments"), [(3, 1), (4, 1), (7, 3), (8, 2)])
def test_output_has_the_shape_of_the_latents(ssm: str, frames: int, segments: int):
    latents, text, timestep = inputs(frames, segments)
    with torch.no_grad():
        assert make(ssm=ssm)(latents, text, timestep).shape == latents.shape


@each_kind
def test_items_of_a_batch_do_not_see_each_other(ssm: str):
    model, (latents, text, timestep) = make(ssm=ssm), inputs()
    with torch.no_grad():
        together = model(latents, text, timestep)
        alone = model(latents[1:], text[1:], timestep[1:])
    # fp32, other shapes of the same products
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("ssm", "reaches"), [("none", False), ("ttt_linear", True), ("ttt_large_chunk", True)]
)
def test_only_ttt_carries_information_beyond_neighbouring_windows(ssm: str, reaches: bool):
    """One layer: attention sees its window, TTT the whole video in both directions."""
    model, (latents, text, timestep) = make(ssm=ssm, num_layers=1), inputs()
    changed = latents.clone()
    changed[:, -1] += 1.0
    with torch.no_grad():
        difference = model(changed, text, timestep) - model(latents, text, timestep)
    # windows are frames 0-2, 2-4 and 4-6
    assert (difference[:, :4].abs().max().item() > 0) is reaches
    assert difference[:, 4:].abs().max().item() > 0


def test_text_of_a_segment_reaches_only_its_window_without_ttt():
    model, (latents, text, timestep) = make(num_layers=1), inputs()
    changed = text.clone()
    changed[:, 0] += 1.0
    with torch.no_grad():
        difference = (model(latents, changed, timestep) - model(latents, text, timestep)).abs()
    assert difference[:, :3].amax((0, 2, 3, 4)).min().item() > 0
    assert difference[:, 3:].max().item() == 0


def test_windows_put_back_unchanged_are_the_sequence():
    segments = Segments(count=3, frames=8, frame_tokens=2, text_tokens=3)
    joint = torch.randn(2, 9 + 16, 5, generator=torch.Generator().manual_seed(0))
    windows = into_windows(joint, segments)
    assert windows.shape == (6, 3 + 4 * 2, 5)
    text, video = from_windows(windows, segments)
    torch.testing.assert_close(torch.cat([text, video], dim=1), joint, rtol=0, atol=1e-6)


def test_shared_frames_are_the_mean_of_both_windows():
    segments = Segments(count=2, frames=5, frame_tokens=1, text_tokens=1)
    windows = torch.zeros(2, 4, 1)
    windows[0] = 1.0
    windows[1] = 3.0
    assert from_windows(windows, segments)[1].flatten().tolist() == [1, 1, 2, 3, 3]


@each_kind
def test_recomputation_changes_memory_and_nothing_else(ssm: str):
    model, batch = make(ssm=ssm), inputs()
    gradients = []
    for blocks, groups in ((False, None), (True, 2)):
        model.set_checkpointing(blocks, groups)
        model.zero_grad()
        model(*batch).square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept, rtol=1e-5, atol=1e-7)


@each_kind
def test_autocast_trains_near_full_precision(ssm: str):
    model, batch = make(ssm=ssm), inputs()
    full = model(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(*batch)
    half.float().square().mean().backward()
    error = (half.float() - full).norm() / full.norm()
    assert error.item() < 3e-2  # bf16 has 8 bits; two layers, some of it cancels
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


class FlippedTokens(TorchDispatchMode):
    """Counts the tokens of the longest array that is turned around."""

    longest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "flip" in str(func):
            self.longest = max(self.longest, args[0].shape[1])
        return func(*args, **(kwargs or {}))


def test_the_way_back_through_a_video_turns_no_video_around():
    """Only the text of a segment, and positions, which all blocks share."""
    model, (latents, text, _) = make(ssm="ttt_mlp"), inputs()
    positions = model.positions(latents, text)
    text, video = model.patch_embed(latents, text)
    with FlippedTokens() as flips:
        sum(x.sum() for x in model.transformer_blocks[0].mix(text, video, positions)).backward()
    assert 0 < flips.longest <= positions.segments.text_tokens + model.config.attention_head_dim


def test_inner_state_is_fp32_under_autocast(monkeypatch: pytest.MonkeyPatch):
    from ttvcli.core.models.ttt import layer

    seen = set()

    def spy(*args: Tensor, **options: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        seen.update(x.dtype for x in args)
        assert not torch.is_autocast_enabled("cpu")
        return original(*args, **options)

    original = layer.ttt_linear
    monkeypatch.setattr(layer, "ttt_linear", spy)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        make(ssm="ttt_linear")(*inputs())
    assert seen == {torch.float32}


@each_kind
def test_a_fresh_model_is_deterministic_and_predicts_zero(ssm: str):
    models = [CogVideoXTransformer(CogVideoXConfig(**SMALL, ssm=ssm)) for _ in range(2)]
    for model in models:
        model.init_weights(torch.Generator().manual_seed(3))
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        assert models[0](*inputs()).abs().max().item() == 0


@each_kind
def test_a_fresh_model_learns_from_its_first_steps(ssm: str):
    model = CogVideoXTransformer(CogVideoXConfig(**SMALL, ssm=ssm))
    model.init_weights(torch.Generator().manual_seed(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    latents, text, timestep = inputs(frames=3, segments=1)
    losses = []
    for _ in range(5):
        loss = (model(latents, text, timestep) - latents).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    # after the gates have opened every weight is part of the function, but for the last block's
    # text, which nothing reads
    unused = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert unused <= {"transformer_blocks.1.backward_gate_text"}


def test_rotation_by_an_angle_turns_adjacent_pairs():
    angle = torch.tensor([[0.5, 2.0]])
    turned = rotate(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), table(angle))
    expected = [angle[0, 0].cos(), angle[0, 0].sin(), -angle[0, 1].sin(), angle[0, 1].cos()]
    torch.testing.assert_close(turned[0], torch.stack(expected))


def test_config_applies_defaults_for_keys_older_files_lack():
    config = CogVideoXConfig.from_dict({"_class_name": "X", "num_layers": 3})
    assert (config.num_layers, config.patch_size_t, config.patch_bias) == (3, None, True)
    assert (config.norm_eps, config.ssm) == (1e-5, "none")


@pytest.mark.parametrize(
    ("ssm", "other"), [("ttt_mlp", "ttt_chunk_tokens"), ("ttt_large_chunk", "ttt_mini_batch")]
)
def test_config_survives_its_file_and_plain_ones_stay_readable_by_diffusers(ssm: str, other: str):
    small = {key: value for key, value in SMALL.items() if key != other}
    ttt = CogVideoXConfig(**small, ssm=ssm, norm_eps=1e-6)
    assert CogVideoXConfig.from_dict(ttt.to_dict()) == ttt
    assert other not in ttt.to_dict()
    plain = CogVideoXConfig(use_rotary_positional_embeddings=True).to_dict()
    assert plain["_class_name"] == "CogVideoXTransformer3DModel"
    assert not [key for key in plain if key.startswith(("ssm", "ttt"))]


def test_config_names_the_nearest_key_for_an_unknown_one():
    with pytest.raises(ValueError, match="did you mean 'num_layers'"):
        CogVideoXConfig.from_dict({"num_layer": 3})


@pytest.mark.parametrize(
    "changes",
    [
        {"ssm": "mamba"},
        {"ttt_lr_mode": "rows"},
        {"ssm": "ttt_large_chunk", "ttt_lr_mode": "last-row"},
        {"ttt_chunk_tokens": 0},
        {"ttt_muon_steps": -1},
        {"activation_fn": "gelu"},
        {"attention_head_dim": 24},
        {"ofs_embed_dim": 4},
        {"use_rotary_positional_embeddings": False, "use_learned_positional_embeddings": True},
    ],
)
def test_config_refuses_what_the_model_does_not_compute(changes: dict[str, object]):
    with pytest.raises(ValueError):
        CogVideoXConfig(**{**SMALL, **changes})


@pytest.mark.parametrize(
    ("latents", "text", "message"),
    [
        ((2, 4, 7, 8, 8), (2, 1, 5, 8), "latents must be"),
        ((2, 7, 4, 8, 8), (2, 5, 8), "text must be"),
        ((2, 7, 4, 8, 8), (1, 1, 5, 8), "batch sizes differ"),
        ((2, 7, 4, 7, 8), (2, 1, 5, 8), "do not divide into patches"),
        ((2, 7, 4, 8, 8), (2, 8, 5, 8), "7 latent frames do not divide into 8 segments"),
    ],
)
def test_wrong_shapes_are_named(latents: tuple[int, ...], text: tuple[int, ...], message: str):
    with pytest.raises(ValueError, match=message):
        make()(torch.zeros(latents), torch.zeros(text), torch.zeros(2))


@pytest.mark.parametrize(
    ("frames", "height", "text"), [(3, 8, 10), (2, 6, 10), (2, 8, 9)], ids=["T", "H", "text"]
)
def test_a_learned_table_refuses_sizes_it_was_not_trained_for(frames: int, height: int, text: int):
    model = make(use_learned_positional_embeddings=True, sample_frames=5, max_text_seq_length=10)
    with pytest.raises(ValueError, match="learned position table"):
        model(torch.zeros(1, frames, 4, height, 8), torch.zeros(1, 1, text, 8), torch.zeros(1))


def test_looking_at_the_family_does_not_import_torch():
    code = (
        "import sys; from ttvcli.core.models.cogvideox import FAMILY; FAMILY.config();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert FAMILY.name == "cogvideox"


@pytest.mark.parametrize(
    ("heads", "layers", "rotary", "ssm", "count"),
    [
        (30, 30, False, "none", 1_693_783_872),
        (48, 42, True, "none", 5_570_283_072),
        (48, 42, True, "ttt_mlp", 7_230_178_848),
        (48, 42, True, "ttt_linear", 7_171_860_000),
        (48, 42, True, "ttt_large_chunk", 5_570_283_072 + 42 * 40_578_192),
    ],
    ids=["2B", "5B", "5B-TTT-MLP", "5B-TTT-Linear", "5B-large-chunk"],
)
def test_published_sizes_have_the_published_number_of_weights(
    heads: int, layers: int, rotary: bool, ssm: str, count: int
):
    config = CogVideoXConfig(
        num_attention_heads=heads,
        num_layers=1,
        use_rotary_positional_embeddings=rotary,
        ssm=ssm,
    )
    with torch.device("meta"):
        model = CogVideoXTransformer(config)
    one_block = sum(p.numel() for p in model.transformer_blocks.parameters())
    assert sum(p.numel() for p in model.parameters()) + (layers - 1) * one_block == count


def test_short_windows_in_bfloat16_attend_as_the_fused_kernel_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, 50, 16, generator=generator) for _ in range(3)]
    direction = torch.randn(2, 3, 50, 16, generator=generator)

    def results(dtype: torch.dtype, longest: int) -> list[Tensor]:
        monkeypatch.setattr(attention, "SHORT_WINDOW", longest)
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        output = attention.attend(*leaves)
        return [output, *torch.autograd.grad(output, leaves, direction.to(dtype))]

    exact = results(torch.float64, 0)
    for ours, fused, true in zip(
        results(torch.bfloat16, 512), results(torch.bfloat16, 0), exact, strict=True
    ):
        assert not torch.equal(ours, fused)  # it is the other way
        scale = true.norm()
        assert (ours - true).norm() < 0.015 * scale
        assert (fused - true).norm() < 0.015 * scale


def test_long_windows_in_bfloat16_attend_in_blocks_as_exactly_as_bfloat16_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "LONG_WINDOW", 100)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 601, 16, generator=generator) for _ in range(3))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    low = [x.bfloat16() for x in (q, k, v)]
    blocks = attention.attend(*low)
    assert not torch.equal(blocks, F.scaled_dot_product_attention(*low))  # it is the other way
    assert (blocks - exact).norm() < 0.015 * exact.norm()
    assert torch.equal(attention.attend(q, k, v), F.scaled_dot_product_attention(q, k, v))
