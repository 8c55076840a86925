"""Settings of a step: merged by precedence, checked against its config dataclass, shown as TOML.

Precedence, lowest first: default of the dataclass, presets, `--config` files, `TTV_*` environment
(facts about the machine only), `--set`, named flags. Nested dataclasses are written `a.b = v`.
"""

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from ttvcli.cli.coerce import Mismatch, coerce, nested_type
from ttvcli.cli.settings_files import Given, from_file, from_presets
from ttvcli.errors import UsageError

# Facts about the machine, and only those, may come from the environment.
ENVIRONMENT = {
    "TTV_DEVICE": "device",
    "TTV_THREADS": "threads",
    "TTV_OFFLOAD": "offload",
    "TTV_VRAM_LIMIT": "vram_limit",
    "TTV_WORKERS": "workers",
}
OTHER_VARIABLES = {
    "TTV_DEBUG": "1 shows tracebacks",
    "TTV_TTT_BACKEND": "how TTT layers are computed: auto, scan, triton or reference",
    "TTV_HARM_MODELS": "folders of models for `prep filter --with harmful`, separated as in PATH",
}


@dataclass
class Resolved:
    """A finished config and where each of its values came from (dotted key -> origin)."""

    config: Any
    origins: dict[str, str] = field(default_factory=dict)


def resolve(
    config_type: type,
    step: str,
    *,
    flags: Mapping[str, Any] | None = None,
    sets: Iterable[str] = (),
    config_files: Iterable[Path] = (),
    presets: Mapping[str, str | None] | None = None,
    environ: Mapping[str, str] | None = None,
    arguments: Container[str] = (),
) -> Resolved:
    """Merge all sources into a `config_type`; UsageError for unknown keys and wrong types.

    `arguments` are the settings that the command takes without an option's name.
    """
    known = dict(leaves(config_type))
    given = [
        *from_presets(presets or {}, step, known),
        *(entry for path in config_files for entry in from_file(Path(path), step, known)),
        *_from_environment(os.environ if environ is None else environ, known),
        *(_from_set(assignment, step, known) for assignment in sets),
        *_from_flags(flags or {}),
    ]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for entry in given:
        values[entry.key] = _checked(entry, known)
        origins[entry.key] = entry.origin
    try:
        return Resolved(build(config_type, values), origins)
    except _Missing as error:
        option_or_place = "it behind the command" if error.key in arguments else error.option
        fix = f"give {option_or_place}, or --set {error.key}=..."
        raise UsageError(error.what, fix=fix) from None
    except UsageError as error:  # a config's check names the setting first
        where = {entry.key: entry.where for entry in given}.get(error.what.partition(" ")[0])
        raise UsageError(error.what, where=where or error.where, fix=error.fix) from error


def leaves(config_type: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the type of every setting, nested dataclasses opened up."""
    hints = get_type_hints(config_type)
    for entry in fields(config_type):
        if not entry.init:
            continue
        inner = nested_type(hints[entry.name])
        if inner is None:
            yield prefix + entry.name, hints[entry.name]
        else:
            yield from leaves(inner, f"{prefix}{entry.name}.")


def build(config_type: type, values: Mapping[str, Any], base: Any = None, prefix: str = "") -> Any:
    """Make a config from dotted values; what is not given comes from `base` or the defaults."""
    hints = get_type_hints(config_type)
    arguments = {}
    for entry in fields(config_type):
        key = prefix + entry.name
        if not entry.init:
            continue
        inner = nested_type(hints[entry.name])
        default = _default(entry) if base is None else getattr(base, entry.name)
        below = any(name.startswith(key + ".") for name in values)
        if inner is not None and (below or default is MISSING):
            start = None if default is MISSING or default is None else default
            arguments[entry.name] = build(inner, values, start, key + ".")
        elif key in values:
            arguments[entry.name] = values[key]
        elif default is MISSING:
            raise _Missing(key)
        else:
            arguments[entry.name] = default
    try:
        return config_type(**arguments)
    except ValueError as error:  # raised by the config's own check
        raise UsageError(str(error), where="settings", fix="--help tells what it takes") from error


class _Missing(UsageError):
    """A setting without a default that nobody gave."""

    def __init__(self, key: str) -> None:
        self.key, self.option = key, f"--{option(key)}"
        super().__init__(
            f"the setting {key!r} is missing", fix=f"give {self.option}, or --set {key}=..."
        )


def option(key: str) -> str:
    """Return the option that sets a key: "vram_limit" -> "vram-limit"."""
    return key.rpartition(".")[2].replace("_", "-")


def _default(entry: Any) -> Any:
    if entry.default_factory is not MISSING:
        return entry.default_factory()
    return entry.default


def _checked(entry: Given, known: Mapping[str, Any]) -> Any:
    """Return the typed value of one entry."""
    if entry.key not in known:
        raise _unknown(entry, known)
    try:
        return coerce(entry.value, known[entry.key], name=entry.key, text=entry.text)
    except Mismatch as mismatch:
        raise UsageError(
            f"{entry.key} expects {mismatch.expected}, got {entry.value!r}",
            where=entry.where,
            fix=mismatch.hint,
        ) from None


def _unknown(entry: Given, known: Mapping[str, Any]) -> UsageError:
    below = [key for key in known if key.startswith(entry.key + ".")]
    if below:
        return UsageError(
            f"{entry.key} is a group of settings, not one",
            where=entry.where,
            fix="it holds " + ", ".join(below),
        )
    last = {key.rpartition(".")[2]: key for key in known}
    close = get_close_matches(entry.key, list(known), n=2, cutoff=0.8)
    close += [last[name] for name in get_close_matches(entry.key.rpartition(".")[2], list(last), 2)]
    names = list(dict.fromkeys(close))[:3]
    hint = f"did you mean {' or '.join(names)}? " if names else ""
    return UsageError(
        f"there is no setting {entry.key!r}",
        where=entry.where,
        fix=f"{hint}--show-config lists all",
    )


def _from_environment(environ: Mapping[str, str], known: Mapping[str, Any]) -> Iterator[Given]:
    for variable, key in ENVIRONMENT.items():
        if environ.get(variable) and key in known:
            yield Given(key, environ[variable], variable, variable, text=True)


def _from_set(assignment: str, step: str, known: Mapping[str, Any]) -> Given:
    key, sign, value = assignment.partition("=")
    if not sign or not key.strip():
        raise UsageError(
            f"--set expects key=value, got {assignment!r}",
            fix="for example --set optimizer.lr=1e-4",
        )
    name = key.strip().replace("-", "_")
    if name not in known:  # as in a file, the name of the step may stand before it
        name = name.removeprefix(f"{step}.")
    return Given(name, value.strip(), "--set", f"--set {assignment}", text=True)


def _from_flags(flags: Mapping[str, Any]) -> Iterator[Given]:
    for key, value in flags.items():
        if value is None or (isinstance(value, list) and not value):
            continue
        label = f"--{option(key)}"
        yield Given(key, value, label, f"{label} {value}", text=isinstance(value, str))
