"""Refuse to begin what the disk cannot hold."""

import shutil
from pathlib import Path

from ttvcli.errors import WouldNotFit


def check_free_space(out: Path, needed: int, fix: str) -> None:
    """Check that `needed` bytes are free where `out` is, or will be made.

    Raises:
        WouldNotFit: they are not; `fix` says what else could be done.
    """
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise WouldNotFit(
            f"the output takes about {needed:,} bytes, {free:,} are free",
            where=str(folder),
            fix=fix,
        )
