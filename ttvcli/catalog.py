"""The tables of everything that can be chosen by name: one line here adds one choice.

A table maps a name to "module:ATTR". Nothing is imported until `get` is called, so that `--help`
can list the choices without loading torch.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ttvcli.errors import UsageError, nearest

FAMILIES = {
    "cogvideox": "ttvcli.core.models.cogvideox:FAMILY",
}

SAMPLERS = {
    "ddim": "ttvcli.core.diffusion.samplers:ddim",
    "dpm++2m-sde": "ttvcli.core.diffusion.samplers:dpm_pp_2m_sde",
    "dpm++2m": "ttvcli.core.diffusion.samplers:dpm_pp_2m",
}

GUIDANCE = {
    "constant": "ttvcli.core.diffusion.guidance:constant",
    "ramp": "ttvcli.core.diffusion.guidance:ramp",
    "legacy": "ttvcli.core.diffusion.guidance:legacy",
}

SHOT_DETECTORS = {
    "scdet": "ttvcli.core.video.scene_change:SceneChange",
    "transnetv2": "ttvcli.core.video.transnet:TransNet",
    "none": "ttvcli.core.video.shots:NoDetector",
}

# In the order in which they are reported; the cheap ones first.
FILTERS = {
    "duration": "ttvcli.core.filters.duration:FILTER",
    "size": "ttvcli.core.filters.size:FILTER",
    "fps": "ttvcli.core.filters.fps:FILTER",
    "bitrate": "ttvcli.core.filters.bitrate:FILTER",
    "bars": "ttvcli.core.filters.bars:FILTER",
    "exposure": "ttvcli.core.filters.exposure:FILTER",
    "repeats": "ttvcli.core.filters.repeats:FILTER",
    "cuts": "ttvcli.core.filters.cuts:FILTER",
    "motion": "ttvcli.core.filters.motion:FILTER",
    "blur": "ttvcli.core.filters.blur:FILTER",
    "blocks": "ttvcli.core.filters.blocks:FILTER",
    "text": "ttvcli.core.filters.text:FILTER",
    "harmful": "ttvcli.core.filters.harm_filter:FILTER",
    "exact_duplicate": "ttvcli.core.filters.exact_duplicate:FILTER",
    "near_duplicate": "ttvcli.core.filters.near_duplicate:FILTER",
}

TABLES: dict[str, Mapping[str, str]] = {
    "family": FAMILIES,
    "sampler": SAMPLERS,
    "guidance": GUIDANCE,
    "shot detector": SHOT_DETECTORS,
    "filter": FILTERS,
}


def get(table: str | Mapping[str, str], name: str) -> Any:
    """Import and return the entry `name` of a table (the table itself, or its key in TABLES).

    Raises UsageError naming the nearest entries if there is no such name.
    """
    kind, entries = _find_table(table)
    if name not in entries:
        raise UsageError(f"there is no {kind} {name!r}", fix=nearest(name, entries))
    module_name, _, attribute = entries[name].partition(":")
    return getattr(import_module(module_name), attribute)


def _find_table(table: str | Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    if isinstance(table, str):
        return table, TABLES[table]
    kinds = (kind for kind, entries in TABLES.items() if entries is table)
    return next(kinds, "entry"), table
