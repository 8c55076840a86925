"""One artifact as one safetensors file: tensors, and the header with everything about them.

The header is JSON under the single metadata key "ttv". One key, because safetensors writes several
in no fixed order, and equal artifacts have to be equal files.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts.atomic import write_bytes
from ttvcli.artifacts.schema import SCHEMA_VERSION, check_header, plain, producer
from ttvcli.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "ttv"
_LARGEST_HEADER = 100_000_000


def write_tensors(
    path: str | Path, kind: str, tensors: "Mapping[str, Tensor]", about: Mapping[str, Any]
) -> None:
    """Write tensors atomically; kind, schema version and producer are added to `about`."""
    from safetensors.torch import save

    header = {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "producer": producer(),
        **plain(about),
    }
    data = save(dict(tensors), metadata={_KEY: json.dumps(header)})
    write_bytes(path, data)


def read_tensors(path: str | Path, kind: str) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Return (tensors, header); ArtifactError if missing, damaged or of another kind."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    about = read_about(path, kind)
    try:
        return load_file(path), about
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from error


def read_about(path: str | Path, kind: str) -> dict[str, Any]:
    """Return the header of a file without reading its tensors and without importing torch.

    Raises:
        ArtifactError: no such file, damaged or cut short, not written by ttv, of another kind or of
            a newer schema version.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else _LARGEST_HEADER
            if size >= _LARGEST_HEADER:
                raise _damaged(path, "no safetensors header")
            entries = json.loads(file.read(size))
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name[:2] != "__"]
        expected = 8 + size + max(ends, default=0)
        found = path.stat().st_size
        about = json.loads(entries.get("__metadata__", {}).get(_KEY, "{}"))
    except FileNotFoundError:
        raise ArtifactError(
            "there is no such file", where=str(path), fix="run the step that makes it again"
        ) from None
    except OSError as error:
        raise ArtifactError(f"it cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(path, str(error)) from error
    if found != expected:
        raise _damaged(path, f"{found} bytes, its header says {expected}")
    check_header(about, kind=kind, where=path)
    return about


def _damaged(path: str | Path, detail: str) -> ArtifactError:
    return ArtifactError(
        f"the file is damaged: {detail}", where=str(path), fix="run the step that makes it again"
    )
