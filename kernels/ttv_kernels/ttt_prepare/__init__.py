"""What a TTT layer does to its projections before the inner network reads them (README.md)."""

import torch
from torch import Tensor

from ttv_kernels.dispatch import choose_prepare
from ttv_kernels.ttt_prepare.plain import at_least_fp32, plain_prepare
from ttv_kernels.ttt_prepare.reference import reference


def ttt_prepare(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rotary: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Bring queries and keys to unit length, turn them to their positions, and make the target.

    Args:
        q, k, v: projections of the tokens `[B, H, L, K]`, K even.
        rotary: complex `[L, K/2]`, the position of each token as unit numbers.
        norm_weight, norm_bias: of the inner LayerNorm of each head, `[H, K]`.
        backend: "auto", "scan" (plain PyTorch), "triton" or "reference" (`ttv_kernels.dispatch`).

    Returns:
        q, k and target for `ttt_linear` and `ttt_mlp`: in the dtype of q from the Triton kernels,
        which compute in fp32, otherwise in fp32 at least.

    Raises:
        ValueError: shapes do not fit together, there is no such backend, or Triton was asked for
            and cannot run.
    """
    _check(q, k, v, rotary, norm_weight, norm_bias)
    chosen = choose_prepare(backend, q)
    if chosen == "triton":
        # Only here: importing Triton takes a second, and it is not there on every machine.
        from ttv_kernels.ttt_prepare.autograd import triton_prepare

        return triton_prepare(q, k, v, rotary, norm_weight, norm_bias)
    if chosen == "reference":
        q, k, v = (at_least_fp32(x) for x in (q, k, v))
        angles = torch.view_as_real(rotary).flatten(-2)
        return reference(q, k, v, angles, norm_weight, norm_bias)
    return plain_prepare(q, k, v, rotary, norm_weight, norm_bias)


def _check(
    q: Tensor, k: Tensor, v: Tensor, rotary: Tensor, norm_weight: Tensor, norm_bias: Tensor
) -> None:
    if q.ndim != 4:
        raise ValueError(f"q must be [B, H, L, K], got {q.ndim} dimensions: {tuple(q.shape)}")
    _, heads, length, width = q.shape
    if width % 2:
        raise ValueError(f"head width must be even, got {width}")
    for name, tensor, shape in (
        ("k", k, q.shape),
        ("v", v, q.shape),
        ("rotary", rotary, (length, width // 2)),
        ("norm_weight", norm_weight, (heads, width)),
        ("norm_bias", norm_bias, (heads, width)),
    ):
        if tensor.shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)}, got {tuple(tensor.shape)}")
    if not rotary.is_complex():
        raise ValueError(f"rotary must be complex, got {rotary.dtype}")
