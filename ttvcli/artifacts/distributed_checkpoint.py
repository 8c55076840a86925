"""Folders of `torch.distributed.checkpoint` (DCP), read tensor by tensor by one process.

A folder holds `.metadata` (a pickle) and `*.distcp` files with the tensors, cut into the pieces
that each process had. The pickle is read with the classes of DCP alone: a checkpoint from elsewhere
cannot run code.
"""

import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.errors import ArtifactError

if TYPE_CHECKING:
    import torch

METADATA = ".metadata"
_MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_PLAIN = {("collections", "OrderedDict"), ("builtins", "set"), ("builtins", "frozenset")}


def is_distributed_checkpoint(folder: str | Path) -> bool:
    """Tell whether a folder is a DCP checkpoint."""
    return (Path(folder) / METADATA).is_file()


class SavedTensors(Mapping[str, Any]):
    """The tensors of a DCP folder; each is read when it is asked for.

    Args:
        folder: the checkpoint.
        prefix: take only names that begin so, and drop it; such as "model.".

    Raises:
        ArtifactError: damaged, or its metadata holds more than metadata.
    """

    def __init__(self, folder: str | Path, prefix: str = "") -> None:
        self.folder = Path(folder)
        self.prefix = prefix
        self._reader = _reader(self.folder)
        known = self._reader.read_metadata().state_dict_metadata
        self._infos: dict[str, Any] = {
            name.removeprefix(prefix): info
            for name, info in known.items()
            if name.startswith(prefix) and hasattr(info, "size")
        }

    def __getitem__(self, name: str) -> "torch.Tensor":
        import torch
        from torch.distributed import checkpoint

        info = self._infos[name]
        target = torch.empty(info.size, dtype=info.properties.dtype)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of running in one process, which is meant
                checkpoint.load(
                    {self.prefix + name: target}, storage_reader=self._reader, no_dist=True
                )
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise ArtifactError(
                f"{name} cannot be read: {error}", where=str(self.folder), fix="copy it again"
            ) from error
        return target

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def like(self, name: str) -> "torch.Tensor":
        """Return shape and dtype of a tensor, as one without data."""
        import torch

        info = self._infos[name]
        return torch.empty(info.size, dtype=info.properties.dtype, device="meta")


def write_distributed(folder: str | Path, tensors: "Mapping[str, torch.Tensor]") -> None:
    """Write tensors as a DCP checkpoint into an existing folder.

    Mapped tensors are copied one at a time; those that are converted are all in memory at once.
    """
    from torch.distributed import checkpoint

    writer = checkpoint.FileSystemWriter(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint.save(dict(tensors.items()), storage_writer=writer, no_dist=True)


def _reader(folder: Path) -> Any:
    """A reader that reads the metadata once, and safely."""
    from torch.distributed import checkpoint

    class Reader(checkpoint.FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            return metadata

    metadata = _read_metadata(folder / METADATA)
    return Reader(folder)


def _read_metadata(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            found = _MetadataOnly(file).load()
        if found.state_dict_metadata is None or found.storage_data is None:
            raise ValueError("it names no tensors")
    except FileNotFoundError:
        raise ArtifactError("not a distributed checkpoint", where=str(path)) from None
    except Exception as error:  # a damaged pickle raises anything
        raise ArtifactError(
            f"the metadata cannot be read: {error}",
            where=str(path),
            fix="copy the checkpoint again; .metadata begins with a dot",
        ) from error
    if found.storage_meta is None:
        from torch.distributed.checkpoint.metadata import StorageMeta

        found.storage_meta = StorageMeta()
    return found


class _MetadataOnly(pickle.Unpickler):
    """Finds the classes of DCP and torch's dtypes, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        import torch

        if module in _MODULES and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        elif module == "torch" and "." not in name:
            found = getattr(torch, name, None)
            if isinstance(found, torch.dtype | torch.layout) or found is torch.Size:
                return found
        elif (module, name) in _PLAIN or (
            module == "torch.serialization" and name == "_get_layout"
        ):
            return super().find_class(module, name)
        elif module in ("pathlib", "pathlib._local") and name in ("PosixPath", "PurePosixPath"):
            from pathlib import PurePosixPath

            return PurePosixPath
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
