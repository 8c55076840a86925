"""The formulas of the inner step written out, for the two `reference.py` files: no fused operation.

One sequence of one head at a time: `z` and `target` are `[S, K]`, the norm parameters `[K]`.
Everything runs in the dtype it is given, so float64 in means float64 throughout.
"""

import math

import torch
from torch import Tensor


def normalise(z: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """z with mean 0 and variance 1 along the last axis, and the standard deviation used."""
    centred = z - z.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return centred / deviation, deviation


def layer_norm(z: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return normalise(z, eps)[0] * weight + bias


def loss_gradient(z: Tensor, target: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """d/dz of `0.5 * ||LN(z) - target||^2`."""
    n, deviation = normalise(z, eps)
    u = (n * weight + bias - target) * weight
    return (u - u.mean(-1, keepdim=True) - n * (u * n).mean(-1, keepdim=True)) / deviation


_SLOPE = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(_SLOPE * (x + _CUBIC * x**3)))


def gelu_derivative(x: Tensor) -> Tensor:
    h = torch.tanh(_SLOPE * (x + _CUBIC * x**3))
    return 0.5 * (1 + h) + 0.5 * x * (1 - h * h) * _SLOPE * (1 + 3 * _CUBIC * x * x)
