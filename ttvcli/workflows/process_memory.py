"""Memory of this process as Linux counts it; None where there is no /proc."""

from contextlib import suppress
from pathlib import Path


def held() -> int | None:
    """Bytes in use now."""
    return _status("VmRSS")


def peak() -> int | None:
    """Most bytes that were in use, since the process began or since `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> int | None:
    """Start a new peak from what is in use, and return that; None where that is not allowed."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return held()


def _status(name: str) -> int | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return None
