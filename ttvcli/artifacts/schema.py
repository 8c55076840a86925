"""The header that every artifact carries: kind, schema version, producer, settings, origin.

A reader compares the header with what it needs and refuses a mismatch, so that no step ever works
on data made with other settings. The header of a folder lives in `ttv.json`; single files hold it
in their own metadata.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import ttvcli
from ttvcli.artifacts.atomic import remove_leftovers, write_json
from ttvcli.errors import ArtifactError, UsageError

SCHEMA_VERSION = 1
HEADER_NAME = "ttv.json"

KINDS = {
    "clips": "folder of captioned videos with a manifest",
    "model": "model folder",
    "filtered": "folder with the verdicts on videos in a manifest",
    "latents": "folder of VAE latents with a manifest",
    "embeddings": "folder of text embeddings with a manifest",
    "checkpoint": "training checkpoint",
    "run": "training run",
    "sampling": "state of an unfinished sampling run",
    "video": "generated video with its sidecar",
    "report": "measurements of a model",
    "export": "files in the format of another program",
}

Header = dict[str, Any]
_NAMED = 5  # settings that an error names


def producer() -> str:
    """Return the name and version that go into every artifact, such as "ttv 0.1.0"."""
    return f"ttv {ttvcli.__version__}"


def plain(value: Any) -> Any:
    """Turn settings (dataclasses, paths, tuples, enums) into what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Path):
        return value.as_posix()
    return value


def settings_hash(settings: Any) -> str:
    """Return 16 hex digits that change when any setting changes, whatever the order of keys."""
    text = json.dumps(plain(settings), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def header(kind: str, settings: Any, made_from: Mapping[str, Any] | None = None) -> Header:
    """Build a header; `made_from` maps the name of each input to its hash or id."""
    if kind not in KINDS:
        raise ValueError(f"unknown artifact kind {kind!r}; known: {', '.join(KINDS)}")
    return {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "producer": producer(),
        "settings": plain(settings),
        "settings_hash": settings_hash(settings),
        "made_from": plain(made_from or {}),
    }


def check_header(
    found: Mapping[str, Any],
    *,
    kind: str,
    where: str | Path,
    settings_hash: str | None = None,
    made_from: Mapping[str, Any] | None = None,
) -> None:
    """Raise ArtifactError unless a header is of this kind, readable here, and made as expected."""
    where = str(where)
    if found.get("kind") != kind:
        raise ArtifactError(
            f"expected {KINDS.get(kind, kind)}, found {found.get('kind', 'no artifact header')!r}",
            where=where,
            fix="check the path; `ttv info PATH` says what is there",
        )
    version = found.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ArtifactError(
            f"schema version {version} is newer than the {SCHEMA_VERSION} this ttv reads",
            where=f"{where} (written by {found.get('producer', 'an unknown version')})",
            fix="update ttv, or make the artifact again",
        )
    if settings_hash is not None and found.get("settings_hash") != settings_hash:
        raise ArtifactError(
            f"made with settings {found.get('settings_hash')}, expected {settings_hash}",
            where=where,
            fix="make it again, or give it the settings it was made with",
        )
    for name, value in (made_from or {}).items():
        was = found.get("made_from", {}).get(name)
        if was != value:
            raise ArtifactError(
                f"stale: made from {name} {was}, which is now {value}",
                where=where,
                fix="run the step that makes it again",
            )


def read_header(folder: str | Path) -> Header:
    """Read the header of a folder; ArtifactError if it has none or it is damaged."""
    path = Path(folder) / HEADER_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"no {HEADER_NAME}: not a folder that ttv wrote",
            where=str(folder),
            fix="check the path; `ttv info PATH` says what is there",
        ) from None
    except (ValueError, OSError) as error:
        raise ArtifactError(
            f"{HEADER_NAME} cannot be read: {error}", where=str(path), fix="make the folder again"
        ) from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{HEADER_NAME} is not an object", where=str(path))
    return found


def claim_folder(
    folder: str | Path, new: Header, *, force: bool = False
) -> Literal["new", "continued", "replaced"]:
    """Make `folder` the output of a step, or continue what an earlier run of the step began there.

    The same kind and settings continue. Others raise UsageError naming both hashes, unless `force`:
    then the header is replaced, and the caller has to make every item again. Temporary files that a
    killed run left behind are removed.
    """
    folder = Path(folder)
    path = folder / HEADER_NAME
    check_claim(folder, new, force=force)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    if not path.exists():
        write_json(path, new)
        return "new"
    if force:
        write_json(path, new)
        return "replaced"
    return "continued"


def check_claim(folder: str | Path, new: Header, *, force: bool = False) -> None:
    """Raise what `claim_folder` would, and touch nothing: for plans."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError("the output is a file, not a folder", where=str(folder))
    if force or not (folder / HEADER_NAME).exists():
        return
    old = read_header(folder)
    for key in ("kind", "settings_hash"):
        if old.get(key) != new[key]:
            name = key.replace("_hash", "")
            raise _made_otherwise(
                folder, old, new["settings"], f"{name} {old.get(key)}, now {new[key]}"
            )


def check_settings(folder: Path, settings: Mapping[str, Any], *, force: bool = False) -> None:
    """Raise UsageError if a folder was made with others than these settings, not all of them given.

    For plans, which do not read the weights whose hashes are among the settings.
    """
    if force or not (folder / HEADER_NAME).exists():
        return
    old = read_header(folder)
    made = old.get("settings")
    if isinstance(made, dict) and any(made.get(k) != v for k, v in plain(settings).items()):
        raise _made_otherwise(folder, old, {**made, **settings}, f"settings {old['settings_hash']}")


def _made_otherwise(folder: Path, old: Header, settings: Any, hashes: str) -> UsageError:
    names = _differing(old.get("settings"), plain(settings))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    named = f" ({', '.join(names[:_NAMED])}{more})" if names else ""
    return UsageError(
        f"the output was made with other settings{named}: {hashes}",
        where=str(folder),
        fix="choose another --out, or --force to make everything again",
    )


def _differing(old: Any, new: Any, name: str = "") -> list[str]:
    """Return the dotted names of the settings in which two differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        dot = f"{name}." if name else ""
        return [n for key in keys for n in _differing(old.get(key), new.get(key), f"{dot}{key}")]
    return [name] if old != new and name else []
