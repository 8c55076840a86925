"""TTT with large chunks against its specification: values, gradients, chunks, order, memory."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from ttv_kernels.ttt_large_chunk import ttt_large_chunk
from ttv_kernels.ttt_large_chunk.chunk import orthogonal, silu_gradient
from ttv_kernels.ttt_large_chunk.reference import reference, silu_derivative

B, H, K, INNER = 2, 3, 8, 20
CHUNK = 10
# float64 against float64, different order of summation
EXACT = 1e-10

Pairs = list[tuple[Tensor, Tensor]]


def arguments(length: int, batch: int = B, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v, eta, W1, W2, W3: full rank, at the sizes that a layer gives them."""
    generator = torch.Generator().manual_seed(length)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k = (F.normalize(random(batch, H, length, K), dim=-1) for _ in range(2))
    v = F.silu(random(batch, H, length, K))
    eta = 0.1 * F.softplus(random(3, batch, H, length))
    state = [random(H, K, INNER), random(H, INNER, K), random(H, K, INNER)]
    state = [part / part.shape[-2] ** 0.5 for part in state]
    return [x.to(dtype).requires_grad_() for x in (q, k, v, eta, *state)]


def scalar(output: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """A loss that sees every entry of output and final state differently."""
    total = output.new_zeros(())
    for part in (output, *state):
        weight = torch.linspace(-1, 1, part.numel(), dtype=torch.float64).view_as(part)
        total = total + (part * weight.to(part.dtype)).sum()
    return total


def largest(pairs: Pairs) -> float:
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def compare(dtype: torch.dtype, length: int, muon_steps: int, group: int | None) -> Pairs:
    """Output, final state and all gradients beside those of the reference in float64."""
    inputs = arguments(length, dtype=dtype)
    output, state = ttt_large_chunk(
        *inputs, chunk=CHUNK, muon_steps=muon_steps, checkpoint_group=group
    )
    gradients = torch.autograd.grad(scalar(output, state), inputs)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected, expected_state = reference(
        exact[0], exact[1], exact[2], exact[3], (exact[4], exact[5], exact[6]), CHUNK, muon_steps
    )
    expected_gradients = torch.autograd.grad(scalar(expected, expected_state), exact)
    return [
        (output, expected),
        *zip(state, expected_state, strict=True),
        *zip(gradients, expected_gradients, strict=True),
    ]


@pytest.mark.parametrize("length", [20, 23, 3], ids=["whole", "partial-last", "less-than-one"])
@pytest.mark.parametrize("muon_steps", [0, 5])
@pytest.mark.parametrize("group", [None, 1, 2])
def test_it_equals_the_reference_with_all_gradients(
    length: int, muon_steps: int, group: int | None
) -> None:
    assert largest(compare(torch.float64, length, muon_steps, group)) < EXACT


# A last chunk of 3 tokens leaves most of the 8 directions of a key without update. There Muon finds
# rounding, and each of its steps makes that 3.4 times as large.
@pytest.mark.parametrize(
    ("length", "muon_steps", "tolerance"),
    [(20, 0, 1e-5), (23, 0, 1e-5), (20, 5, 1e-5), (23, 5, 5e-5)],
)
def test_in_single_precision_it_is_near_the_reference(
    length: int, muon_steps: int, tolerance: float
) -> None:
    assert largest(compare(torch.float32, length, muon_steps, None)) < tolerance


def test_one_token_is_a_chunk() -> None:
    pairs = compare(torch.float64, 1, 5, None)
    rates = pairs.pop(7)  # of one token, Muon cancels the rate: its gradient is 0
    assert rates[1].abs().max() < 1e-6
    assert largest(pairs) < EXACT


@pytest.mark.parametrize("muon_steps", [0, 2])
@pytest.mark.parametrize("group", [None, 1])
def test_gradients_equal_finite_differences(muon_steps: int, group: int | None) -> None:
    def function(*args: Tensor) -> tuple[Tensor, ...]:
        output, state = ttt_large_chunk(
            *args, chunk=4, muon_steps=muon_steps, checkpoint_group=group
        )
        return (output, *state)

    assert torch.autograd.gradcheck(function, arguments(7, batch=1), fast_mode=True)


@pytest.mark.parametrize("muon_steps", [0, 5])
def test_the_reference_follows_the_gradient_of_the_inner_loss(muon_steps: int) -> None:
    """One chunk: without Muon, W plus its change is W minus autograd's gradient, norms restored."""
    _, k, v, eta, *weights = arguments(6, batch=1)
    w1, w2, w3 = (w.detach()[0].requires_grad_() for w in weights)
    key, value, rates = k.detach()[0, 0], v.detach()[0, 0], eta.detach()[:, 0, 0]

    def loss(rate: Tensor) -> Tensor:
        answers = (F.silu(key @ w1) * (key @ w3)) @ w2
        return -(rate[:, None] * answers * value).sum()

    _, state = reference(
        k[:, :1], k[:, :1], v[:, :1], eta[:, :, :1], (w1[None], w2[None], w3[None]), 6, muon_steps
    )
    for i, old in enumerate((w1, w2, w3)):
        (gradient,) = torch.autograd.grad(loss(rates[i]), old)
        change = -gradient
        if muon_steps:
            change = orthogonal(change[None], muon_steps)[0]
        new = old + change
        new = new * (old.norm(dim=0) / new.norm(dim=0))
        assert largest([(state[i][0, 0], new)]) < EXACT


def test_chunks_that_carry_the_state_equal_one_run() -> None:
    inputs = [x.detach() for x in arguments(45)]
    whole, final = ttt_large_chunk(*inputs, chunk=CHUNK)
    state, parts = tuple(inputs[4:]), []
    for start, end in ((0, 20), (20, 30), (30, 45)):
        tokens = [x[:, :, start:end] for x in inputs[:3]]
        part, state = ttt_large_chunk(*tokens, inputs[3][..., start:end], *state, chunk=CHUNK)
        parts.append(part)
    assert largest([(torch.cat(parts, dim=2), whole), *zip(state, final, strict=True)]) < EXACT


def test_a_partial_last_chunk_equals_padding_with_rate_zero() -> None:
    inputs = [x.detach() for x in arguments(23)]
    output, state = ttt_large_chunk(*inputs, chunk=CHUNK)
    pad = [F.pad(x, (0, 0, 0, 7), value=0.3) for x in inputs[:3]]
    padded, padded_state = ttt_large_chunk(*pad, F.pad(inputs[3], (0, 7)), *inputs[4:], chunk=CHUNK)
    assert largest([(padded[:, :, :23], output), *zip(padded_state, state, strict=True)]) < EXACT


@pytest.mark.parametrize("group", [None, 2])
def test_reverse_equals_a_flipped_copy(group: int | None) -> None:
    inputs = arguments(33)
    output, state = ttt_large_chunk(*inputs, chunk=CHUNK, checkpoint_group=group, reverse=True)
    turned = [x.flip(2) for x in inputs[:3]]
    expected, expected_state = ttt_large_chunk(
        *turned, inputs[3].flip(-1), *inputs[4:], chunk=CHUNK
    )
    expected = expected.flip(2)
    gradients = [
        torch.autograd.grad(scalar(*pair), inputs)
        for pair in ((output, state), (expected, expected_state))
    ]
    assert largest([(output, expected), *zip(state, expected_state, strict=True)]) < EXACT
    assert largest(list(zip(*gradients, strict=True))) < EXACT


def test_the_order_inside_a_chunk_does_not_matter() -> None:
    inputs = [x.detach() for x in arguments(CHUNK)]
    order = torch.randperm(CHUNK, generator=torch.Generator().manual_seed(0))
    output, state = ttt_large_chunk(*inputs, chunk=CHUNK)
    mixed = [x[:, :, order] for x in inputs[:3]]
    other, other_state = ttt_large_chunk(*mixed, inputs[3][..., order], *inputs[4:], chunk=CHUNK)
    assert largest([(other, output[:, :, order]), *zip(other_state, state, strict=True)]) < EXACT


@pytest.mark.parametrize("muon_steps", [0, 5])
def test_columns_keep_their_norms_however_long_the_sequence(muon_steps: int) -> None:
    inputs = [x.detach() for x in arguments(200, batch=1)]
    _, state = ttt_large_chunk(*inputs, chunk=4, muon_steps=muon_steps)
    for before, after in zip(inputs[4:], state, strict=True):
        torch.testing.assert_close(after[0].norm(dim=-2), before.norm(dim=-2))
        assert (after[0] - before).norm() > 0.1 * before.norm()  # and yet it turned


def test_the_size_of_the_rates_cancels_with_muon_only() -> None:
    inputs = [x.detach() for x in arguments(20)]
    larger = [*inputs[:3], 7 * inputs[3], *inputs[4:]]
    same = [ttt_large_chunk(*x, chunk=CHUNK)[0] for x in (inputs, larger)]
    other = [ttt_large_chunk(*x, chunk=CHUNK, muon_steps=0)[0] for x in (inputs, larger)]
    assert largest([(same[0], same[1])]) < EXACT
    assert largest([(other[0], other[1])]) > 0.1


@pytest.mark.parametrize("muon_steps", [0, 5])
def test_reading_the_same_chunk_again_brings_the_answers_closer(muon_steps: int) -> None:
    inputs = [x.detach() for x in arguments(6)]
    k, v = (x.repeat(1, 1, 12, 1) for x in inputs[1:3])
    eta = inputs[3].repeat(1, 1, 1, 12)
    output, _ = ttt_large_chunk(k, k, v, eta, *inputs[4:], chunk=6, muon_steps=muon_steps)
    agreement = (output * v).sum(-1).mean((0, 1)).view(12, 6).mean(1)
    assert (agreement.diff()[:4] > 0).all()
    assert agreement[-1] > 2 * agreement[0].abs()


@pytest.mark.parametrize("shape", [(1, 16, 40), (2, 40, 16), (1, 12, 12)])
def test_muon_brings_singular_values_near_one_and_keeps_directions(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(shape[0], shape[1], 10, generator=generator).double())[0]
    right = torch.linalg.qr(torch.randn(shape[0], shape[2], 10, generator=generator).double())[0]
    values = torch.logspace(-1.5, 1, 10, dtype=torch.float64)
    made = orthogonal(left * values @ right.mT, 5)
    inside = left.mT @ made @ right
    after = inside.diagonal(dim1=1, dim2=2)
    assert (after > 0.68).all()
    assert (after < 1.21).all()
    assert largest([(left * after[:, None] @ right.mT, made)]) < EXACT
    assert orthogonal(torch.zeros(shape), 5).abs().max() == 0


def test_the_fused_derivative_is_the_written_out_one() -> None:
    x, upstream = torch.randn(2, 50, dtype=torch.float64, requires_grad=True)
    assert largest([(silu_gradient(upstream, x), upstream * silu_derivative(x))]) < EXACT
    assert torch.autograd.gradcheck(silu_gradient, (upstream.detach().requires_grad_(), x))


def saved_bytes(run: Callable[[], object]) -> int:
    """Bytes of distinct storage the graph keeps, inputs and leaves included."""
    storages: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        kept = run()
        del kept
    return sum(storages.values())


def test_what_is_kept_for_backward_grows_linearly_and_groups_keep_less() -> None:
    kept: dict[int | None, list[int]] = {None: [], 1: []}
    for group, sizes in kept.items():
        for chunks in (4, 8, 16):
            made: list[object] = []
            inputs = arguments(CHUNK * chunks)

            def run(x: list[Tensor] = inputs, n: int | None = group, r: list = made) -> None:
                r.append(ttt_large_chunk(*x, chunk=CHUNK, checkpoint_group=n))

            sizes.append(saved_bytes(run))
        assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.02)
    assert kept[1][-1] < kept[None][-1] / 2


def test_hidden_arrays_kept_for_backward_are_those_of_the_readme() -> None:
    """12 F + 7 K numbers a token and head, rates aside."""
    sizes = []
    for length in (400, 800):
        made: list[object] = []
        inputs = arguments(length)
        sizes.append(
            saved_bytes(
                lambda x=inputs, r=made, n=length: r.append(
                    ttt_large_chunk(*x, chunk=n, muon_steps=0)
                )
            )
        )
    numbers = (sizes[1] - sizes[0]) / 8 / (B * H * 400)
    assert numbers == pytest.approx(12 * INNER + 7 * K, rel=0.05)


@pytest.mark.parametrize(
    ("position", "shape", "message"),
    [
        (0, (H, 10, K), "q must be"),
        (2, (B, H, 9, K), "v must be"),
        (3, (B, H, 10), "eta must be"),
        (4, (H, K + 1, INNER), "W1 must"),
        (5, (H, K, INNER), "W2 must"),
        (6, (B + 1, H, K, INNER), "W3 must"),
    ],
)
def test_wrong_shapes_are_named(position: int, shape: tuple[int, ...], message: str) -> None:
    inputs = arguments(10)
    inputs[position] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        ttt_large_chunk(*inputs, chunk=5)


@pytest.mark.parametrize("counts", [{"chunk": 0}, {"muon_steps": -1}, {"checkpoint_group": 0}])
def test_counts_that_are_too_small_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        ttt_large_chunk(*arguments(10), **{"chunk": 5, **counts})


def test_no_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        ttt_large_chunk(*(x[:, :, :0] for x in arguments(3)[:3]), *arguments(3)[3:], chunk=5)
