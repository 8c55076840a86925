"""One writer at a time in an output folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ttvcli.errors import UsageError

LOCK_NAME = ".lock"


@contextmanager
def only_writer(folder: str | Path) -> Iterator[None]:
    """Hold the lock of a folder; UsageError if another process has it.

    The system gives the lock back when its holder ends in any way, so a killed run leaves nothing
    to clean up. The empty file stays. Where the system has no such locks, there is no check.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = Path(folder) / LOCK_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                "another process is writing there",
                where=str(folder),
                fix="wait until it has ended, or choose another --out",
            ) from None
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(handle)
