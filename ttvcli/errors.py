"""What can go wrong for a user, and the exit code each kind ends with.

An error says three things: what is wrong, where, and the command or change that fixes it. Only the
command line prints them. `core` raises `ValueError` for bad arguments; everything else raises one
of these.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command."""

    DONE = 0  # finished, or nothing was left to do
    FAILED = 1  # the work itself failed
    USAGE = 2  # wrong option or setting; nothing was started
    BAD_INPUT = 3  # an input artifact is missing, corrupt or stale
    WOULD_NOT_FIT = 4  # not enough GPU memory, RAM or disk
    PARTIAL = 5  # finished, but some items failed
    INTERRUPTED = 130  # stopped by a signal; the same command continues


class TtvError(Exception):
    """An expected error: shown as `error:`, `where:` and `fix:` lines, never as a traceback."""

    code: ExitCode = ExitCode.FAILED

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def to_json(self) -> dict[str, str | int]:
        """Return the object that `--json` prints under the key "error"."""
        return {"what": self.what, "where": self.where, "fix": self.fix, "code": int(self.code)}


class WorkFailed(TtvError):
    """The command started and could not finish its work."""

    code = ExitCode.FAILED


class UsageError(TtvError):
    """An option or a setting is wrong; nothing was started."""

    code = ExitCode.USAGE


class ArtifactError(TtvError):
    """An input artifact is missing, corrupt, stale or of another version."""

    code = ExitCode.BAD_INPUT


class WouldNotFit(TtvError):
    """The work needs more memory or disk than there is; `fix` names the flag that makes it fit."""

    code = ExitCode.WOULD_NOT_FIT


class Interrupted(TtvError):
    """The work was stopped on request and can be continued."""

    code = ExitCode.INTERRUPTED


def counted(count: int, thing: str) -> str:
    """Return "1 clip" or "2 clips": a number and what it counts, as sentences need it."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known names, then all of them."""
    names = [str(entry) for entry in known]
    if not names:
        return "there is none to choose from"
    close = get_close_matches(name, names, n=2)
    every = "known: " + ", ".join(names)
    return f"did you mean {' or '.join(close)}? ({every})" if close else every
