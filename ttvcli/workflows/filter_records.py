"""From what was measured to verdicts: lines of the manifest, and the report of a run.

Both are functions of the sources and their states alone, never of when or in how many runs these
were made: that is what makes a resumed run equal an uninterrupted one. States are read one at a
time; only what is compared between videos is held for all of them.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ttvcli.artifacts.schema import header
from ttvcli.core.filters.filter import Candidate, Copy, Finding
from ttvcli.core.filters.harmful import CATEGORIES
from ttvcli.workflows.filter_job import Job
from ttvcli.workflows.filter_state import State, key_of, read_state, thumbnail_path
from ttvcli.workflows.video_sources import Source, clean, path_from

Record = dict[str, Any]


class Verdicts:
    """Judges all sources of a job; `records()` yields the lines of the manifest in their order."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.counts: Counter[str] = Counter()  # videos by verdict
        self.reasons: Counter[str] = Counter()  # videos by reason for dropping them
        self.flags: Counter[str] = Counter()
        self.unchecked: Counter[str] = Counter()  # videos by harm that nothing looked for
        self.failed: list[dict[str, Any]] = []
        self.copies: dict[str, tuple[str, Copy]] = {}  # name -> filter that found it, and the copy

    def records(self) -> Iterator[Record]:
        """Judge every source."""
        self.copies = self._compare()
        for source in self.job.sources.videos:
            key = key_of(source)
            state = read_state(self.job.config.out, key)
            yield self._record(source, key, state or {})
        for source in self.job.sources.dropped:
            self.counts["left_out"] += 1
            yield {**clean(source.record), "path": self._path(source)}

    def _compare(self) -> dict[str, tuple[str, Copy]]:
        """Run the second stage: each comparison sees what the ones before it kept."""
        found: dict[str, tuple[str, Copy]] = {}
        comparing = [entry for entry in self.job.filters if entry.compare is not None]
        if self.job.config.only_metrics or not comparing:
            return found
        kept = [*self._candidates([entry.name for entry in comparing])]
        for entry in comparing:
            assert entry.compare is not None
            seen = [
                Candidate(name, sha256, records.get(entry.name), quality)
                for name, sha256, records, quality in kept
                if name not in found
            ]
            for copy in entry.compare(seen, self.job.limits(entry)):
                found.setdefault(copy.name, (entry.name, copy))
        return found

    def _candidates(self, names: list[str]) -> Iterator[tuple[str, str, Record, tuple[float, ...]]]:
        for source in self.job.sources.videos:
            state = read_state(self.job.config.out, key_of(source))
            if state is None or "failed" in state:
                continue
            if any(finding.drop for finding in self._findings(state)):
                continue
            records = {name: state["records"][name] for name in names if name in state["records"]}
            yield source.name, state["sha256"], records, _quality(state)

    def _findings(self, state: State) -> list[Finding]:
        if self.job.config.only_metrics:
            return []
        metrics = state["metrics"]
        return [
            found
            for entry in self.job.filters
            for found in entry.findings(metrics, self.job.limits(entry))
        ]

    def _record(self, source: Source, key: str, state: State) -> Record:
        about = {
            "id": clean(source.record.get("id", key)),
            "path": self._path(source),
            "source": source.name,
            "sha256": state.get("sha256"),
            **state.get("info", {}),
        }
        if "failed" in state or "metrics" not in state:
            judged = self._unreadable(source, state.get("failed", {"reason": "crashed"}))
        else:
            judged = self._judged(source, key, state)
        own = about | judged
        return own | {k: clean(v) for k, v in source.record.items() if k not in own}

    def _unreadable(self, source: Source, failed: dict[str, str]) -> Record:
        finding = Finding(failed["reason"], failed.get("detail", ""))
        self.failed.append({"item": source.name, **failed})
        self.counts["unreadable"] += 1
        self.reasons[finding.code] += 1
        verdict = {"keep": False, "verdict": "unreadable", "reasons": [str(finding)], "flags": []}
        return {**verdict, "metrics": {}}

    def _judged(self, source: Source, key: str, state: State) -> Record:
        findings = self._findings(state)
        copy = self.copies.get(source.name)
        if copy is not None:
            text = f"{copy[1].text} as {copy[1].of}".strip()
            findings.append(Finding(copy[0], text, True, copy[0]))
        dropped = [found for found in findings if found.drop]
        flags = [found for found in findings if not found.drop]
        verdict = "unjudged" if self.job.config.only_metrics else "drop" if dropped else "keep"
        self.counts[verdict] += 1
        self.reasons.update({found.code for found in dropped})
        self.flags.update({found.code for found in flags})
        chosen = {entry.name for entry in self.job.filters}
        hidden = {entry.name for entry in self.job.filters if not entry.shown}
        if any(found.filter in hidden for found in dropped):  # no copy of it is kept here
            thumbnail_path(self.job.config.out, key).unlink(missing_ok=True)
        harm = state["metrics"].get("harmful", {}) if "harmful" in chosen else {}
        self.unchecked.update(harm.get("unchecked", CATEGORIES))
        record: Record = {
            "keep": not dropped,
            "verdict": verdict,
            "reasons": [str(found) for found in dropped],
            "flags": [str(found) for found in flags],
            "metrics": {k: v for k, v in state["metrics"].items() if k in chosen and v},
        }
        return record if copy is None else record | {"duplicate_of": copy[1].of}

    def _path(self, source: Source) -> str:
        """The source as seen from the manifest."""
        return path_from(self.job.config.out, source.path)


def _quality(state: State) -> tuple[float, ...]:
    """What makes one copy of a video better than another: its pixels, its bits, its length."""
    info = state["info"]
    bits = state["metrics"].get("bitrate", {}).get("as_h264") or 0.0
    return (float(info["width"] * info["height"]), float(bits), float(info["duration"]))


def make_report(job: Job, verdicts: Verdicts) -> Record:
    """Return the content of `report.json`."""
    counts = verdicts.counts
    return {
        **header("report", job.settings()),
        "videos": len(job.sources.videos),
        "kept": counts["keep"] + counts["unjudged"],
        "dropped": counts["drop"],
        "unreadable": counts["unreadable"],
        "left_out_by_manifest": job.sources.left_out,
        "listed_again": job.listed_again,
        "dropped_by_reason": dict(sorted(verdicts.reasons.items())),
        "flagged": dict(sorted(verdicts.flags.items())),
        "harm_unchecked": {n: verdicts.unchecked[n] for n in CATEGORIES if verdicts.unchecked[n]},
        "skipped": verdicts.failed,
    }
