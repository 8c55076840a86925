"""What `prep filter` is asked to do, checked before any video is opened."""

import os
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any

from ttvcli import catalog
from ttvcli.core.filters.filter import Filter
from ttvcli.errors import UsageError, nearest
from ttvcli.workflows.filter_state import key_of
from ttvcli.workflows.output_file import check_output_file
from ttvcli.workflows.process_pool import machine_workers
from ttvcli.workflows.video_sources import Sources, check_apart, find_sources

# Counts up when the lines of the manifest change for the same measurements.
_RULES = 1
MODELS_VARIABLE = "TTV_HARM_MODELS"  # folders, with the separator of PATH between them

ALL_FILTERS: dict[str, Filter] = {name: catalog.get("filter", name) for name in catalog.FILTERS}
# One group of settings for each filter of the catalog, so that `--set blur.min=-30` is checked.
_Limits: Any = make_dataclass(
    "_Limits",
    [(name, item.limits, field(default_factory=item.limits)) for name, item in ALL_FILTERS.items()],
    kw_only=True,
    frozen=True,
)


@dataclass(frozen=True, kw_only=True)
class FilterConfig(_Limits):
    """Settings of `ttv prep filter`; the field defaults are the defaults of the command."""

    source: str = field(metadata={"help": "folder of videos, a video, a manifest, or - for stdin"})
    out: Path = field(metadata={"help": "folder for the manifest with the verdicts"})
    include: tuple[str, ...] = field(
        default=(), metadata={"help": "filters to run besides the default ones"}
    )
    exclude: tuple[str, ...] = field(default=(), metadata={"help": "filters not to run"})
    only_metrics: bool = field(
        default=False, metadata={"help": "measure, and judge nothing: every readable video is kept"}
    )
    rethreshold: bool = field(
        default=False, metadata={"help": "judge again by what was measured, without decoding"}
    )
    report: Path | None = field(default=None, metadata={"help": "HTML page to write"})
    thumbnails: bool = field(
        default=True, metadata={"help": "keep four small pictures a video for reports, about 8 kB"}
    )
    workers: int = field(default=0, metadata={"help": "processes; 0 takes one for each CPU core"})
    patience: float = field(
        default=120.0, metadata={"help": "seconds without a frame after which a decoder is stuck"}
    )
    limit: int = field(default=0, metadata={"help": "take only the first N videos; 0 takes all"})
    force: bool = field(default=False, metadata={"help": "measure everything again"})

    def __post_init__(self) -> None:
        for name in (*self.include, *self.exclude):
            if name not in ALL_FILTERS:
                raise ValueError(f"there is no filter {name!r}: {nearest(name, ALL_FILTERS)}")
        both = set(self.include) & set(self.exclude)
        if both:
            raise ValueError(f"both with and without {', '.join(sorted(both))}")
        if self.workers < 0 or self.limit < 0 or self.patience <= 0:
            values = f"{self.workers}, {self.limit}, {self.patience}"
            raise ValueError(f"workers, limit and patience must be positive, got {values}")
        if self.rethreshold and (self.only_metrics or self.force):
            raise ValueError("rethreshold goes neither with only_metrics nor with force")


@dataclass(frozen=True)
class Job:
    """A checked config."""

    config: FilterConfig
    sources: Sources
    filters: tuple[Filter, ...]
    models: tuple[Path, ...]
    workers: int
    listed_again: int = 0  # lines of a manifest that name a video for a second time

    def limits(self, entry: Filter) -> Any:
        """The thresholds of a filter."""
        return getattr(self.config, entry.name)

    def settings(self) -> dict[str, Any]:
        """What the verdicts depend on; paths, workers and pictures do not belong to it."""
        judged = {entry.name: asdict(self.limits(entry)) for entry in self.filters}
        return {
            "step": "prep filter",
            "rules": _RULES,
            "filters": {entry.name: entry.version for entry in self.filters},
            "limits": None if self.config.only_metrics else judged,
        }


def prepare(config: FilterConfig) -> Job:
    """Find the sources and choose the filters.

    Raises:
        ArtifactError: no source.
        UsageError: a filter that cannot run here, an output among the sources, or a report that
            cannot be written.
    """
    if config.report is not None:
        check_output_file(config.report, ".html", "--report")
    sources = find_sources(config.source).first(config.limit)
    check_apart(config.source, config.out)
    once = {key_of(source): source for source in reversed(sources.videos)}
    videos = list(reversed(once.values()))
    again = len(sources.videos) - len(videos)
    sources = replace(sources, videos=videos)
    models = model_folders()
    workers = config.workers or machine_workers()
    return Job(config, sources, chosen(config, models), models, workers, again)


def model_folders() -> tuple[Path, ...]:
    """Folders of models of the user's own that this machine has."""
    named = os.environ.get(MODELS_VARIABLE, "")
    return tuple(Path(part) for part in named.split(os.pathsep) if part)


def chosen(config: FilterConfig, models: tuple[Path, ...]) -> tuple[Filter, ...]:
    """The filters to run, in the order of the catalog."""
    found = []
    for name, entry in ALL_FILTERS.items():
        if name in config.exclude or not (entry.default or name in config.include):
            continue
        entry = entry.equipped(models)
        why = entry.missing() if entry.missing is not None else ""
        if why:
            where = MODELS_VARIABLE if entry.with_models is not None and models else ""
            what = f"the filter {name!r} cannot run here: {why}"
            raise UsageError(what, where=where, fix=f"correct that, or leave {name} out of --with")
        found.append(entry)
    return tuple(found)


def limit_helps(entry: Filter) -> dict[str, str]:
    """What each threshold of a filter means."""
    return {item.name: item.metadata.get("help", "") for item in fields(entry.limits)}
