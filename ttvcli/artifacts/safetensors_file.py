"""One artifact as one safetensors file: tensors, and a header with everything about them.

The header is JSON under the metadata key "ttv", readable without torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts import tensor_file
from ttvcli.artifacts.schema import SCHEMA_VERSION, check_header, plain, producer
from ttvcli.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "ttv"


def write_artifact(
    path: str | Path, kind: str, tensors: "Mapping[str, Tensor]", about: Mapping[str, Any]
) -> None:
    """Write tensors atomically; kind, schema version and producer are added to `about`."""
    header = {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "producer": producer(),
        **plain(about),
    }
    tensor_file.write_tensors(path, tensors, {_KEY: json.dumps(header)})


def read_artifact(path: str | Path, kind: str) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Return (tensors, header); ArtifactError if missing, damaged or of another kind."""
    about = read_about(path, kind)
    return tensor_file.Weights([Path(path)]).load(), about


def read_about(path: str | Path, kind: str) -> dict[str, Any]:
    """Return the header of a file without reading its tensors and without importing torch.

    Raises:
        ArtifactError: no such file, damaged or cut short, not written by ttv, of another kind or
            of a newer schema version.
    """
    layout = tensor_file.read_layout(path)
    try:
        about = json.loads(layout.metadata.get(_KEY, "{}"))
    except ValueError as error:
        raise ArtifactError(
            f"its header cannot be read: {error}",
            where=str(path),
            fix="run the step that makes it again",
        ) from error
    check_header(about, kind=kind, where=path)
    return about
