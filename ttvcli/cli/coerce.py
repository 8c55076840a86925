"""Check a setting against the type its config declares, and turn typed text into that type."""

import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from ttvcli.errors import nearest

TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


@dataclass
class Mismatch(Exception):
    """A value is not of the declared type: `expected` completes "expects ..."."""

    expected: str
    hint: str = ""


def coerce(value: Any, kind: Any, *, name: str, text: bool = False) -> Any:
    """Return `value` as the type `kind`; with `text` it is a string that a person typed.

    Raises Mismatch. A field called `seed` also takes "random".
    """
    if name.rpartition(".")[2] == "seed" and value == "random":
        return secrets.randbelow(2**31)
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _union(value, kind, name, text)
    if origin is Literal:
        return _choice(value, get_args(kind))
    if origin in (tuple, list) or kind in (tuple, list):
        return _sequence(value, kind, name, text)
    if origin in (dict, Mapping) or kind is dict:
        return _table(value, kind, name)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(_choice(value, tuple(member.value for member in kind)))
    return _scalar(value, kind, text)


def nested_type(kind: Any) -> type | None:
    """Return the dataclass that a field holds (also as `X | None`), or None for a plain setting."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    found = [option for option in options if isinstance(option, type) and is_dataclass(option)]
    return found[0] if len(found) == 1 else None


def _union(value: Any, kind: Any, name: str, text: bool) -> Any:
    options = get_args(kind)
    if NoneType in options and (value is None or value == "none"):
        return None
    expected, hints = [], []
    # An exact type wins: int | str takes 3 as a number, and "abc" as text.
    for option in sorted(options, key=lambda option: option in (str, Path)):
        if option is NoneType:
            expected.append("none")
            continue
        try:
            return coerce(value, option, name=name, text=text)
        except Mismatch as mismatch:
            expected.append(mismatch.expected)
            hints.append(mismatch.hint)
    words = " or ".join(sorted(expected, key=lambda words: words == "none"))
    raise Mismatch(words, "".join(hints) if len(hints) == 1 else "")


def _choice(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if value == choice or (isinstance(value, str) and value == str(choice)):
            return choice
    raise Mismatch(
        "one of " + ", ".join(str(choice) for choice in choices),
        nearest(str(value), [str(choice) for choice in choices]),
    )


def _sequence(value: Any, kind: Any, name: str, text: bool) -> Any:
    as_type = get_origin(kind) or kind
    inner = get_args(kind)
    fixed = as_type is tuple and inner and inner[-1] is not Ellipsis
    if isinstance(value, str):
        value, text = _split(value, pair=bool(fixed) and len(inner) == 2), True
    if not isinstance(value, list | tuple):
        raise Mismatch("a list, such as 1,2")
    if fixed and len(value) != len(inner):
        raise Mismatch(f"{len(inner)} values")
    kinds = inner if fixed else (inner[0] if inner else Any,) * len(value)
    parts = [
        coerce(part, part_kind, name=name, text=text and isinstance(part, str))
        for part, part_kind in zip(value, kinds, strict=True)
    ]
    return as_type(parts)


def _split(text: str, *, pair: bool) -> list[Any]:
    """Split "1,2", "[1, 2]" and, for two numbers, "720x480"."""
    if text.startswith("["):
        try:
            return list(tomllib.loads(f"value = {text}")["value"])
        except tomllib.TOMLDecodeError:
            raise Mismatch("a list, such as 1,2") from None
    if pair and "," not in text:
        text = text.lower().replace("x", ",").replace("×", ",")
    return [part.strip() for part in text.split(",") if part.strip()]


def _table(value: Any, kind: Any, name: str) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            value = None
    if not isinstance(value, dict):
        raise Mismatch("a table, such as {a = 1}")
    inner = get_args(kind)[1] if get_args(kind) else Any
    return {key: coerce(entry, inner, name=name) for key, entry in value.items()}


def _scalar(value: Any, kind: Any, text: bool) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        if text and str(value).lower() in TRUE + FALSE:
            return str(value).lower() in TRUE
        raise Mismatch("true or false")
    if kind is int:
        return _number(value, int, "a whole number", text)
    if kind is float:
        return _number(value, float, "a number", text)
    if kind is Path:
        if isinstance(value, Path) or (isinstance(value, str) and value):
            return Path(value)
        raise Mismatch("a path")
    if kind is str:
        if isinstance(value, str):
            return _unquoted(value) if text else value
        if isinstance(value, Path):
            return str(value)
        raise Mismatch("text in quotes")
    raise Mismatch(f"a {getattr(kind, '__name__', kind)}")


def _number(value: Any, kind: type, expected: str, text: bool) -> Any:
    if text and isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            raise Mismatch(expected) from None
    allowed = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise Mismatch(expected)
    return kind(value)


def _unquoted(text: str) -> str:
    """Take off the quotes of --set name='"a b"', which people carry over from TOML."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text
