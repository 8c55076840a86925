"""The implementations that are measured side by side, and what each is given.

Shape legend: H heads, L tokens, K head width, F inner width, n windows, W tokens of a window.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from ttv_kernels import dispatch
from ttv_kernels.inner_step import TTT_NORM_EPS
from ttv_kernels.peers import dual_linear, dual_mlp
from ttv_kernels.ttt_linear import ttt_linear
from ttv_kernels.ttt_linear.scan import linear_step, scan_linear
from ttv_kernels.ttt_mlp import ttt_mlp
from ttv_kernels.ttt_mlp.scan import mlp_step, scan_mlp

from ttvcli.core.kernel_bench import shapes
from ttvcli.core.kernel_bench.shapes import HEAD_WIDTH, INNER_EXPANSION, Shape
from ttvcli.core.models.cogvideox.block import Block, Positions
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.ttt.order import Segments

OPS = ("ttt_linear", "ttt_mlp")
LAYERS = (*OPS, "ttt_large_chunk")
SIDES = ("scan", "public", "compiled", "triton")
BASE_LR = {"ttt_linear": 1.0, "ttt_mlp": 0.1}
# By name: Triton need not be there, and PyTorch's compiler takes seconds to import.
COMPILER_ERRORS = {"TorchDynamoException", "OutOfResources", "CompilationError", "PTXASError"}
CHECKPOINT_GROUP = 16  # mini-batches, as the public training has it

Operation = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]
# Makes everything ready and returns what is to be timed.
Prepare = Callable[[], Callable[[], Any]]


def operation(op: str, side: str) -> Operation:
    """One implementation of a TTT operation, with the arguments of `ttt_linear` or `ttt_mlp`."""
    linear = op == "ttt_linear"
    if side == "public":
        return dual_linear if linear else dual_mlp
    if side == "compiled":
        # Whole, so that too many variants are an error: otherwise they would run as they are.
        step = torch.compile(linear_step if linear else mlp_step, dynamic=False, fullgraph=True)
        return partial(_scan, partial(scan_linear if linear else scan_mlp, step=step))
    return partial(ttt_linear if linear else ttt_mlp, backend=side)


def _scan(
    scan: Operation, *arguments: Tensor, eps: float = TTT_NORM_EPS, **counts: int | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A scan with the arguments of the public function."""
    counts.setdefault("checkpoint_group", None)
    return scan(*arguments[:4], arguments[4:6], arguments[6:], eps=eps, **counts)


def obstacle(side: str, device: torch.device, compiled: bool, mini_batch: int = 64) -> str | None:
    """Why a side cannot be measured on this device; None if it can."""
    if side == "triton":
        # Its interpreter would run elsewhere too, but says nothing about speed.
        if device.type != "cuda":
            return "needs a CUDA device"
        if mini_batch not in dispatch.MINI_BATCHES:
            return f"mini-batch {mini_batch} is not one of {dispatch.MINI_BATCHES}"
        return dispatch.why_no_triton_on(device)
    if side == "compiled":
        if device.type != "cuda":
            return None if compiled else "compiles for minutes on a CPU; --compile measures it"
        if not dispatch.triton_imports():
            return "the package triton cannot be imported"
    return None


def refusal(error: Exception) -> str | None:
    """What a compiler says that cannot make a side for this device; None for any other error."""
    if not {kind.__name__ for kind in type(error).__mro__} & COMPILER_ERRORS:
        return None
    return f"does not compile here: {(str(error).strip() or type(error).__name__).splitlines()[0]}"


def forget_compiled() -> None:
    """Start over with compiled steps: PyTorch keeps few variants, and each length has its own."""
    torch.compiler.reset()


def arguments(
    op: str,
    side: str,
    heads: int,
    tokens: int,
    *,
    mini_batch: int,
    dtype: torch.dtype,
    device: torch.device,
    grad: bool,
) -> list[Tensor]:
    """q, k, target, eta, norm weight and bias, then the state, as a trained layer has them.

    Tokens are in `dtype`. The rest is fp32, except for the public operation, which in half
    precision keeps its state in half precision too.
    """
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).mul_(scale)

    # Rounded one by one: of a minute of video, each is 4 GB in fp32.
    q, k = (F.normalize(random(1, heads, tokens, HEAD_WIDTH), dim=-1).to(dtype) for _ in range(2))
    gate = torch.rand(1, heads, tokens, generator=generator, device=device)
    inner = HEAD_WIDTH * INNER_EXPANSION[op]
    state = [random(heads, HEAD_WIDTH, inner, scale=0.3), random(heads, 1, inner, scale=0.1)]
    if op == "ttt_mlp":
        state += [random(heads, inner, HEAD_WIDTH, scale=0.3)]
        state += [random(heads, 1, HEAD_WIDTH, scale=0.1)]
    eta = gate * (BASE_LR[op] / (HEAD_WIDTH * mini_batch))
    norm = [1 + random(heads, HEAD_WIDTH, scale=0.1), random(heads, HEAD_WIDTH, scale=0.1)]
    given = [q, k, random(1, heads, tokens, HEAD_WIDTH).to(dtype), eta, *norm, *state]
    whole = dtype if side == "public" else torch.float32
    dtypes = [dtype] * 3 + [whole] * (len(given) - 3)
    return [x.to(kind).requires_grad_(grad) for x, kind in zip(given, dtypes, strict=True)]


def ttt_work(
    run: Operation,
    op: str,
    side: str,
    shape: Shape,
    tokens: int,
    backward: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Prepare:
    """A pass over `tokens` tokens of a shape; the backward pass without the forward before it."""
    given = arguments(
        op,
        side,
        shape.heads,
        tokens,
        mini_batch=shape.mini_batch,
        dtype=dtype,
        device=device,
        grad=backward,
    )

    def forward() -> Tensor:
        group = CHECKPOINT_GROUP if backward else None
        return run(*given, mini_batch=shape.mini_batch, checkpoint_group=group)[0]

    return _passes(forward, given, backward)


def attention_work(
    shape: Shape, backward: bool, dtype: torch.dtype, device: torch.device
) -> Prepare:
    """PyTorch's attention over all windows `[n, H, W, K]` of local attention."""
    generator = torch.Generator(device).manual_seed(0)
    sizes = (shape.segments.count, shape.heads, shape.window, HEAD_WIDTH)
    q, k, v = (
        torch.randn(sizes, generator=generator, device=device, dtype=dtype, requires_grad=backward)
        for _ in range(3)
    )
    return _passes(lambda: F.scaled_dot_product_attention(q, k, v), [q, k, v], backward)


def layer_work(
    op: str | None, shape: Shape, backward: bool, dtype: torch.dtype, device: torch.device
) -> Prepare:
    """A transformer block with the heads of the shape, with TTT or without."""
    block, (text, video, emb), positions = block_of(
        op, shape.segments, shapes.FRAME_GRID, shape.heads, shape.mini_batch, dtype, device
    )
    given = [text.requires_grad_(backward), video.requires_grad_(backward), *block.parameters()]
    return _passes(lambda: torch.cat(block(text, video, emb, positions), dim=1), given, backward)


def block_of(
    op: str | None,
    segments: Segments,
    grid: tuple[int, int],
    heads: int,
    mini_batch: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Block, tuple[Tensor, Tensor, Tensor], Positions]:
    """A block, its text, video and embedding of the timestep, and where each token stands."""
    config = CogVideoXConfig(
        num_attention_heads=heads,
        attention_head_dim=HEAD_WIDTH,
        num_layers=1,
        text_embed_dim=8,
        use_rotary_positional_embeddings=True,
        ssm=op or "none",
        ttt_mini_batch=mini_batch,
        ttt_base_lr=BASE_LR.get(op or "", 0.1),
    )
    with torch.device(device), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CogVideoXTransformer(config).to(dtype)
        network.set_checkpointing(ttt_mini_batches=CHECKPOINT_GROUP)
        rows, columns = grid
        latents = torch.zeros(1, segments.frames, 16, 2 * rows, 2 * columns)
        texts = torch.zeros(1, segments.count, segments.text_tokens, 8)
        positions = network.positions(latents, texts)
        video_tokens = segments.frames * segments.frame_tokens
        text = torch.randn(1, segments.text_total, config.width, dtype=dtype)
        video = torch.randn(1, video_tokens, config.width, dtype=dtype)
        emb = torch.randn(1, config.time_embed_dim, dtype=dtype)
    block = network.transformer_blocks[0]
    assert isinstance(block, Block)
    return block, (text, video, emb), positions


def _passes(forward: Callable[[], Tensor], given: list[Tensor], backward: bool) -> Prepare:
    def prepare() -> Callable[[], Any]:
        if not backward:
            return torch.no_grad()(forward)
        output = forward()
        gradient = torch.ones_like(output)
        return lambda: torch.autograd.grad(output, given, gradient)

    return prepare
