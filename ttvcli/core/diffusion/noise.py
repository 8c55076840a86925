"""Gaussian noise from CPU generators, so that a seed means the same video on every device."""

from collections.abc import Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator]


def draw_noise(
    shape: Sequence[int],
    generator: Generators,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return a normal tensor of `shape`.

    One generator draws the whole tensor at once. A list of B generators draws sample by sample
    along the first axis, which makes each sample independent of the batch it is in.
    """
    for single in as_list(generator):
        if single.device.type != "cpu":
            raise ValueError(f"noise comes from a CPU generator, this one is on {single.device}")
    if isinstance(generator, torch.Generator):
        return torch.randn(tuple(shape), generator=generator, dtype=dtype).to(device)
    if len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators for a batch of {shape[0]}")
    rows = [torch.randn((1, *shape[1:]), generator=single, dtype=dtype) for single in generator]
    return torch.cat(rows).to(device)


def get_state(generator: Generators | None) -> Tensor | None:
    """Return the state of all generators as bytes [G, N], or None without any."""
    if generator is None:
        return None
    return torch.stack([single.get_state() for single in as_list(generator)])


def set_state(generator: Generators | None, state: Tensor | None) -> None:
    """Put generators back to a state from `get_state`."""
    if (generator is None) != (state is None):
        raise ValueError("a saved generator state goes with the generators it came from")
    if generator is None or state is None:
        return
    singles = as_list(generator)
    if len(singles) != len(state):
        raise ValueError(f"{len(singles)} generators for {len(state)} saved states")
    for single, bytes_N in zip(singles, state, strict=True):
        # a copy: the generator reads from the start of the storage, not from where a view starts
        single.set_state(bytes_N.clone())


def as_list(generator: Generators) -> list[torch.Generator]:
    """Return one generator or several as a list."""
    return [generator] if isinstance(generator, torch.Generator) else list(generator)
