"""Names, shapes and dtypes of the tensors in PyTorch's own files, read without PyTorch.

Both kinds of file describe their tensors in a pickle: a `.pt` in the `data.pkl` of its zip, a
folder of `torch.distributed.checkpoint` (DCP) in `.metadata`. It is read with stand-ins for the few
classes that such a description has, which do nothing but keep what they are given. What asks for
anything else is refused, so that nothing in a file from elsewhere can run.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ttvcli.artifacts.distributed_checkpoint import METADATA
from ttvcli.artifacts.tensor_file import DTYPES
from ttvcli.artifacts.torch_file import out_of_wrappers
from ttvcli.errors import ArtifactError

_NAMES = {name: short for short, (name, _) in DTYPES.items()}
_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "UntypedStorage": "U8",
}
_DCP = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_OLD_FORMAT = b"\x80\x02\x8a\x0a"  # before PyTorch 1.6: a pickle of a number of ten bytes


@dataclass(frozen=True)
class Described:
    """Dtype, named as in safetensors files, and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def read_pt(path: Path) -> "Described | dict[str, Described]":
    """Describe a `.pt` file: one tensor, or named ones out of the usual wrappers.

    Raises:
        ArtifactError: not a file of PyTorch, of its oldest format, or it holds more than data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            found = out_of_wrappers(_read(archive.read(name), path))
    except (zipfile.BadZipFile, StopIteration, OSError) as error:
        raise _no_pt(path) from error
    if isinstance(found, Described):
        return found
    tensors = found if isinstance(found, Mapping) else {}
    named = {str(name): x for name, x in tensors.items() if isinstance(x, Described)}
    if not named:
        raise ArtifactError(f"holds {type(found).__name__}, not tensors", where=str(path))
    return named


def read_dcp(folder: Path) -> dict[str, Described]:
    """Describe the tensors of a DCP folder; ArtifactError if its metadata are damaged."""
    path = folder / METADATA
    found = _read(path.read_bytes(), path)
    try:
        entries = found.facts["state_dict_metadata"].items()
        tensors = {name: info.facts for name, info in entries if "size" in info.facts}
        return {
            str(name): Described(facts["properties"].facts[0], tuple(facts["size"]))
            for name, facts in tensors.items()
        }
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ArtifactError("it names no tensors", where=str(path)) from error


def _read(content: bytes, path: Path) -> Any:
    try:
        return _StandIns(io.BytesIO(content)).load()
    except Exception as error:  # a damaged pickle raises anything
        raise ArtifactError(
            f"its description of tensors cannot be read: {error}",
            where=str(path),
            fix="copy it again; what holds more than tensors is not read",
        ) from error


def _no_pt(path: Path) -> ArtifactError:
    with path.open("rb") as file:
        is_old = file.read(len(_OLD_FORMAT)) == _OLD_FORMAT
    if is_old:
        return ArtifactError(
            "a file of PyTorch before 1.6, which does not say beforehand what is in it",
            where=str(path),
            fix="load it and save it again with a newer PyTorch; ttv export reads it as it is",
        )
    return ArtifactError("not a file of PyTorch tensors", where=str(path))


class _Kept:
    """Stands for an object of DCP: whatever it is made with."""

    facts: Any = None

    def __init__(self, *given: Any) -> None:
        self.facts = given

    def __setstate__(self, state: Any) -> None:
        self.facts = state


class _StandIns(pickle.Unpickler):
    """Finds stand-ins for what descriptions of tensors are made of, and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        plain = f"{module}.{name}"
        if plain in _PLAIN:
            return _PLAIN[plain]
        if module in ("torch", "torch.storage") and (name in _STORAGES or name in _NAMES):
            return _STORAGES.get(name) or _NAMES[name]
        if module in _DCP and "." not in name:
            return _Kept
        raise pickle.UnpicklingError(f"it asks for {plain}")

    def persistent_load(self, pid: Any) -> str:
        """The dtype of a storage; its content is elsewhere in the file."""
        return str(pid[1])


def _tensor(dtype: str, offset: int, size: tuple[int, ...], *rest: Any) -> Described:
    return Described(dtype, tuple(size))


def _tensor_of_dtype(storage: str, offset: int, size: tuple[int, ...], *rest: Any) -> Described:
    return Described(str(rest[3]), tuple(size))  # after strides, gradient and hooks


_PLAIN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": lambda tensor, *rest: tensor,
    "torch.serialization._get_layout": _Kept,
    "pathlib.PosixPath": _Kept,
    "pathlib.PurePosixPath": _Kept,
    "pathlib._local.PosixPath": _Kept,
    "pathlib._local.PurePosixPath": _Kept,
}
