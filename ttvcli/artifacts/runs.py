"""Training runs: folders `runs/<date>-<name>/`.

Each holds `ttv.json`, `config.toml`, `plan.json`, `metrics.jsonl` and `checkpoints/`.

`metrics.jsonl` holds one line a step and is the same for an interrupted and an uninterrupted run;
wall-clock times, which never are, go to `timing.jsonl`.
"""

import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import tomli_w

from ttvcli.artifacts.atomic import write_json, write_text
from ttvcli.artifacts.schema import (
    HEADER_NAME,
    claim_folder,
    header,
    plain,
    read_header,
    settings_hash,
)
from ttvcli.errors import ArtifactError, UsageError

RUNS = Path("runs")


def run_folder(out: Path | None, name: str, settings: Mapping[str, Any]) -> Path:
    """The folder of a run: `out`, or the day's folder of that name under `runs/`.

    The newest run of that name with these settings is taken whatever its day, so that the same
    command continues it after midnight.
    """
    if out is not None:
        return out
    today = RUNS / f"{datetime.date.today().isoformat()}-{name}"
    if today.exists():
        return today
    earlier = sorted(RUNS.glob(f"????-??-??-{name}"), reverse=True)
    return earlier[0] if earlier and _settings_of(earlier[0]) == plain(settings) else today


def _settings_of(folder: Path) -> Any:
    try:
        return read_header(folder)["settings"]["settings"]
    except (ArtifactError, KeyError, TypeError):
        return None


def open_run(
    folder: Path,
    *,
    settings: Mapping[str, Any],
    made_from: Mapping[str, Any],
    shown: Mapping[str, Any],
    plan: Mapping[str, Any],
    force: bool,
) -> Path:
    """Claim `folder` for a run with these settings, or reopen the run that has the same.

    Args:
        settings: what decides the result; its hash names the run.
        made_from: hashes of the inputs, checked when a run is reopened.
        shown: every setting, for `config.toml`.

    Raises:
        UsageError: the folder holds a run with other settings or inputs, and `force` is False.
    """
    new = header("run", {"settings": settings, "made_from": made_from}, made_from)
    if force and (folder / HEADER_NAME).exists():
        _clear(folder)
    state = claim_folder(folder, new, force=force)
    (folder / "checkpoints").mkdir(exist_ok=True)
    if state != "continued":
        write_text(folder / "config.toml", tomli_w.dumps(without_none(dict(shown))))
        write_json(folder / "plan.json", dict(plan))
    _point_latest(folder)
    return folder


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder whose run has other settings; inputs are compared by `open_run`.

    Raises:
        UsageError: naming the settings that differ and both hashes.
    """
    old, new = _settings_of(folder), plain(settings)
    if not isinstance(old, dict) or old == new:
        return
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    raise UsageError(
        f"the run was made with other settings ({', '.join(names)}): "
        f"{settings_hash(old)}, now {settings_hash(new)}",
        where=str(folder),
        fix="choose another --out, or --force to start over",
    )


def _clear(folder: Path) -> None:
    import shutil

    for name in ("checkpoints", "model", "samples"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("metrics.jsonl", "timing.jsonl"):
        (folder / name).unlink(missing_ok=True)


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    """Settings for TOML, which has no null: what was not given is left out."""
    return {
        key: without_none(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }


def _point_latest(folder: Path) -> None:
    """Make `runs/latest` a link to the run, when it lives under `runs/`."""
    if folder.resolve().parent != RUNS.resolve():
        return
    link = RUNS / "latest"
    if link.is_symlink() or not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)


def latest_run() -> Path:
    """The run that `runs/latest` points to.

    Raises:
        UsageError: there is none.
    """
    link = RUNS / "latest"
    if not link.exists():
        raise UsageError("there is no run yet", where=str(link), fix="start one with `ttv train`")
    return link.resolve()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All complete lines of `metrics.jsonl`; a torn last line is ignored."""
    return _read_lines(folder / "metrics.jsonl")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    try:
        return [json.loads(line) for line in lines[:-1] if line]
    except ValueError as error:
        raise ArtifactError(
            f"a line is not JSON: {error}", where=str(path), fix="--force starts the run over"
        ) from error


def last_metrics(folder: Path) -> dict[str, float]:
    """The newest line of `metrics.jsonl`, or nothing."""
    lines = read_metrics(folder)
    return lines[-1] if lines else {}


def keep_metrics_before(folder: Path, steps_done: int) -> None:
    """Drop the lines of steps that ran after the checkpoint a run goes on from."""
    for name in ("metrics.jsonl", "timing.jsonl"):
        kept = [line for line in _read_lines(folder / name) if line["step"] <= steps_done]
        write_text(folder / name, "".join(json.dumps(line) + "\n" for line in kept))


class MetricsLog:
    """Appends one line a step to `metrics.jsonl`, and the seconds it took to `timing.jsonl`."""

    def __init__(self, folder: Path) -> None:
        self._metrics = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._timing = (folder / "timing.jsonl").open("a", encoding="utf-8")

    def write(self, values: Mapping[str, float], seconds: float) -> None:
        """Write one step."""
        self._metrics.write(json.dumps(dict(values)) + "\n")
        self._metrics.flush()
        self._timing.write(
            json.dumps({"step": values["step"], "seconds": round(seconds, 4)}) + "\n"
        )
        self._timing.flush()

    def sync(self) -> None:
        """Put the lines on the disk: before a checkpoint, which must never be ahead of them."""
        for file in (self._metrics, self._timing):
            os.fsync(file.fileno())

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._metrics.close()
        self._timing.close()
