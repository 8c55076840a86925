"""The TOML presets that travel in the wheel: architectures, stages, cards, training recipes."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from ttvcli.errors import UsageError

PRESETS = Path(__file__).resolve().parent.parent / "presets"


def preset_names(kind: str) -> list[str]:
    """Names of the presets of one kind: model, stage, gpu or train."""
    return sorted(path.stem for path in (PRESETS / kind).glob("*.toml"))


def load_preset(kind: str, name: str) -> dict[str, Any]:
    """The content of `presets/<kind>/<name>.toml`.

    Raises:
        UsageError: there is no such preset.
    """
    path = PRESETS / kind / f"{name}.toml"
    if not path.is_file():
        names = preset_names(kind)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"unknown {kind} preset {name!r}", fix=f"{hint}known: {', '.join(names) or 'none'}"
        )
    return tomllib.loads(path.read_text(encoding="utf-8"))
