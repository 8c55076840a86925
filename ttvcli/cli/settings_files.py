"""Settings files: find, read and flatten TOML presets and `--config` files, and write such a file.

A file may be flat or hold one table for each step (`[train]`, `[sample]`); tables of other steps
are skipped. Keys may be written with `-` or `_`. The `.json` beside a video is such a file too: it
holds the settings that make the video again.
"""

import json
import math
import pkgutil
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import ttvcli
from ttvcli.errors import UsageError, nearest


@dataclass(frozen=True)
class Given:
    """One value from one source; `text` if it was typed and has to be parsed."""

    key: str
    value: Any
    origin: str
    where: str
    text: bool = False


def step_names() -> list[str]:
    """Return the names of all steps, without importing any."""
    folder = Path(ttvcli.__file__).parent / "workflows"
    return [module.name for module in pkgutil.iter_modules([str(folder)]) if module.name != "step"]


def from_presets(
    presets: Mapping[str, str | None], step: str, known: Mapping[str, Any]
) -> Iterator[Given]:
    from ttvcli.artifacts.presets import PRESETS, preset_names

    for kind, name in presets.items():
        if name is None:
            continue
        path = PRESETS / kind / f"{name}.toml"
        if path.is_file():
            yield from from_file(path, step, known, origin=f"--{kind} {name}")
        else:
            raise UsageError(
                f"there is no {kind} preset {name!r}",
                where=f"--{kind} {name}",
                fix=nearest(name, preset_names(kind)),
            )


def from_file(
    path: Path, step: str, known: Mapping[str, Any], *, origin: str | None = None
) -> Iterator[Given]:
    text, table = _read_table(path)
    steps = {name.replace("_", "-") for name in step_names()} - {step.replace("_", "-")}
    groups = {key.partition(".")[0] for key in known}
    own: dict[str, Any] = {}
    flat: dict[str, Any] = {}
    others = []
    for key, value in table.items():
        is_step = isinstance(value, dict) and key not in groups
        if is_step and key.replace("_", "-") == step.replace("_", "-"):
            own = value
        elif is_step and key.replace("_", "-") in steps:
            others.append(key)
        else:
            flat[key] = value
    if others and not own and not flat and origin is None:
        raise UsageError(
            f"the file holds settings of {', '.join(others)}, none of {step}", where=str(path)
        )
    for source in (flat, own):
        for key, value in _flatten(source, known):
            line = _line_of(text, key)
            where = f"{path}, line {line}" if line else str(path)
            yield Given(key, value, origin or str(path), where)


def _flatten(
    table: Mapping[str, Any], known: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        key = prefix + name.replace("-", "_")
        if isinstance(value, dict) and key not in known:
            if not value:
                continue
            yield from _flatten(value, known, key + ".")
        else:
            yield key, value


def _read_table(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text and the content of a settings file."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            from ttvcli.artifacts.video import read_again

            return text, read_again(path)
        return text, tomllib.loads(text)
    except FileNotFoundError:
        raise UsageError("there is no such config file", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not valid TOML: {error}", where=str(path)) from None
    except OSError as error:
        raise UsageError(f"the config file cannot be read: {error}", where=str(path)) from None


def _line_of(text: str, key: str) -> int | None:
    """Return the line that sets a dotted key, by its last part: good enough to point at."""
    pattern = re.compile(rf"^\s*(\S+\.)?[\"']?{re.escape(key.rpartition('.')[2])}[\"']?\s*=")
    numbers = [n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line)]
    return numbers[0] if len(numbers) == 1 else None


def to_toml(config: Any, step: str, origins: Mapping[str, str] | None = None) -> str:
    """Return a config as TOML under the step's table, each value with its origin as a comment."""
    return "\n".join(_toml_table(config, step, "", origins or {})) + "\n"


def _toml_table(config: Any, table: str, prefix: str, origins: Mapping[str, str]) -> list[str]:
    lines = [f"[{table}]"]
    inner: list[str] = []
    for entry in fields(config):
        value = getattr(config, entry.name)
        key = prefix + entry.name
        if is_dataclass(value):
            inner += ["", *_toml_table(value, f"{table}.{entry.name}", key + ".", origins)]
        elif entry.init:
            lines.append(f"{entry.name} = {toml_value(value)}  # {origins.get(key, 'default')}")
    return lines + inner


def toml_value(value: Any) -> str:
    """Return a value as TOML; None, which TOML lacks, becomes "none"."""
    if isinstance(value, Enum):
        return toml_value(value.value)
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(entry) for entry in value) + "]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(str(k))} = {toml_value(v)}" for k, v in value.items())
        return f"{{{inner}}}"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
