"""Which files of a folder hold its weights: one file, or shards, with or without an index.

Public folders differ: `<stem>.safetensors`, `<stem>-00001-of-00002.safetensors` with
`<stem>.safetensors.index.json`, and either of them with a variant such as ".fp16" in the name. A
folder may hold several of these, not all of them whole.
"""

import json
import re
from pathlib import Path

from ttvcli.errors import ArtifactError

_SHARD = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.safetensors$")


def weight_files(folder: str | Path, stem: str | None = None) -> list[Path]:
    """Find the weight files of a folder.

    The plain ones come before variants, an index before a single file; what is not whole is passed
    over if something else is. `stem` restricts the search to names that begin `<stem>.` or
    `<stem>-`.

    Raises:
        ArtifactError: there are none, or files are missing of all there is; it says which.
    """
    folder = Path(folder)
    sets = [
        _indexed(path) for path in _sorted(folder, rf"{_stem(stem)}\.safetensors\.index.*\.json")
    ]
    plain = _sorted(folder, rf"{_stem(stem)}\.safetensors")
    sets += [[path] for path in plain if not _SHARD.match(path.name)]
    sets += _without_index([path for path in plain if _SHARD.match(path.name)])
    if not sets:
        raise ArtifactError(
            "there are no weights (*.safetensors)",
            where=str(folder),
            fix="check that the download is complete; .bin and .ckpt weights are not read",
        )
    for files in sets:
        if all(file.is_file() for file in files):
            return files
    missing = [file.name for file in sets[0] if not file.is_file()]
    raise ArtifactError(
        f"{len(missing)} of {len(sets[0])} weight files are missing: {', '.join(missing[:5])}",
        where=str(folder),
        fix="finish the download",
    )


def _stem(stem: str | None) -> str:
    return ".*" if stem is None else rf"{re.escape(stem)}(?:\.[^.]*)?(?:-\d{{5}}-of-\d{{5}})?"


def _sorted(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder by name; the shortest first, since variants have longer names."""
    names = re.compile(pattern)
    # Hidden files are unfinished ones, ours or an editor's.
    found = [
        path
        for path in folder.glob("*")
        if names.fullmatch(path.name) and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _indexed(index: Path) -> list[Path]:
    """The files that an index names."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [index.parent / name for name in sorted(set(names))]
    except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise ArtifactError(
            f"damaged file: not an index of weights ({error})",
            where=str(index),
            fix="make or download it again",
        ) from error


def _without_index(shards: list[Path]) -> list[list[Path]]:
    """Sets of shards as their names count them: "-00001-of-00003" belongs to three."""
    sets: dict[tuple[str, str], list[Path]] = {}
    for path in shards:
        match = _SHARD.match(path.name)
        assert match is not None
        head, _, count = match.groups()
        names = [f"{head}-{i:05d}-of-{count}.safetensors" for i in range(1, int(count) + 1)]
        sets[head, count] = [path.parent / name for name in names]
    return list(sets.values())
