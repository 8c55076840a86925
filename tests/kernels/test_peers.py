"""The public form is the same mathematics, at the cost that it is there to show."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from ttt_inputs import EXACT, CountingBytes, arguments, largest, scalar
from ttv_kernels.peers import dual_linear, dual_mlp
from ttv_kernels.ttt_linear import ttt_linear
from ttv_kernels.ttt_mlp import ttt_mlp

PEERS: dict[str, tuple[Callable[..., tuple[Tensor, tuple[Tensor, ...]]], ...]] = {
    "linear": (dual_linear, ttt_linear),
    "mlp": (dual_mlp, ttt_mlp),
}
both = pytest.mark.parametrize("op", PEERS)


@both
@pytest.mark.parametrize("group", [None, 3])
def test_the_dual_form_equals_ours_with_all_gradients(op: str, group: int | None) -> None:
    theirs, ours = PEERS[op]
    inputs = arguments(op, 20)
    output, state = theirs(*inputs, mini_batch=5, checkpoint_group=group)
    expected, expected_state = ours(*inputs, mini_batch=5)
    gradients = torch.autograd.grad(scalar(output, state), inputs)
    expected_gradients = torch.autograd.grad(scalar(expected, expected_state), inputs)
    assert largest([(output, expected), *zip(state, expected_state, strict=True)]) < EXACT
    assert largest(list(zip(gradients, expected_gradients, strict=True))) < EXACT


@both
def test_its_backward_writes_quadratically_many_bytes(op: str) -> None:
    """Each further mini-batch writes more than the one before: what ours must not do."""
    theirs, _ = PEERS[op]
    written = []
    for mini_batches in (8, 16, 32):
        output, _ = theirs(*arguments(op, 5 * mini_batches), mini_batch=5)
        with CountingBytes() as counter:
            output.sum().backward()
        written.append(counter.bytes)
    assert written[2] - written[1] > 2.4 * (written[1] - written[0])


@both
def test_a_partial_mini_batch_is_refused(op: str) -> None:
    with pytest.raises(ValueError, match="23 tokens do not divide into mini-batches of 5"):
        PEERS[op][0](*arguments(op, 23, grad=False), mini_batch=5)
