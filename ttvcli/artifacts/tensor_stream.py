"""Write sharded safetensors files whose tensors are made one after the other while writing.

For weights that together exceed memory; see `tensor_file` for the format.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts.atomic import replacing, write_json
from ttvcli.artifacts.tensor_file import DTYPES, SHARD_BYTES

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


def write_stream(
    folder: str | Path,
    stem: str,
    shapes: Mapping[str, Shape],
    dtype: str,
    make: "Callable[[str, Shape], torch.Tensor]",
    *,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write tensors of one dtype in the order of `shapes`: one file, or shards and their index.

    Args:
        dtype: as torch names it, such as "bfloat16".
        make: called with name and shape when the tensor's turn comes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key, size = next((key, size) for key, (name, size) in DTYPES.items() if name == dtype)
    shards = list(_shards(shapes, size, shard_bytes))
    paths = [folder / f"{stem}.safetensors"]
    if len(shards) > 1:
        paths = [
            folder / f"{stem}-{i:05d}-of-{len(shards):05d}.safetensors"
            for i in range(1, len(shards) + 1)
        ]
    for path, shard in zip(paths, shards, strict=True):
        _write(path, shard, key, size, make)
    if len(shards) == 1:
        return paths
    index = folder / f"{stem}.safetensors.index.json"
    where = {name: path.name for path, names in zip(paths, shards, strict=True) for name in names}
    total = sum(prod(shape) for shape in shapes.values()) * size
    write_json(index, {"metadata": {"total_size": total}, "weight_map": where})
    return [*paths, index]


def _shards(shapes: Mapping[str, Shape], size: int, shard_bytes: int) -> Iterator[dict[str, Shape]]:
    shard: dict[str, Shape] = {}
    used = 0
    for name, shape in shapes.items():
        count = prod(shape) * size
        if shard and used + count > shard_bytes:
            yield shard
            shard, used = {}, 0
        shard[name] = shape
        used += count
    yield shard


def _write(
    path: Path,
    shapes: Mapping[str, Shape],
    key: str,
    size: int,
    make: "Callable[[str, Shape], torch.Tensor]",
) -> None:
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + prod(shape) * size
        header[name] = {"dtype": key, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    dtype = getattr(torch, DTYPES[key][0])
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            tensor = make(name, shape)
            if tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape):
                raise ValueError(
                    f"{name} is {tensor.dtype} {list(tensor.shape)}, announced {shape}"
                )
            file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
