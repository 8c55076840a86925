"""The T5 encoder: configuration, weights, precision."""

from typing import Any

import pytest
import torch

from ttvcli.core.models.text.t5 import Block, RMSNorm, T5Config, T5Encoder, relative_bucket

SMALL = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
# The text_encoder/config.json of the public CogVideoX folders, sizes included.
HUB: dict[str, Any] = {
    "_name_or_path": "google/t5-v1_1-xxl",
    "architectures": ["T5EncoderModel"],
    "classifier_dropout": 0.0,
    "d_ff": 10240,
    "d_kv": 64,
    "d_model": 4096,
    "decoder_start_token_id": 0,
    "dense_act_fn": "gelu_new",
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_decoder_layers": 24,
    "num_heads": 64,
    "num_layers": 24,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 32128,
}


def small(seed: int = 0) -> T5Encoder:
    encoder = T5Encoder(SMALL)
    encoder.init_weights(torch.Generator().manual_seed(seed))
    return encoder


def blocks(encoder: T5Encoder) -> list[Block]:
    return [block for block in encoder.encoder.block if isinstance(block, Block)]


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 64, shape, generator=torch.Generator().manual_seed(seed))


def test_the_public_config_describes_the_published_encoder() -> None:
    config = T5Config.from_dict(HUB)
    assert config == T5Config()
    with torch.device("meta"):
        encoder = T5Encoder(config)
    assert sum(weight.numel() for weight in encoder.parameters()) == 4_762_310_656
    assert len(encoder.state_dict()) == 219


def test_config_survives_a_round_trip() -> None:
    assert T5Config.from_dict(SMALL.to_dict()) == SMALL


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("feed_forward_proj", "relu"),
        ("dense_act_fn", "relu"),
        ("is_gated_act", False),
        ("model_type", "umt5"),
        ("is_decoder", True),
        ("d_model", 0),
        ("relative_attention_num_buckets", 6),
        ("relative_attention_max_distance", 8),
    ],
)
def test_a_config_of_another_network_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        T5Config.from_dict({**HUB, key: value})


@pytest.mark.parametrize("key", ["vocab_size", "d_ff", "num_heads", "feed_forward_proj"])
def test_a_missing_size_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        T5Config.from_dict({name: value for name, value in HUB.items() if name != key})


def test_weight_names_are_those_of_the_public_checkpoints() -> None:
    names = set(small().state_dict())
    assert {
        "shared.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.1.layer.0.SelfAttention.q.weight",
        "encoder.block.1.layer.0.layer_norm.weight",
        "encoder.block.1.layer.1.DenseReluDense.wi_0.weight",
        "encoder.block.1.layer.1.DenseReluDense.wo.weight",
        "encoder.block.1.layer.1.layer_norm.weight",
        "encoder.final_layer_norm.weight",
    } <= names
    assert not any("embed_tokens" in name or name.endswith("bias") for name in names)
    assert sum("relative_attention_bias" in name for name in names) == 1


@pytest.mark.parametrize("keep_both", [True, False])
def test_the_second_name_of_the_tied_embedding_is_accepted(keep_both: bool) -> None:
    state = small().state_dict()
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    if not keep_both:
        del state["shared.weight"]
    loaded = small(seed=1)
    loaded.load_state_dict(state)
    assert torch.equal(loaded.shared.weight, small().shared.weight)


def test_initial_weights_depend_on_the_generator_alone() -> None:
    torch.manual_seed(5)
    first = small().state_dict()
    torch.manual_seed(6)
    second = small().state_dict()
    other = small(seed=1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["shared.weight"], other["shared.weight"])


def test_padding_tokens_are_attended_to() -> None:
    encoder = small()
    short, long = ids(1, 6), torch.zeros(1, 10, dtype=torch.long)
    long[:, :6] = short
    assert not torch.allclose(encoder(long)[:, :6], encoder(short), atol=1e-2)


def test_positions_matter_through_the_bias_only() -> None:
    encoder = small()
    tokens = ids(1, 8)
    turned = tokens.flip(1)
    assert not torch.allclose(encoder(tokens).flip(1), encoder(turned), atol=1e-3)
    torch.nn.init.zeros_(blocks(encoder)[0].attention.relative_attention_bias.weight)
    assert torch.allclose(encoder(tokens).flip(1), encoder(turned), atol=1e-5)


def test_buckets_are_exact_near_and_logarithmic_far() -> None:
    offsets = torch.tensor([0, -1, 1, -7, 7, -8, -15, -16, -127, -128, -1000, 1000])
    expected = [0, 1, 17, 7, 23, 8, 9, 10, 15, 15, 15, 31]
    assert relative_bucket(offsets, 32, 128).tolist() == expected


def test_every_bucket_is_used_and_none_is_missed_with_distance() -> None:
    ahead = relative_bucket(torch.arange(1, 200), 32, 128)
    assert ahead.diff().min() >= 0
    assert set(ahead.tolist()) == set(range(17, 32))


def test_the_norm_is_exact_for_activations_beyond_the_half_precision_square() -> None:
    norm = RMSNorm(64, 1e-6).half()
    x = torch.full((1, 64), 1000.0, dtype=torch.float16)  # 1000 ** 2 overflows float16
    assert torch.equal(norm(x), torch.ones_like(x))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 4e-2)])
def test_low_precision_stays_close(dtype: torch.dtype, tolerance: float) -> None:
    tokens = ids(2, 12)
    exact = small()(tokens)
    rounded = small().cast(dtype)(tokens)
    assert rounded.dtype == dtype
    assert (rounded.float() - exact).norm() < tolerance * exact.norm()


def test_half_precision_keeps_the_down_projection_in_float32() -> None:
    encoder = small().cast(torch.float16)
    exact = small().state_dict()
    for name, weight in encoder.state_dict().items():
        if name.endswith("wo.weight"):
            assert torch.equal(weight, exact[name])
        else:
            assert weight.dtype == torch.float16


def test_half_precision_survives_activations_that_overflow_it() -> None:
    encoder = small()
    with torch.no_grad():
        for block in blocks(encoder):
            block.feed_forward.DenseReluDense.wo.weight.mul_(1e5)
    exact = encoder(ids(1, 8))
    rounded = encoder.cast(torch.float16)(ids(1, 8))
    assert torch.isfinite(rounded).all()
    assert (rounded.float() - exact).norm() < 1e-2 * exact.norm()


def test_gradients_reach_every_weight() -> None:
    encoder = small()
    encoder(ids(2, 12)).square().mean().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_ids_without_a_batch_axis_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5,\)"):
        small()(torch.arange(5))
