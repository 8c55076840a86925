"""`.pt` files of other programs: read without running any code in them, written atomically.

PyTorch's format is a zip of tensors and a pickle. Only tensors and plain containers are read from
the pickle; a file that needs more is refused.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts.atomic import replacing
from ttvcli.errors import ArtifactError

if TYPE_CHECKING:
    import torch

# Containers that programs put around the tensors, outermost first.
_WRAPPERS = ("model", "module", "state_dict")


def read_torch(path: str | Path) -> Any:
    """Return what a `.pt` file holds; its tensors stay mapped from the file where that works.

    Raises:
        ArtifactError: no such file, not of this format, or it holds more than data.
    """
    import torch

    path = Path(path)
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the older format without a zip cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ArtifactError("there is no such file", where=str(path)) from None
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise ArtifactError(
            f"not read, because it holds more than tensors: {reason}",
            where=str(path),
            fix="save its tensors alone, with the program that wrote it, if you trust it",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ArtifactError(f"not a file of PyTorch tensors: {error}", where=str(path)) from error


def out_of_wrappers(value: Any) -> Any:
    """What programs mean by a file: the state dict in it, where there is one."""
    for name in _WRAPPERS:
        if isinstance(value, Mapping) and isinstance(value.get(name), Mapping):
            value = value[name]
    return value


def tensors_in(value: Any, where: str | Path) -> "dict[str, torch.Tensor]":
    """Return the state dict in what `read_torch` gave, out of the usual wrappers.

    Raises:
        ArtifactError: there is none.
    """
    import torch

    value = out_of_wrappers(value)
    if not isinstance(value, Mapping):
        raise ArtifactError(f"holds {type(value).__name__}, not named tensors", where=str(where))
    tensors = {str(k): v for k, v in value.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise ArtifactError("holds no named tensors", where=str(where))
    return tensors


def write_torch(path: str | Path, value: Any) -> None:
    """Write tensors (alone, or in dicts) to a `.pt` file, atomically.

    A tensor that is part of larger storage, such as one mapped from a file, is written by itself.
    """
    import torch

    with replacing(path) as temporary:
        torch.save(_alone(value), temporary)


def _alone(value: Any) -> Any:
    import torch

    if isinstance(value, Mapping):
        return {name: _alone(value[name]) for name in value}
    if isinstance(value, torch.Tensor):
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        return value.contiguous() if whole else value.clone()
    return value
