"""What is timed has to compute the right thing: the check before every benchmark."""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor
from ttv_kernels.dispatch import preferring
from ttv_kernels.ttt_linear.reference import reference as linear_reference
from ttv_kernels.ttt_mlp.reference import reference as mlp_reference

from ttvcli.core.kernel_bench.published import Size, layer, layer_inputs
from ttvcli.core.kernel_bench.sides import CHECKPOINT_GROUP, Operation, arguments, block_of
from ttvcli.core.models.cogvideox.block import Block, Positions
from ttvcli.core.models.ttt.order import Segments

REFERENCES = {"ttt_linear": linear_reference, "ttt_mlp": mlp_reference}
HEADS = 2
MINI_BATCHES = 3
# Gradients that are small beside what they are sums of: rounding alone can be all there is.
SMALL = {"": "", "ttt_linear": "post_norm", "ttt_mlp": "post_norm", "ttt_large_chunk": "lr_"}
BLOCK_GRID, BLOCK_FRAMES, BLOCK_WINDOWS = (2, 3), 9, 2
# Relative distance of whole tensors; half precision rounds operands of every product.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}
NAMES = ("q", "k", "target", "eta", "norm_weight", "norm_bias", "W1", "b1", "W2", "b2")


def distances(
    run: Operation,
    op: str,
    side: str,
    *,
    mini_batch: int,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, float]:
    """How far output, final state and every gradient are from the float64 reference.

    Both see the same rounded inputs; the last mini-batch is not full, except for the public
    operation, which has no such thing.
    """
    tokens = MINI_BATCHES * mini_batch + (0 if side == "public" else mini_batch // 2)
    given = arguments(
        op, side, HEADS, tokens, mini_batch=mini_batch, dtype=dtype, device=device, grad=True
    )
    exact = [x.detach().cpu().double().requires_grad_() for x in given]
    output, state = run(*given, mini_batch=mini_batch, checkpoint_group=CHECKPOINT_GROUP)
    truth, true_state = REFERENCES[op](*exact[:6], tuple(exact[6:]), mini_batch)  # type: ignore[operator]

    gradients = torch.autograd.grad(_scalar(output, state), given)
    true_gradients = torch.autograd.grad(_scalar(truth, true_state), exact)
    names = NAMES[: len(given)]
    ours = {"output": output, **{f"final {n}": x for n, x in zip(names[6:], state, strict=True)}}
    theirs = [truth, *true_state, *true_gradients]
    ours |= {f"d {name}": x for name, x in zip(names, gradients, strict=True)}
    return {name: _distance(x, y) for (name, x), y in zip(ours.items(), theirs, strict=True)}


def layer_distances(op: str, side: str, mini_batch: int) -> dict[str, float]:
    """How far a whole layer and its gradients are from the same layer in float64, not in groups."""
    size = Size("layer", op, MINI_BATCHES * mini_batch, HEADS, mini_batch, training=True)
    made, exact = layer(size, side), layer(size, "scan").double()
    exact.checkpoint_group = None
    x, rotary = layer_inputs(size)
    exact_x = x.detach().double().requires_grad_()
    output, truth = made(x, rotary), exact(exact_x, rotary)
    gradients = torch.autograd.grad(_scalar(output, ()), [x, *made.parameters()])
    true_gradients = torch.autograd.grad(_scalar(truth, ()), [exact_x, *exact.parameters()])
    names = ["d x", *(f"d {name}" for name, _ in made.named_parameters())]
    pairs = zip(names, gradients, true_gradients, strict=True)
    return {"output": _distance(output, truth)} | {n: _distance(a, b) for n, a, b in pairs}


def block_distances(
    op: str | None, mini_batch: int, dtype: torch.dtype, device: torch.device
) -> dict[str, float]:
    """How far a transformer block is from itself in float64 on a CPU, as `layer` rows time it.

    Output and gradients at the tokens and at the weights of TTT. Two windows, weights that are
    nowhere 0, and a last mini-batch that is not full.
    """
    frame_tokens = BLOCK_GRID[0] * BLOCK_GRID[1]
    wanted = MINI_BATCHES * mini_batch + mini_batch // 2 - BLOCK_FRAMES * frame_tokens
    segments = Segments(
        count=BLOCK_WINDOWS,
        frames=BLOCK_FRAMES,
        frame_tokens=frame_tokens,
        text_tokens=max(1, wanted // BLOCK_WINDOWS),
    )
    made, tokens, positions = block_of(op, segments, BLOCK_GRID, HEADS, mini_batch, dtype, device)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter)
    exact = deepcopy(made).cpu().double()
    window, sequence = (
        None if table is None else table.cpu() for table in (positions.window, positions.sequence)
    )
    there = replace(positions, window=window, sequence=sequence)
    copies = [x.cpu().double() for x in tokens]
    with preferring("scan"):
        truth = _block_results(exact, copies, there, SMALL[op or ""])
    ours = _block_results(made, list(tokens), positions, SMALL[op or ""])
    return {name: _distance(ours[name], truth[name]) for name in truth}


def _block_results(
    block: Block, tokens: list[Tensor], positions: Positions, left_out: str
) -> dict[str, Tensor]:
    """Output and gradients of a block for text, video and the embedding of the timestep."""
    text, video, emb = tokens
    given = {"d text": text.requires_grad_(), "d video": video.requires_grad_()}
    if block.ttt is not None:
        weights = block.ttt.named_parameters()
        given |= {f"d {name}": x for name, x in weights if not name.startswith(left_out)}
    output = torch.cat(block(text, video, emb, positions), dim=1)
    gradients = torch.autograd.grad(_scalar(output, ()), list(given.values()))
    return {"output": output, **dict(zip(given, gradients, strict=True))}


def _distance(ours: Tensor, truth: Tensor) -> float:
    truth = truth.detach()
    return float((ours.detach().cpu().double() - truth).norm() / truth.norm())


def _scalar(output: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """A loss that sees every entry of output and final state differently."""
    total = output.new_zeros((), dtype=torch.promote_types(output.dtype, torch.float32))
    for part in (output, *state):
        weight = torch.linspace(-1, 1, part.numel(), device=part.device, dtype=total.dtype)
        total = total + (part.to(total.dtype) * weight.view_as(part)).sum()
    return total
