"""Refuse an output file that could not be written, before any work is done for it."""

from pathlib import Path
from tempfile import TemporaryFile

from ttvcli.errors import UsageError


def check_output_file(path: Path, suffix: str, flag: str) -> None:
    """Raise UsageError unless a file of this name and suffix can be written.

    Args:
        path: the file, which may exist; folders that are missing would be made.
        suffix: such as ".mp4".
        flag: the option that named it, for the message.
    """
    if path.suffix.lower() != suffix:
        raise UsageError(
            f"{flag} names a {suffix} file, got {path.name or str(path)!r}",
            where=str(path),
            fix=f"{flag} {path / f'out{suffix}' if path.is_dir() else path.with_suffix(suffix)}",
        )
    if path.is_dir():
        raise UsageError(f"{flag} is a folder", where=str(path), fix=f"{flag} {path / path.name}")
    folder = path.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UsageError(
            f"{flag} cannot be written: {folder} is a file, not a folder", where=str(path)
        )
    try:  # permissions alone do not tell: root may write anywhere, but not into /proc
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"{flag} cannot be written: {error.strerror}", where=str(folder), fix="another folder"
        ) from error
