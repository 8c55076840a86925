"""Safetensors files: read the layout without torch, load lazily, write the same bytes every time.

The format is 8 bytes of header length, a JSON header, then the raw tensors. Layouts are read here
in plain Python, so that a file can be described without torch. Writing is ours too: the library has
no fixed order for metadata, and our artifacts are compared byte for byte.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts.atomic import replacing, write_json
from ttvcli.errors import ArtifactError

if TYPE_CHECKING:
    import torch

# name in the file -> (name in torch, bytes of one element)
DTYPES = {
    "F64": ("float64", 8),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
    "C64": ("complex64", 8),
    "F32": ("float32", 4),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
}
LARGEST_HEADER = 100_000_000
SHARD_BYTES = 5_000_000_000
_PIECE = 1 << 22  # elements read at a time: 8 to 32 MiB


@dataclass(frozen=True)
class TensorInfo:
    """Dtype (as the file names it), shape and byte range (from the start of the data)."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """What a safetensors file holds, read from its header alone."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int = 0  # byte of the file where the data begins

    @property
    def elements(self) -> int:
        """Elements of all tensors together: the parameter count of a weight file."""
        return sum(info.elements for info in self.tensors.values())

    @property
    def dtypes(self) -> list[str]:
        """The dtypes that occur, sorted."""
        return sorted({info.dtype for info in self.tensors.values()})


def read_layout(path: str | Path) -> Layout:
    """Read the header of a safetensors file; ArtifactError if it is missing, damaged or cut off."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
            if length > LARGEST_HEADER:
                raise _damaged(path, "it does not start with a header length")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        tensors = {
            name: TensorInfo(entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in header.items()
        }
    except FileNotFoundError:
        raise ArtifactError("there is no such file", where=str(path)) from None
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"its header cannot be read ({error})") from error
    expected = 8 + length + max((info.end for info in tensors.values()), default=0)
    size = path.stat().st_size
    if size != expected:
        raise _damaged(path, f"it has {size} bytes, its header announces {expected}")
    return Layout(tensors, metadata, 8 + length)


def write_tensors(
    path: str | Path,
    tensors: "Mapping[str, torch.Tensor]",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors to a safetensors file, atomically, one tensor in memory at a time.

    `tensors` may be lazy (see `like`): each is then asked for once, when it is written.
    """
    import torch

    names = {getattr(torch, name): key for key, (name, _) in DTYPES.items() if hasattr(torch, name)}
    likes = {name: like(tensors, name) for name in tensors}
    # Wide elements first, as the library does: every tensor is then aligned to its element.
    order = sorted(likes, key=lambda name: (-likes[name].element_size(), name))
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    end = 0
    for name in order:
        tensor = likes[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        header[name] = {"dtype": names[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


def write_sharded(
    folder: str | Path,
    stem: str,
    tensors: "Mapping[str, torch.Tensor]",
    *,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write `<stem>.safetensors`, or numbered shards and their index if it would be larger.

    `tensors` may be lazy (see `like`).
    """
    folder = Path(folder)
    shards: list[list[str]] = [[]]
    used = total = 0
    for name in tensors:
        tensor = like(tensors, name)
        size = tensor.numel() * tensor.element_size()
        if shards[-1] and used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
        total += size
    metadata = {"format": "pt"}
    if len(shards) == 1:
        path = folder / f"{stem}.safetensors"
        write_tensors(path, tensors, metadata)
        return [path]
    paths, where = [], {}
    for number, shard in enumerate(shards, start=1):
        path = folder / f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(path, Part(tensors, shard), metadata)
        where.update(dict.fromkeys(shard, path.name))
        paths.append(path)
    index = folder / f"{stem}.safetensors.index.json"
    write_json(index, {"metadata": {"total_size": total}, "weight_map": where})
    return [*paths, index]


def like(tensors: "Mapping[str, torch.Tensor]", name: str) -> "torch.Tensor":
    """Return a tensor of the same shape and dtype as `tensors[name]`.

    A lazy mapping has a method `like(name)` that gives one without data (on the device "meta");
    of any other mapping it is the tensor itself.
    """
    known = getattr(tensors, "like", None)
    found: torch.Tensor = known(name) if known is not None else tensors[name]
    return found


class Part(Mapping[str, Any]):
    """Some of the tensors of a mapping, as lazy as the mapping itself."""

    def __init__(self, tensors: "Mapping[str, torch.Tensor]", names: Sequence[str]) -> None:
        self._tensors = tensors
        self._names = names

    def __getitem__(self, name: str) -> "torch.Tensor":
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def like(self, name: str) -> "torch.Tensor":
        """Return shape and dtype of a tensor."""
        return like(self._tensors, name)


class Weights(Mapping[str, Any]):
    """Tensors of one or more files as a mapping: `weights[name]` maps the tensor from disk.

    `infos` holds dtype and shape of each without loading anything. `aliases` maps other names under
    which a file may store a tensor to the one it has here.
    """

    def __init__(self, files: list[Path], aliases: Mapping[str, str] | None = None) -> None:
        self.infos: dict[str, TensorInfo] = {}
        self.metadata: dict[str, str] = {}
        self._place: dict[str, tuple[Path, str, int]] = {}  # file, name in it, start of its data
        self._open: dict[Path, Any] = {}
        others = aliases or {}
        for file in files:
            layout = read_layout(file)
            self.metadata.update(layout.metadata)
            # A tensor stored under both names is taken under its own.
            for stored in sorted(layout.tensors, key=lambda name: name not in others):
                name = others.get(stored, stored)
                self.infos[name] = layout.tensors[stored]
                self._place[name] = (file, stored, layout.data_start)

    def __getitem__(self, name: str) -> "torch.Tensor":
        from safetensors import safe_open

        file, stored, _ = self._place[name]
        if file not in self._open:
            self._open[file] = safe_open(str(file), framework="pt")
        return self._open[file].get_tensor(stored)

    def read_into(self, name: str, target: "torch.Tensor") -> None:
        """Read a tensor into one of its shape, of any dtype and on any device.

        Nothing is mapped: mapped pages count as memory of the process until the system takes them
        back, and a conversion needs each of them once.
        """
        import torch

        file, _, data_start = self._place[name]
        info = self.infos[name]
        dtype = getattr(torch, DTYPES[info.dtype][0])
        flat = target.reshape(-1)
        if flat.data_ptr() != target.data_ptr() or info.shape != target.shape:
            raise ValueError(f"{name} is {info.shape}, the target {tuple(target.shape)}")
        is_direct = flat.dtype == dtype and flat.device.type == "cpu"
        step = max(1, info.elements if is_direct else min(info.elements, _PIECE))
        piece = flat if is_direct else torch.empty(step, dtype=dtype)
        with file.open("rb", buffering=0) as opened:
            opened.seek(data_start + info.start)
            for start in range(0, info.elements, step):
                part = piece[: min(step, info.elements - start)]
                view = part.view(torch.uint8).numpy().data
                while view:
                    count = opened.readinto(view)  # at most 2 GiB in one call
                    if not count:
                        raise _damaged(file, f"it ends within {name}")
                    view = view[count:]
                if not is_direct:
                    flat[start : start + len(part)].copy_(part)

    def like(self, name: str) -> "torch.Tensor":
        """Return shape and dtype of a tensor, as one without data."""
        import torch

        info = self.infos[name]
        dtype = getattr(torch, DTYPES[info.dtype][0])
        return torch.empty(info.shape, dtype=dtype, device="meta")

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def load(self) -> "dict[str, torch.Tensor]":
        """Return all tensors as a state dict that no longer depends on the files."""
        return {name: self[name].clone() for name in self}


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"damaged file: {reason}", where=str(path), fix="make or download it again"
    )
