"""SHA-256 of files; those of large ones are remembered between runs.

Two questions are asked of a file. *Is it the one that this was made with?* `digest_of` answers from
memory for as long as the system says that nobody wrote to the file: the hashes of models in
sidecars and headers, and in the states that killed runs go on from. *Are its bytes intact?* A
failing disk changes no time stamp, so `read_digest` reads them, as does `atomic.sha256_file`: the
seal of a model that `ttv doctor` checks, checkpoints, data.

The memory is one file in the user's cache folder: `$XDG_CACHE_HOME/ttv/` or `~/.cache/ttv/`. Only
time depends on it. What cannot be read or written there counts as nothing, without a word.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from time import time_ns
from typing import NamedTuple

from ttvcli.artifacts.atomic import remove_leftovers, write_json

MEMORY_NAME = "file-hashes.json"
LARGE = 64 << 20  # bytes; less is read in a tenth of a second
MOST = 256  # files remembered; the one hashed longest ago is forgotten first
_MOST_BYTES = 4 << 20  # of the memory; ttv writes less
_VERSION = 1
# Two writes within the resolution of time stamps leave the same stamp. FAT has the coarsest, 2 s.
_RESOLUTION = 2 * 10**9  # ns
# Of a file that is no JSON, or JSON of another form; RuntimeError: nested too deep, or no home.
_UNUSABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)


class Stamp(NamedTuple):
    """What changes when a file is written to or replaced; `path` has no links in it.

    `ctime_ns` is when the system last saw a write: no program sets it back, as it can `mtime_ns`.
    """

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


_seen: dict[Stamp, bytes] = {}  # in this process, of files of any size


def digest_of(path: str | Path, *, between_runs: bool = False) -> bytes:
    """Return the SHA-256 of a file, 32 bytes, reading it once for as long as its stamp stays.

    It tells which file this is, not that its bytes are intact. `between_runs`: a large one is read
    once by all runs of this user.

    Raises:
        OSError: the file cannot be read.
    """
    path, stamp = _resolved(path)
    lasting = between_runs and stamp.size >= LARGE
    return _known(stamp, lasting) or _read(path, lasting)


def bytes_to_read(path: str | Path) -> int:
    """Return how much of a file `digest_of(path, between_runs=True)` would read: all or nothing."""
    _, stamp = _resolved(path)
    return 0 if _known(stamp, stamp.size >= LARGE) else stamp.size


def read_digest(path: str | Path) -> bytes:
    """Return the SHA-256 of the bytes that a file has now; OSError if it cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def memory_path() -> Path:
    """Return where hashes are remembered; RuntimeError for a user without a home."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "ttv" / MEMORY_NAME


def _resolved(path: str | Path) -> tuple[Path, Stamp]:
    path = Path(os.path.realpath(path))
    return path, _stamp(path, path.stat())


def _stamp(path: Path, found: os.stat_result) -> Stamp:
    times = found.st_mtime_ns, found.st_ctime_ns
    return Stamp(str(path), found.st_dev, found.st_ino, found.st_size, *times)


def _known(stamp: Stamp, lasting: bool) -> bytes | None:
    if stamp not in _seen and lasting and (digest := _memory().get(stamp)):
        _seen[stamp] = digest
    return _seen.get(stamp)


def _read(path: Path, lasting: bool) -> bytes:
    """Hash a file, and keep the result unless the file was written to meanwhile."""
    with path.open("rb") as file:
        before = _stamp(path, os.fstat(file.fileno()))
        began = time_ns()
        digest = hashlib.file_digest(file, "sha256").digest()
        after = _stamp(path, os.fstat(file.fileno()))
    if before == after:
        _seen[before] = digest
        # Of a younger file a write after `began` could have left the stamp as it is.
        if lasting and began - max(before.mtime_ns, before.ctime_ns) > _RESOLUTION:
            _remember(before, digest)
    return digest


def _memory() -> dict[Stamp, bytes]:
    """What is remembered, hashed longest ago first; {} if there is nothing that can be used."""
    with suppress(*_UNUSABLE):
        path = memory_path()
        if path.is_file():  # not a pipe, which would wait for a writer
            with path.open("rb") as file:
                found = json.loads(file.read(_MOST_BYTES))
            if found["version"] == _VERSION and found["check"] == _check(found["files"]):
                return {
                    Stamp(*(row[name] for name in Stamp._fields)): bytes.fromhex(row["sha256"])
                    for row in found["files"]
                }
    return {}


def _remember(stamp: Stamp, digest: bytes) -> None:
    """Write the memory anew; of two runs that do so at once, one may lose what it added."""
    with suppress(*_UNUSABLE):
        path = memory_path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        kept = {
            old: known
            for old, known in _memory().items()
            if (old.path, old.device) != (stamp.path, stamp.device)
        }
        newest = [*kept.items(), (stamp, digest)][-MOST:]
        files = [{**key._asdict(), "sha256": value.hex()} for key, value in newest]
        write_json(path, {"version": _VERSION, "check": _check(files), "files": files})


def _check(files: object) -> str:
    """A hash over the entries: a damaged digit must not become the name of a model."""
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()
