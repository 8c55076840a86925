"""Safetensors files: read the layout without torch, load lazily, write the same bytes every time.

The format is 8 bytes of header length, a JSON header, then the raw tensors. Layouts are read here
in plain Python, so that a file can be described without torch. Writing is ours too: the library has
no fixed order for metadata, and our artifacts are compared byte for byte.
"""

import json
import struct
from collections.abc import Iterator, Mapping
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
    return Layout(tensors, metadata)


def write_tensors(
    path: str | Path,
    tensors: "Mapping[str, torch.Tensor]",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors to a safetensors file, atomically, one tensor in memory at a time."""
    import torch

    names = {getattr(torch, name): key for key, (name, _) in DTYPES.items() if hasattr(torch, name)}
    # Wide elements first, as the library does: every tensor is then aligned to its element.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    end = 0
    for name in order:
        tensor = tensors[name]
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
    """Write `<stem>.safetensors`, or numbered shards and their index if it would be larger."""
    folder = Path(folder)
    shards: list[dict[str, torch.Tensor]] = [{}]
    used = total = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if shards[-1] and used + size > shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += size
        total += size
    metadata = {"format": "pt"}
    if len(shards) == 1:
        path = folder / f"{stem}.safetensors"
        write_tensors(path, shards[0], metadata)
        return [path]
    paths, where = [], {}
    for number, shard in enumerate(shards, start=1):
        path = folder / f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(path, shard, metadata)
        where.update(dict.fromkeys(shard, path.name))
        paths.append(path)
    index = folder / f"{stem}.safetensors.index.json"
    write_json(index, {"metadata": {"total_size": total}, "weight_map": where})
    return [*paths, index]


class Weights(Mapping[str, Any]):
    """Tensors of one or more files as a mapping: `weights[name]` maps the tensor from disk.

    `infos` holds dtype and shape of each without loading anything.
    """

    def __init__(self, files: list[Path]) -> None:
        self.infos: dict[str, TensorInfo] = {}
        self.metadata: dict[str, str] = {}
        self._file_of: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        for file in files:
            layout = read_layout(file)
            self.infos.update(layout.tensors)
            self.metadata.update(layout.metadata)
            self._file_of.update(dict.fromkeys(layout.tensors, file))

    def __getitem__(self, name: str) -> "torch.Tensor":
        from safetensors import safe_open

        file = self._file_of[name]
        if file not in self._open:
            self._open[file] = safe_open(str(file), framework="pt")
        return self._open[file].get_tensor(name)

    def file_of(self, name: str) -> Path:
        """Return the file that holds a tensor."""
        return self._file_of[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def load(self) -> "dict[str, torch.Tensor]":
        """Return all tensors as a state dict that no longer depends on the files."""
        return {name: self[name].clone() for name in self}


def weight_files(folder: str | Path, stem: str | None = None) -> list[Path]:
    """Find the weight files of a folder: those an index names, or a single file.

    ArtifactError says which file is missing. `stem` restricts the search to `<stem>.safetensors`.
    """
    folder = Path(folder)
    pattern = f"{stem or '*'}.safetensors"
    indexes = sorted(folder.glob(f"{pattern}.index.json"), key=lambda path: len(path.name))
    if indexes:
        return _indexed_files(indexes[0])
    # The shortest name is the plain one: others carry a variant such as ".fp16".
    singles = sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))
    if not singles:
        raise ArtifactError(
            "there are no weights (*.safetensors)",
            where=str(folder),
            fix="check that the download is complete; .bin and .ckpt weights are not read",
        )
    return singles[:1]


def _indexed_files(index: Path) -> list[Path]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise _damaged(index, f"not an index of weights ({error})") from error
    files = [index.parent / name for name in sorted(set(names))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ArtifactError(
            f"{len(missing)} of {len(files)} weight files are missing: {', '.join(missing[:5])}",
            where=str(index.parent),
            fix="finish the download",
        )
    return files


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"damaged file: {reason}", where=str(path), fix="make or download it again"
    )
