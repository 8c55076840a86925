"""Files that are either whole or absent.

Everything is written under a temporary name in the same folder, flushed to the disk and renamed. A
process that is killed leaves at most a temporary file, which `remove_leftovers` deletes.
"""

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_PIECE = 1 << 20  # bytes read at once
# The suffix stays last: encoders choose the container from it.
_TEMPORARY = re.compile(r"^\..*\.tmp-([0-9a-f]{6})-(\d+)-[0-9a-f]{8}(\..*)?$")


def temporary_beside(path: Path) -> Path:
    """Return an unused hidden name in the folder of `path`, with the same suffix."""
    writer = f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.stem}.tmp-{writer}{path.suffix}")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success it becomes `path`, on failure it goes away."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Like `replacing`, for a folder: `<name>.tmp-xxxxxxxx/` beside it, renamed at the end."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        for child in sorted(temporary.rglob("*")):
            sync(child)
        sync(temporary)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 file atomically, with the line ends it was given."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as readable JSON (UTF-8, two spaces, a newline at the end) atomically."""
    write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON that can be stored as UTF-8, also when a file name in it cannot."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:  # undecodable bytes of a file name, kept as lone surrogates
        return json.dumps(value, indent=indent)
    return text


def append_line(path: str | Path, text: str) -> None:
    """Append one line in a single write and flush it to the disk."""
    if "\n" in text:
        raise ValueError(f"one line at a time, got {text.count(chr(10)) + 1}")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    handle = os.open(path, flags, 0o644)
    try:
        data = memoryview((text + "\n").encode())
        while data:  # a full disk may take part of it before it says so
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk, where the system can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return  # some systems cannot open a folder
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Delete the temporary files that killed processes left in a folder (not in its sub-folders).

    Files of a process that still runs, or that ran on another machine, are kept, so that several
    may share a folder. Call it before the first write: files of the calling process count as left
    over.
    """
    removed = []
    for path in sorted(Path(folder).glob(".*.tmp-*")):
        match = _TEMPORARY.match(path.name)
        if match and match[1] == _host() and not _other_process_runs(int(match[2])):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def sha256_file(path: str | Path, advance: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits; `advance` is called every MiB."""
    digest = hashlib.sha256()
    with Path(path).open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            advance()
    return digest.hexdigest()


def _host() -> str:
    """Six hex digits for this machine: a process id means nothing on another one."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _other_process_runs(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked how: not every container does."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:  # gone, or a system without /proc
        return False
    return stat.rpartition(")")[2].split()[:1] == ["Z"]
