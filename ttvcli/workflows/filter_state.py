"""What is known of each source: one small file a video, whole or absent.

`state/<ab>/<key>.json` holds everything that was measured and nothing that was judged, so that a
killed run goes on, and other thresholds need no decoding. The key is a hash of the name; two of its
digits spread the files over 256 folders.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import json_text, remove_leftovers, write_bytes, write_text
from ttvcli.core.filters.filter import Filter
from ttvcli.workflows.video_sources import Source

FOLDER = "state"
# Reasons that may be gone the next time.
PASSING = frozenset({"crashed", "timeout", "changed", "permission", "not_a_file"})

State = dict[str, Any]


def key_of(source: Source) -> str:
    """Return 16 hex digits that stand for a source in one output folder."""
    # The printed name alone could be that of two files whose names are not valid text.
    whole = source.name.encode() + b"\0" + os.fsencode(source.path.name)
    return hashlib.sha256(whole).hexdigest()[:16]


def state_path(out: Path, key: str) -> Path:
    """Where the state of a source is."""
    return out / FOLDER / key[:2] / f"{key}.json"


def read_state(out: Path, key: str) -> State | None:
    """Return what is known of a source; None if nothing is."""
    try:
        found = json.loads(state_path(out, key).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_state(out: Path, key: str, state: State, pictures: Sequence[Any] = ()) -> None:
    """Write what is known of a source, its pictures first."""
    path = state_path(out, key)
    picture = thumbnail_path(out, key)
    if pictures:
        write_bytes(picture, _strip(pictures))
    else:
        picture.unlink(missing_ok=True)
    write_text(path, json_text(state) + "\n")


def thumbnail_path(out: Path, key: str) -> Path:
    """Where the small pictures of a source are, side by side in one file."""
    return state_path(out, key).with_suffix(".jpg")


def stamp(path: Path) -> list[int]:
    """Return size and time of a file, which tell whether it was changed; [] if there is none."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def is_current(state: State | None, source: Source, filters: Sequence[Filter]) -> bool:
    """Whether a source need not be measured again: `is_known`, and not for a passing reason."""
    if not is_known(state, source, filters):
        return False
    assert state is not None
    return state.get("failed", {}).get("reason") not in PASSING


def is_known(state: State | None, source: Source, filters: Sequence[Filter]) -> bool:
    """Whether a state is of the file as it is now, and of all these filters or a failure."""
    if state is None or state.get("stamp") != stamp(source.path):
        return False
    if "failed" in state:
        return True
    versions = state.get("filters", {})
    return all(versions.get(entry.name) == entry.version for entry in filters)


def clean_up(out: Path) -> None:
    """Delete what killed workers left half written."""
    for folder in sorted((out / FOLDER).glob("??")):
        remove_leftovers(folder)


def forget_all(out: Path) -> None:
    """Delete all that is known."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def _strip(pictures: Sequence[Any]) -> bytes:
    """Return a JPEG of uint8 RGB pictures of one size side by side."""
    import numpy as np
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(np.concatenate(pictures, axis=1)).save(data, format="JPEG", quality=70)
    return data.getvalue()
