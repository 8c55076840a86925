"""Published numbers of the TTT-Video layer, its block and its transformer (ttt-video-dit, 6c316a7).

Every weight and input comes from one closed formula (`wave`), so that the printed digits can be
reproduced anywhere. Weights are filled under their public names, which also proves `weights.py`.

The reference printed 5 to 7 digits from an fp32 run. Entries of magnitude 1 agree to the
half of their last digit, 5e-6; the tolerance leaves as much again for fp32 sums in another order.
`wsum` adds up 40,000 to 120,000 entries with random signs: measured 3e-4 at most, tolerance 1e-3.
"""

import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.cogvideox.weights import from_public, public_name, to_public
from ttvcli.core.models.ttt.layer import TTTLayer
from ttvcli.core.models.ttt.order import Segments, last_row_source

ENTRY = 1e-5
BASE_LR = {"mlp": 0.1, "linear": 1.0}  # keys: the inner network, "ttt_" dropped
LAYER = "seq_modeling_block.ssm.ttt."


def wave(shape: tuple[int, ...], h: int) -> Tensor:
    """Pseudo-random numbers in [-1, 1): the fractional part of a large sine of the index."""
    index = np.arange(math.prod(shape), dtype=np.float64)
    u = 43758.5453 * np.sin(12.9898 * index + 78.233 * h)
    return torch.from_numpy(2 * (u - np.floor(u)) - 1).reshape(shape)


def public_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight the reference run had under this name, relative to the module it tested."""
    h = sum((i + 1) * ord(character) for i, character in enumerate(name)) % 997
    leaf = name.split(".")[-1]
    base = 1.0 if "norm" in name and name.endswith("weight") else 0.0
    if "norm" in name or "lr" in name:
        scale = 0.1
    elif leaf in ("W1", "W2"):
        scale = 0.3
    elif name.endswith("bias") or leaf in ("b1", "b2"):
        scale = 0.05
    else:
        scale = 0.2
    return (base + scale * wave(shape, h)).float()


def fill(module: nn.Module, ours: str, public: str) -> None:
    """Fill a module known as `ours` in our model; names count from `public` in theirs."""
    state = to_public({ours + name: tensor for name, tensor in module.state_dict().items()})
    filled = {
        name: public_weight(name.removeprefix(public), tuple(tensor.shape))
        if name.startswith(public)
        else tensor
        for name, tensor in state.items()
    }
    loaded = {name.removeprefix(ours): tensor for name, tensor in from_public(filled).items()}
    module.load_state_dict(loaded)


def transformer(kind: str, layers: int = 2, lr_mode: str = "per-token") -> CogVideoXTransformer:
    config = CogVideoXConfig(
        num_attention_heads=2,
        attention_head_dim=64,
        num_layers=layers,
        time_embed_dim=64,
        text_embed_dim=32,
        sample_height=8,
        sample_width=12,
        norm_eps=1e-6,
        use_rotary_positional_embeddings=True,
        ssm=f"ttt_{kind}",
        ttt_base_lr=BASE_LR[kind],
        ttt_lr_mode=lr_mode,
    )
    return CogVideoXTransformer(config)


def segments_of(count: int) -> Segments:
    frames, text = {1: (13, 8), 3: (37, 24)}[count]
    return Segments(count=count, frames=frames, frame_tokens=24, text_tokens=text)


def positions_of(model: CogVideoXTransformer, segments: Segments):
    latents = torch.zeros(1, segments.frames, 16, 8, 12)
    return model.positions(latents, torch.zeros(1, segments.count, segments.text_tokens, 32))


def rows_index(segments: Segments, mini_batch: int) -> Tensor:
    """`last_row_source` for every token as owner: `[mini-batches, owner, token]`."""
    text = segments.text_total
    trunk = torch.arange(text + segments.frames * segments.frame_tokens)
    trunk_of_time = segments.to_time_order(trunk[None, :text], trunk[None, text:])[0]
    time_of_trunk = trunk_of_time.argsort()
    owner = trunk_of_time.view(-1, mini_batch, 1) // mini_batch
    return time_of_trunk[owner * mini_batch + torch.arange(mini_batch)]


def remember_by_rows(
    layer: TTTLayer,
    index: Tensor,
    q: Tensor,
    k: Tensor,
    target: Tensor,
    eta: Tensor,
    state: object = None,
    heads: object = None,
    reverse: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The reference's pure-PyTorch operation: dual form, one row of learning rates per query."""
    if reverse:
        flipped = (x.flip(2) for x in (q, k, target, eta))
        return remember_by_rows(layer, index, *flipped)[0].flip(2), ()
    mini_batch = index.shape[-1]
    weight, bias = layer.ttt_norm_weight.unsqueeze(1), layer.ttt_norm_bias.unsqueeze(1)
    w1, b1 = layer.W1, layer.b1
    is_mlp = layer.kind == "ttt_mlp"
    w2, b2 = (layer.W2, layer.b2) if is_mlp else (None, None)
    outputs = []
    for m, parts in enumerate(zip(*(x.split(mini_batch, 2) for x in (q, k, target)), strict=True)):
        q_m, k_m, target_m = parts
        rates = eta[..., index[m]]
        last = rates[..., -1, :, None]
        z = z1 = k_m @ w1 + b1
        if is_mlp:
            x2 = nn.functional.gelu(z1, approximate="tanh")
            z = x2 @ w2 + b2
        g = inner_gradient(z, target_m, weight, bias)
        g1 = g
        if is_mlp:
            slope = torch.autograd.functional.jvp(
                lambda x: nn.functional.gelu(x, approximate="tanh"),
                z1,
                torch.ones_like(z1),
                create_graph=True,
            )[1]
            g1 = (g @ w2.mT) * slope
        z_q = q_m @ w1 + b1 - (rates * (q_m @ k_m.mT + 1)) @ g1
        w1, b1 = w1 - (last * k_m).mT @ g1, b1 - (last * g1).sum(-2, keepdim=True)
        if is_mlp:
            x_q = nn.functional.gelu(z_q, approximate="tanh")
            z_q = x_q @ w2 + b2 - (rates * (x_q @ x2.mT + 1)) @ g
            w2, b2 = w2 - (last * x2).mT @ g, b2 - (last * g).sum(-2, keepdim=True)
        normed = nn.functional.layer_norm(z_q, z_q.shape[-1:], eps=1e-8)
        outputs.append(q_m + normed * weight + bias)
    return torch.cat(outputs, dim=2), ()


def inner_gradient(z: Tensor, target: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    deviation = (z.var(-1, unbiased=False, keepdim=True) + 1e-8).sqrt()
    n = (z - z.mean(-1, keepdim=True)) / deviation
    u = (n * weight + bias - target) * weight
    return (u - u.mean(-1, keepdim=True) - n * (u * n).mean(-1, keepdim=True)) / deviation


def use_rows(module: nn.Module, segments: Segments) -> None:
    for layer in module.modules():
        if isinstance(layer, TTTLayer):
            index = rows_index(segments, layer.mini_batch)
            layer.remember = functools.partial(remember_by_rows, layer, index)  # type: ignore[method-assign]


def check(tensor: Tensor, published: str) -> None:
    mean, rms, wsum, *first = (float(number) for number in published.split())
    tensor = tensor.detach().double()
    size = max(rms, 1.0)
    assert tensor.mean().item() == pytest.approx(mean, abs=1e-6 * size)
    assert tensor.square().mean().sqrt().item() == pytest.approx(rms, abs=1e-6 * size)
    assert tensor.flatten()[:4].tolist() == pytest.approx(first, abs=ENTRY * size)
    weighted = (tensor * wave(tuple(tensor.shape), 11)).sum().item()
    assert weighted == pytest.approx(wsum, abs=100 * ENTRY * size)


# (kind, segments, mode, mini-batch): mean, rms, wsum, first four
LAYER_OUTPUT = {
    ("mlp", 1, "per-token", 64): "-0.045278 1.311131 45.1466 -1.32678 3.58830 3.48751 -1.37799",
    ("mlp", 1, "rows", 64): "-0.045278 1.311131 45.1466 -1.32678 3.58830 3.48751 -1.37799",
    ("mlp", 1, "per-token", 16): "-0.044837 1.310391 45.0210 -1.33149 3.60430 3.49581 -1.38087",
    ("mlp", 3, "rows", 64): "-0.039131 1.306660 394.9557 -1.32495 3.59321 3.48828 -1.37302",
    ("mlp", 3, "last-row", 64): "-0.039125 1.306653 394.9632 -1.32749 3.59461 3.48770 -1.37481",
    ("mlp", 3, "per-token", 64): "-0.039346 1.306251 396.7739 -1.32729 3.59450 3.48717 -1.37128",
    ("linear", 1, "per-token", 64): "0.003332 1.293788 -67.8931 0.07485 0.73087 1.04687 -0.83456",
    ("linear", 1, "rows", 64): "0.003332 1.293788 -67.8931 0.07485 0.73087 1.04687 -0.83456",
    ("linear", 1, "per-token", 16): "-0.000262 1.289973 -69.3460 0.10295 0.81442 1.07350 -0.81825",
    ("linear", 3, "rows", 64): "0.010706 1.295698 -168.5775 0.07008 0.77340 1.05743 -0.79414",
    ("linear", 3, "last-row", 64): "0.010774 1.295670 -169.0897 0.05689 0.77887 1.04816 -0.79499",
    ("linear", 3, "per-token", 64): "0.006697 1.293637 -155.9306 0.06046 0.77734 1.04749 -0.78087",
}

# (kind, segments, tensor) of the same run, in rows mode
LAYER_GRADIENT = {
    ("mlp", 1, "x"): "-0.002060 1.296104 -25.5422 -1.66808 -0.04839 -0.85855 1.85477",
    ("mlp", 1, "W1"): "0.014271 4.848633 -506.149 -0.19924 -2.17406 10.43553 -1.18527",
    ("mlp", 1, "lr_weight"): "0.043728 0.433710 3.41340 -0.42573 0.01768 0.04694 -0.09539",
    ("mlp", 3, "x"): "-0.001705 1.300352 -258.332 -1.70514 -0.05039 -0.87647 1.89067",
    ("linear", 1, "x"): "-0.001416 1.311683 17.7556 -3.52128 0.58826 2.15747 -1.48034",
    ("linear", 1, "W1"): "0.000000 9.511483 -331.774 1.65739 -16.3414 1.37952 21.36508",
}


def run_layer(kind: str, count: int, mode: str, mini_batch: int) -> tuple[TTTLayer, Tensor, Tensor]:
    """A filled layer, its input and its output, both in trunk order (all text, then all video)."""
    segments = segments_of(count)
    sequence = positions_of(transformer(kind, layers=1), segments).sequence
    layer = TTTLayer(128, 2, f"ttt_{kind}", mini_batch, BASE_LR[kind])
    fill(layer, "transformer_blocks.0.ttt.", "layers.0." + LAYER)
    source = None
    if mode == "rows":
        use_rows(layer, segments)
    elif mode == "last-row":
        source = last_row_source(segments, mini_batch, torch.device("cpu"))

    text = segments.text_total
    x = wave((1, text + segments.frames * 24, 128), 5).float().requires_grad_()
    y = layer(segments.to_time_order(x[:, :text], x[:, text:]), sequence, source)
    return layer, x, torch.cat(segments.from_time_order(y), dim=1)


@pytest.mark.parametrize(("kind", "count", "mode", "mini_batch"), LAYER_OUTPUT)
def test_layer_output_is_the_published_one(kind: str, count: int, mode: str, mini_batch: int):
    _, _, y = run_layer(kind, count, mode, mini_batch)
    check(y, LAYER_OUTPUT[kind, count, mode, mini_batch])


@pytest.mark.parametrize(("kind", "count", "name"), LAYER_GRADIENT)
def test_layer_gradient_is_the_published_one(kind: str, count: int, name: str):
    layer, x, y = run_layer(kind, count, "rows" if count > 1 else "per-token", 64)
    (y * wave(tuple(y.shape), 11).float()).sum().backward()
    gradient = x.grad if name == "x" else getattr(layer, name).grad
    check(gradient, LAYER_GRADIENT[kind, count, name])


# (kind, segments, part): attention alone has text and video in one tensor
BLOCK = {
    ("none", 1, "joint"): "-0.005396 0.126069 26.9201 -0.13756 -0.08786 0.10735 0.19648",
    ("none", 3, "joint"): "-0.003042 0.126272 -29.2337 -0.12343 -0.09515 0.08322 0.20288",
    ("mlp", 1, "video"): "-0.008187 0.258293 -32.8608 -0.25200 -0.07603 -0.25057 0.24396",
    ("mlp", 1, "text"): "-0.024396 0.250558 -6.26942 0.07475 0.38097 0.51965 -0.33700",
    ("mlp", 3, "video"): "-0.007942 0.249129 -34.7800 -0.34524 -0.12022 -0.22355 0.27193",
    ("mlp", 3, "text"): "-0.013718 0.246951 -21.2104 0.13289 0.35170 0.51782 -0.33981",
    ("linear", 3, "video"): "-0.010772 0.238974 3.24550 -0.34741 -0.40200 0.13153 0.11470",
}


@pytest.mark.parametrize(("kind", "count", "part"), BLOCK)
def test_block_output_is_the_published_one(kind: str, count: int, part: str):
    segments = segments_of(count)
    model = transformer("mlp" if kind == "none" else kind, layers=1)
    block = model.transformer_blocks[0]
    fill(block, "transformer_blocks.0.", "layers.0.seq_modeling_block.")
    use_rows(block, segments)
    positions = positions_of(model, segments)
    video = wave((1, segments.frames * 24, 128), 13).float()
    text = wave((1, segments.text_total, 128), 17).float()
    with torch.no_grad():
        if kind == "none":
            text, video = block.attn1(text, video, segments, positions.window)
        else:
            text, video = block.mix(text, video, positions)
    parts = {"text": text, "video": video, "joint": torch.cat([text, video], dim=1)}
    check(parts[part], BLOCK[kind, count, part])


# mean, rms, wsum, first four, loss, gradient norm
TRANSFORMER = {
    ("mlp", 1): "-0.057251 1.373800 126.843 0.66738 0.81643 -1.29620 1.47062 2.230444 4.518576",
    ("mlp", 3): "-0.068011 1.364015 101.412 0.67555 0.82949 -1.30317 1.49415 2.198994 4.226775",
    ("linear", 1): "-0.068591 1.377165 136.782 0.93052 0.97583 -0.99548 1.37825 2.236432 4.703401",
    ("linear", 3): "-0.075883 1.371356 62.532 0.92838 0.90149 -1.05694 1.38242 2.217856 4.452738",
}


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param(*key, marks=pytest.mark.slow) if key == ("mlp", 3) else key
        for key in TRANSFORMER
    ],
)
def test_transformer_loss_and_gradient_are_the_published_ones(kind: str, count: int):
    segments = segments_of(count)
    model = transformer(kind)
    fill(model, "", "")
    if count > 1:
        use_rows(model, segments)
    latents = wave((1, segments.frames, 16, 8, 12), 7).float()
    text = wave((1, count, segments.text_tokens, 32), 9).float()
    output = model(latents, text, torch.tensor([500]))
    loss = (output - latents).square().mean()
    loss.backward()
    norm = sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None) ** 0.5

    published, published_loss, published_norm = TRANSFORMER[kind, count].rsplit(maxsplit=2)
    check(output, published)
    assert loss.item() == pytest.approx(float(published_loss), rel=2e-6)
    assert float(norm) == pytest.approx(float(published_norm), rel=2e-6)


def test_last_row_transformer_reads_the_published_compat_mode():
    """The compat mode through the whole model differs from per-token, but only a little."""
    segments = segments_of(3)
    latents = wave((1, segments.frames, 16, 8, 12), 7).float()
    text = wave((1, 3, segments.text_tokens, 32), 9).float()
    outputs = {}
    for mode in ("per-token", "last-row"):
        model = transformer("linear", lr_mode=mode)
        fill(model, "", "")
        with torch.no_grad():
            outputs[mode] = model(latents, text, torch.tensor([500]))
    difference = (outputs["per-token"] - outputs["last-row"]).norm() / outputs["last-row"].norm()
    assert 1e-4 < difference.item() < 0.05
    # rows and last-row agree to 2e-5 of this model's output (wsum 62.532 published for rows)
    weighted = (outputs["last-row"] * wave(tuple(latents.shape), 11)).sum().item()
    assert weighted == pytest.approx(62.532, abs=0.05)


@pytest.mark.parametrize("mode", ["per-token", "last-row"])
def test_the_pass_from_the_end_has_the_rates_of_flipped_tokens(mode: str):
    """The public block flips tokens and builds rates of what it then has; ours flips nothing."""
    segments = segments_of(3)
    model = transformer("linear", layers=1, lr_mode=mode)
    block = model.transformer_blocks[0]
    fill(block, "transformer_blocks.0.", "layers.0.")
    positions = positions_of(model, segments)
    assert (positions.eta_source is not None) == (mode == "last-row")
    video = wave((1, segments.frames * 24, 128), 13).float()
    text = wave((1, segments.text_total, 128), 17).float()
    with torch.no_grad():
        found = block.read(text, video, positions, from_end=True)
        turned = segments.to_time_order(*segments.reverse(text, video))
        read = block.ttt(turned, positions.sequence, positions.eta_source)
        expected = segments.reverse(*segments.from_time_order(read))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_every_weight_of_the_public_model_has_its_place():
    names = to_public(transformer("mlp").state_dict())
    assert public_name("transformer_blocks.1.ttt.lr_bias") in names
    assert names["layers.1." + LAYER + "learnable_ttt_lr_weight"].shape == (2, 1, 128)
    assert names["layers.0." + LAYER + "learnable_ttt_lr_bias"].shape == (2, 1)
