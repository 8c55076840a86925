"""Refuse to begin what the disk cannot hold."""

import shutil
from pathlib import Path

from ttvcli.errors import WouldNotFit


def check_free_space(out: Path, needed: int, fix: str, *, spare: int = 0) -> None:
    """Check that `needed` bytes are free where `out` is or will be made, and `spare` more.

    Raises:
        WouldNotFit: they are not; `fix` says what else could be done.
    """
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed + spare > free:
        kept = f" and {spare:,} are to stay free" if spare else ""
        raise WouldNotFit(
            f"the output takes about {needed:,} bytes{kept}, {free:,} are free",
            where=str(folder),
            fix=fix,
        )
