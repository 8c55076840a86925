"""The layer of large chunks in the transformer: what it changes, and what it leaves alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ttvcli.core.models.cogvideox import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.ttt import large_chunk
from ttvcli.core.models.ttt.large_chunk import LargeChunkLayer
from ttvcli.core.models.ttt.rotary import table

SMALL: dict[str, Any] = {
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
    "ttt_chunk_tokens": 40,
}


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 7, 4, 8, 8, generator=generator)
    return latents, torch.randn(2, 3, 5, 8, generator=generator), torch.tensor([900, 10])


def pair(trained: bool) -> tuple[CogVideoXTransformer, CogVideoXTransformer]:
    """A model without TTT, and one with the same weights and layers of large chunks besides."""
    generator = torch.Generator().manual_seed(0)
    plain, chunks = (
        CogVideoXTransformer(CogVideoXConfig(**SMALL, ssm=ssm)).eval()
        for ssm in ("none", "ttt_large_chunk")
    )
    chunks.init_weights(generator)
    with torch.no_grad():
        for name, parameter in chunks.named_parameters():
            if trained or not (".ttt." in name or "_gate_" in name):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    left = plain.load_state_dict(chunks.state_dict(), strict=False)
    assert not left.missing_keys
    return plain, chunks


@torch.no_grad()
def test_a_model_is_unchanged_until_its_new_layers_are_trained() -> None:
    plain, chunks = pair(trained=False)
    assert torch.equal(chunks(*inputs()), plain(*inputs()))


@torch.no_grad()
def test_closed_gates_leave_a_trained_layer_without_effect() -> None:
    plain, chunks = pair(trained=True)
    expected = plain(*inputs())
    assert (chunks(*inputs()) - expected).abs().max() > 0.01
    for name, parameter in chunks.named_parameters():
        if "_gate_" in name:
            parameter.zero_()
    assert torch.equal(chunks(*inputs()), expected)


def test_new_layers_learn_from_their_first_step() -> None:
    _, chunks = pair(trained=False)
    chunks(*inputs()).square().mean().backward()
    block = chunks.transformer_blocks[0]
    assert block.ttt.wo.weight.grad.abs().max() > 0


def layer(**changes: Any) -> LargeChunkLayer:
    made = LargeChunkLayer(48, 3, **{"chunk_tokens": 8, **changes})
    made.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.wo.weight.normal_(generator=torch.Generator().manual_seed(1))
    return made


def tokens(length: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(2, length, 48, generator=generator)
    return x, table(torch.rand(length, 8, generator=generator))


@torch.no_grad()
def test_some_heads_in_parts_of_the_sequence_equal_all_at_once() -> None:
    made, (x, rotary) = layer(), tokens(30)
    eta = made.learning_rate(x)
    whole, final = made.mix(x, rotary, eta)
    for heads in (slice(0, 2), slice(2, 3)):
        state, parts = None, []
        for part in (slice(0, 16), slice(16, 30)):
            y, state = made.mix(x[:, part], rotary[part], eta[:, :, heads, part], state, heads)
            parts.append(y)
        features = slice(16 * heads.start, 16 * heads.stop)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole[..., features])
        assert state is not None
        for mine, theirs in zip(state, final, strict=True):
            torch.testing.assert_close(mine, theirs[:, heads])


@torch.no_grad()
def test_tokens_see_their_chunk_and_earlier_ones_only() -> None:
    made, (x, rotary) = layer(), tokens(30)
    changed = x.clone()
    changed[:, 10] += 1  # in the second chunk of 8
    difference = (made(changed, rotary) - made(x, rotary)).abs().amax((0, 2))
    assert difference[:8].max() == 0
    assert difference[8:].min() > 0


def test_rates_are_positive_and_of_their_own_for_each_matrix() -> None:
    made, (x, _) = layer(base_lr=0.3), tokens(5)
    rates = made.learning_rate(x)
    assert rates.shape == (3, 2, 3, 5)
    assert rates.min() > 0
    with torch.no_grad():
        made.lr_weight.zero_()
        made.lr_bias[1] = 4.0
    rates = made.learning_rate(x)
    expected = 0.3 * torch.nn.functional.softplus(torch.tensor([0.0, 4.0, 0.0]))
    torch.testing.assert_close(rates[:, 0, 0, 0], expected)


def test_the_update_is_in_fp32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    original = large_chunk.ttt_large_chunk

    def spy(*args: Tensor, **options: Any) -> Any:
        seen.update(x.dtype for x in args)
        assert not torch.is_autocast_enabled("cpu")
        return original(*args, **options)

    monkeypatch.setattr(large_chunk, "ttt_large_chunk", spy)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pair(trained=True)[1](*inputs())
    assert seen == {torch.float32}


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="50 is not divisible by 3"):
        LargeChunkLayer(50, 3)


def test_a_configuration_names_only_what_its_layers_have() -> None:
    config = CogVideoXConfig(**SMALL, ssm="ttt_large_chunk", ttt_mini_batch=16)
    values = config.to_dict()
    ours = {key: values[key] for key in values if key.startswith(("ssm", "ttt"))}
    assert ours == {
        "ssm": "ttt_large_chunk",
        "ttt_base_lr": 0.1,
        "ttt_chunk_tokens": 40,
        "ttt_muon_steps": 5,
    }
    assert CogVideoXConfig.from_dict(values).update_tokens == 40
    small = CogVideoXConfig(**SMALL, ssm="ttt_mlp", ttt_mini_batch=16)
    assert small.update_tokens == 16
    assert not [key for key in small.to_dict() if key in ("ttt_chunk_tokens", "ttt_muon_steps")]
