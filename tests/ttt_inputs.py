"""Inputs of the TTT operations in float64, and how far two results are apart."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

B, H, K, F = 2, 3, 8, 12

# float64 against float64, different order of summation
EXACT = 1e-10


def arguments(op: str, length: int, batch: int = B, grad: bool = True) -> list[Tensor]:
    """q, k, target, eta, norm weight and bias, then the state; full rank, of size 0.5."""
    generator = torch.Generator().manual_seed(length)

    def random(*shape: int) -> Tensor:
        x = 0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return x.requires_grad_(grad)

    tokens = [random(batch, H, length, K) for _ in range(3)]
    eta = (0.05 * torch.rand(batch, H, length, generator=generator)).double().requires_grad_(grad)
    norm = [random(H, K), random(H, K)]
    inner = K if op == "linear" else F
    state = [random(H, K, inner), random(H, 1, inner)]
    if op == "mlp":
        state += [random(H, F, K), random(H, 1, K)]
    return [*tokens, eta, *norm, *state]


def scalar(output: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """A loss that sees every entry of output and final state differently."""
    total = output.new_zeros(())
    for part in (output, *state):
        total = total + (part * torch.linspace(-1, 1, part.numel()).view_as(part)).sum()
    return total


def largest(errors: list[tuple[Tensor, Tensor]]) -> float:
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in errors)


class CountingBytes(TorchDispatchMode):
    """Count the bytes of everything operations return."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, Tensor):
                self.bytes += part.numel() * part.element_size()
        return result
