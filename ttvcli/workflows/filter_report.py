"""`--report`: one HTML page on a filtered folder, made from the manifest and the small pictures.

For each reason a sheet of what was dropped; for each threshold the distribution of its metric, and
the videos on both sides of it, because that is where a threshold shows whether it is right. What is
held is bounded, but for one number a video and metric.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ttvcli.artifacts.html_page import HtmlPage
from ttvcli.artifacts.manifest import MANIFEST_NAME, iterate_manifest
from ttvcli.core.filters.filter import Filter, Rule, Thinned
from ttvcli.workflows.filter_job import Job, limit_helps
from ttvcli.workflows.filter_records import Verdicts
from ttvcli.workflows.filter_state import key_of, thumbnail_path

_BINS = 48
_SHOWN = 37  # videos of a reason, fewer; half as many at least
_NEAR = 4  # videos on each side of a threshold
_LISTED = 200  # unreadable files

Shown = tuple[str, str, str]  # key of the state, name, text


@dataclass
class _Metric:
    """All values of the metric of a rule, and the videos nearest to its limit on either side."""

    values: array = field(default_factory=lambda: array("d"))
    below: list[tuple[float, Shown]] = field(default_factory=list)
    above: list[tuple[float, Shown]] = field(default_factory=list)

    def add(self, value: float, limit: float | None, item: Shown) -> None:
        self.values.append(value)
        if limit is None:
            return
        side = self.below if value < limit else self.above
        side.append((value, item))
        side.sort(key=lambda entry: abs(entry[0] - limit))
        del side[_NEAR:]


def write_html_report(job: Job, verdicts: Verdicts, path: Path) -> None:
    """Write the page on what `job` has found."""
    samples: dict[str, Thinned[Shown]] = {}
    rules = [(entry, rule) for entry in job.filters for rule in entry.rules]
    metrics = {(entry.name, rule.metric, rule.limit): _Metric() for entry, rule in rules}
    others: dict[tuple[str, str], _Metric] = {}  # numbers that `judge` looks at, without a rule
    keys = {source.name: key_of(source) for source in job.sources.videos}
    for record in iterate_manifest(job.config.out / MANIFEST_NAME):
        key = keys.get(_name(record), "")
        for reason in record.get("reasons", []):
            code = str(reason).partition(":")[0]
            samples.setdefault(code, Thinned(_SHOWN)).add((key, _name(record), str(reason)))
        for entry, rule in rules:
            value = record.get("metrics", {}).get(entry.name, {}).get(rule.metric)
            if isinstance(value, int | float):
                text = f"{value:.4g}{rule.unit}"
                limit = getattr(job.limits(entry), rule.limit)
                found = metrics[entry.name, rule.metric, rule.limit]
                found.add(value, limit, (key, _name(record), text))
        for entry in job.filters:
            for metric, value in _judged(entry, record):
                limit = getattr(job.limits(entry), _limit_of(entry, metric), None)
                found = others.setdefault((entry.name, metric), _Metric())
                found.add(value, limit, (key, _name(record), f"{value:.4g}"))
    page = HtmlPage("ttv prep filter")
    _summary(page, job, verdicts)
    _dropped(page, job, verdicts, samples)
    _distributions(page, job, rules, metrics)
    _judged_distributions(page, job, others)
    _thresholds(page, job)
    page.write(path)


def _summary(page: HtmlPage, job: Job, verdicts: Verdicts) -> None:
    counts = verdicts.counts
    page.table(
        [
            ("videos", len(job.sources.videos)),
            ("kept", counts["keep"] + counts["unjudged"]),
            ("dropped", counts["drop"]),
            ("unreadable", counts["unreadable"]),
            ("left out by the manifest", job.sources.left_out),
        ]
    )
    if verdicts.unchecked:
        kinds = ", ".join(f"{name} {count}" for name, count in verdicts.unchecked.most_common())
        page.paragraph(f"Unchecked for harm, not safe, by number of videos: {kinds}")
    if verdicts.flags:
        page.heading("Flags of videos, most of them kept", 3)
        page.table(verdicts.flags.most_common())
    page.heading("Unreadable")
    page.table((item["item"], item["reason"], item["detail"]) for item in verdicts.failed[:_LISTED])
    if len(verdicts.failed) > _LISTED:
        page.paragraph(f"and {len(verdicts.failed) - _LISTED} more, see report.json", muted=True)


def _dropped(
    page: HtmlPage, job: Job, verdicts: Verdicts, samples: dict[str, Thinned[Shown]]
) -> None:
    hidden = _codes(entry for entry in job.filters if not entry.shown)
    unreadable = {item["reason"] for item in verdicts.failed}
    for code, count in verdicts.reasons.most_common():
        if code in unreadable:
            continue
        page.heading(f"Dropped: {code} ({count})")
        if code in hidden:
            page.paragraph("Pictures of these are not shown.", muted=True)
        sheet = samples[code].values if code in samples else []
        page.sheet(_figures(job, sheet, pictures=code not in hidden))


def _distributions(
    page: HtmlPage,
    job: Job,
    rules: list[tuple[Filter, Rule]],
    metrics: dict[tuple[str, str, str], _Metric],
) -> None:
    page.heading("Distributions and thresholds")
    for entry, rule in rules:
        unit = f",{rule.unit}" if rule.unit else ""
        page.heading(f"{entry.name}: {rule.metric}{unit}", 3)
        kind = rule.code if rule.drop else f"{rule.code} (a flag)"
        helps = limit_helps(entry)[rule.limit]
        page.paragraph(f"{entry.name}.{rule.limit}: {helps}. {rule.side} it: {kind}", muted=True)
        found = metrics[entry.name, rule.metric, rule.limit]
        _distribution(page, job, entry, rule.limit, found)


def _judged_distributions(page: HtmlPage, job: Job, others: dict[tuple[str, str], _Metric]) -> None:
    entries = {entry.name: entry for entry in job.filters}
    for name, metric in sorted(others):
        entry = entries[name]
        page.heading(f"{name}: {metric}", 3)
        limit = _limit_of(entry, metric)
        if limit:
            page.paragraph(f"{name}.{limit}: {limit_helps(entry)[limit]}", muted=True)
        _distribution(page, job, entry, limit, others[name, metric])


def _distribution(page: HtmlPage, job: Job, entry: Filter, name: str, found: _Metric) -> None:
    """The histogram of a metric with its threshold, and the videos on both sides of it."""
    if not found.values:
        page.paragraph("no values", muted=True)
        return
    limit = getattr(job.limits(entry), name, None)
    limits = [] if limit is None else [(name, float(limit))]
    page.histogram(*_binned(found.values, [value for _, value in limits]), limits)
    near = sorted([*found.below, *found.above], key=lambda item: item[0])
    if limit is not None and entry.shown:
        page.sheet(_figures(job, [item for _, item in near]))


def _thresholds(page: HtmlPage, job: Job) -> None:
    page.heading("All thresholds")
    page.table(
        (f"{entry.name}.{name}", "off" if value is None else value, limit_helps(entry)[name])
        for entry in job.filters
        for name, value in asdict(job.limits(entry)).items()
    )


def _judged(entry: Filter, record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a filter that no rule compares, where more than one of them decides."""
    ruled = {rule.metric for rule in entry.rules}
    if entry.judge is not None:
        for name, value in record.get("metrics", {}).get(entry.name, {}).items():
            if isinstance(value, int | float) and name not in ruled:
                yield name, value


def _limit_of(entry: Filter, metric: str) -> str:
    """The threshold that is named like a metric, or like its last part; empty if none is."""
    known = limit_helps(entry)
    return next((n for n in (metric, metric.rpartition("_")[2]) if n in known), "")


def _figures(
    job: Job, items: Iterable[Shown], *, pictures: bool = True
) -> Iterator[tuple[bytes | None, str]]:
    for key, name, text in items:
        data = None
        path = thumbnail_path(job.config.out, key)
        if pictures and key and path.is_file():
            data = path.read_bytes()
        yield data, f"{name} · {text}"


def _binned(values: array, limits: list[float]) -> tuple[list[int], float, float]:
    """Counts in equal bins from the first to the last percentile, limits always within."""
    ordered = sorted(values)
    last = len(ordered) - 1
    low = min([ordered[last // 100], *limits])
    high = max([ordered[last - last // 100], *limits])
    span = (high - low) or 1.0
    counts = [0] * _BINS
    for value in ordered:
        counts[min(max(int((value - low) / span * _BINS), 0), _BINS - 1)] += 1
    return counts, low, low + span


def _codes(filters: Iterable[Filter]) -> set[str]:
    return {rule.code for entry in filters for rule in entry.rules} | {
        entry.name for entry in filters
    }


def _name(record: dict[str, Any]) -> str:
    return str(record.get("source", record.get("path", "")))
