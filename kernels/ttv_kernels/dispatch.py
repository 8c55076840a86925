"""Which implementation of an operation runs: named by the caller, by the environment, or chosen.

- `scan`: plain PyTorch on any device, linear in length.
- `triton`: one kernel each way, on CUDA devices (and, for tests, in Triton's interpreter).
- `reference`: the specification, one head after the other; slow.
- `auto`: `triton` where it can run, otherwise `scan`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

BACKENDS = ("auto", "scan", "reference", "triton")
VARIABLE = "TTV_TTT_BACKEND"
_PREFERRED: ContextVar[str | None] = ContextVar("preferred", default=None)

# What the Triton kernels are written for.
HEAD_WIDTHS = (32, 64, 128)
MINI_BATCHES = (16, 32, 64)
INNER_EXPANSION = 4
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LEAST_CAPABILITY = (8, 0)

# KiB of shared memory that a block may have, by compute capability. Cards for one desk (8.6, 8.9,
# 12.0) have the least, and so has whatever is not known here.
SHARED_KIB = {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227, (10, 3): 227}
LEAST_SHARED_KIB = 99
# KiB that the widest heads need, by F / K, dtype and mini-batch; all else fits every card.
WIDEST_NEED = {
    (1, torch.bfloat16, 32): 109,
    (1, torch.bfloat16, 64): 109,
    (1, torch.float16, 16): 109,
    (1, torch.float16, 32): 173,
    (1, torch.float16, 64): 173,
    (4, torch.bfloat16, 64): 106,
    (4, torch.float16, 64): 124,
}


def requested(backend: str = "auto") -> str:
    """The backend asked for: the argument, where that is "auto" the environment, else "auto".

    Raises:
        ValueError: there is no such backend; says where the name comes from.
    """
    origin = "backend"
    if backend == "auto":
        backend = _PREFERRED.get() or backend
    if backend == "auto" and os.environ.get(VARIABLE):
        backend, origin = os.environ[VARIABLE], VARIABLE
    if backend not in BACKENDS:
        raise ValueError(f"{origin} must be one of {', '.join(BACKENDS)}, got {backend!r}")
    return backend


@contextmanager
def preferring(backend: str) -> Iterator[None]:
    """Within it "auto" is this backend, whatever the environment says: to compare others with."""
    token = _PREFERRED.set(backend)
    try:
        yield
    finally:
        _PREFERRED.reset(token)


def choose(backend: str, q: Tensor, mini_batch: int, inner: int) -> str:
    """ "scan", "reference" or "triton" for these tokens.

    Args:
        backend: as given by the caller.
        q: `[B, H, L, K]`.
        mini_batch: tokens of one update.
        inner: F, the inner width (K where there is a single matrix).

    Raises:
        ValueError: no such backend, or Triton was asked for and cannot run; says why.
    """
    return _chosen(backend, q, lambda: why_not_triton(q, mini_batch, inner))


def choose_prepare(backend: str, q: Tensor) -> str:
    """As `choose`, for `ttt_prepare`, which knows no mini-batches."""
    return _chosen(backend, q, lambda: why_not_tokens(q))


def _chosen(backend: str, q: Tensor, why_not: Callable[[], str | None]) -> str:
    name = requested(backend)
    if name in ("scan", "reference"):
        return name
    if name == "auto":
        return "triton" if q.is_cuda and why_not() is None else "scan"
    reason = why_not()
    if reason is not None:
        raise ValueError(f"backend 'triton' cannot run: {reason}; use 'auto' or 'scan'")
    return name


def why_not_triton(q: Tensor, mini_batch: int, inner: int) -> str | None:
    """The first thing that keeps the Triton kernels from running on `q`; None if nothing does."""
    reason = why_not_tokens(q)
    if reason is not None:
        return reason
    width = q.shape[-1]
    if inner not in (width, INNER_EXPANSION * width):
        return f"inner width {inner} is not {INNER_EXPANSION} x {width}"
    if width == HEAD_WIDTHS[-1] and q.dtype == torch.float32:
        return f"products of float32 with head width {width} spill kilobytes of registers"
    if mini_batch not in MINI_BATCHES:
        return f"mini-batch {mini_batch} is not one of {MINI_BATCHES}"
    return why_it_does_not_fit(q, mini_batch, inner) if q.is_cuda else None


def why_not_tokens(q: Tensor) -> str | None:
    """What keeps Triton kernels from taking tokens like `q`, whatever is done to them."""
    reason = why_no_triton_on(q.device)
    if reason is not None:
        return reason
    width = q.shape[-1]
    if width not in HEAD_WIDTHS:
        return f"head width {width} is not one of {HEAD_WIDTHS}"
    if q.dtype not in DTYPES:
        return f"{q.dtype} is not one of {', '.join(map(str, DTYPES))}"
    if not q.is_cuda and q.dtype == torch.bfloat16:
        return "Triton's interpreter multiplies bfloat16 wrongly"
    return None


def why_it_does_not_fit(q: Tensor, mini_batch: int, inner: int) -> str | None:
    """Whether a block of the kernels gets the shared memory it needs on the card of `q`."""
    width = q.shape[-1]
    if width < HEAD_WIDTHS[-1]:
        return None
    needed = WIDEST_NEED.get((inner // width, q.dtype, mini_batch), 0)
    capability = torch.cuda.get_device_capability(q.device)
    limit = shared_kib(capability)
    if needed <= limit:
        return None
    return (
        f"head width {width} with mini-batch {mini_batch} in {q.dtype} needs {needed} KiB of "
        f"shared memory, a block on compute capability {capability} has {limit}"
    )


def shared_kib(capability: tuple[int, int]) -> int:
    """KiB of shared memory that a block may have."""
    return SHARED_KIB.get(capability, LEAST_SHARED_KIB)


def why_no_triton_on(device: torch.device) -> str | None:
    """What keeps Triton from running on a device at all; None if nothing does."""
    if not triton_imports():
        return "the package triton cannot be imported"
    if device.type != "cuda":
        if os.environ.get("TRITON_INTERPRET") == "1" and device.type == "cpu":
            return None
        return f"it needs a CUDA device, the tensors are on {device.type}"
    if torch.version.hip is not None:
        return "the kernels are not tuned for ROCm"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return f"compute capability {capability} is below {LEAST_CAPABILITY}"
    return None


@cache
def triton_imports() -> bool:
    """Whether the package triton is there and works."""
    try:
        import_module("triton")
    except ImportError:
        return False
    return True


def run(
    chosen: str,
    tokens: Sequence[Tensor],
    norm: tuple[Tensor, Tensor],
    state: tuple[Tensor, ...],
    *,
    scan: Callable[..., Any],
    reference: Callable[..., Any],
    kernels: Callable[[], Callable[..., Any]],
    mini_batch: int,
    checkpoint_group: int | None,
    eps: float,
    reverse: bool,
) -> tuple[Tensor, Any]:
    """Run a TTT operation by the backend that `choose` named.

    Args:
        tokens: q, k, target, eta.
        kernels: imports the Triton function: that takes a second, and Triton is not everywhere.
        checkpoint_group: None lets the kernels take what suits them, and the scan keep everything.
    """
    counts: dict[str, Any] = {"mini_batch": mini_batch, "eps": eps, "reverse": reverse}
    if chosen == "triton":
        if checkpoint_group is not None:
            counts["checkpoint_group"] = checkpoint_group
        return kernels()(*tokens, *norm, *state, **counts)
    if chosen == "scan":
        return scan(*tokens, norm, state, checkpoint_group=checkpoint_group, **counts)
    specified = partial(turned, reference) if reverse else reference
    exact = [x.to(state[0].dtype) for x in tokens]
    output, final = specified(*exact, *norm, state, mini_batch, eps)
    return output.to(tokens[0].dtype), final


def turned(
    run: Callable[..., tuple[Tensor, Any]], *arguments: Any, tokens: int = 4
) -> tuple[Tensor, Any]:
    """Run an operation from the last token to the first: its first arguments, flipped along L."""
    flipped = [x.flip(2) for x in arguments[:tokens]]
    output, state = run(*flipped, *arguments[tokens:])
    return output.flip(2), state
