"""One writer at a time in an output folder, or one in each part of it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ttvcli.errors import UsageError

LOCK_NAME = ".lock"


@contextmanager
def only_writer(folder: str | Path, part: str | None = None) -> Iterator[None]:
    """Make a folder and hold its lock; UsageError if another process has it, or it cannot be made.

    With `part`, a name such as "2-of-8", hold the lock of that part: processes with other parts may
    write at the same time, one without a part may not.

    The system gives the lock back when its holder ends in any way, so a killed run leaves nothing
    to clean up. The empty files stay. Where the system has no such locks, there is no check.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = Path(folder) / LOCK_NAME
    _make_folder(path.parent)
    with ExitStack() as held:
        if part is None:
            held.enter_context(_locked(path, fcntl.LOCK_EX, ""))
        else:
            held.enter_context(_locked(path, fcntl.LOCK_SH, "; it has no --shard"))
            own = path.with_name(f"{LOCK_NAME}.{part}")
            held.enter_context(_locked(own, fcntl.LOCK_EX, f" as part {part}"))
        yield


def _make_folder(folder: Path) -> None:
    fix = "choose another --out"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        what = "the output is a file, not a folder"
        raise UsageError(what, where=str(folder), fix=fix) from None
    except FileNotFoundError:  # where the system itself makes all folders, such as /proc
        raise UsageError("no folder can be made there", where=str(folder), fix=fix) from None


@contextmanager
def _locked(path: Path, kind: int, who: str) -> Iterator[None]:
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another process is writing there{who}",
                where=str(path.parent),
                fix="wait until it has ended, or choose another --out",
            ) from None
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(handle)
