"""Measure a model of the tiny world on combinations it never saw in training.

Each prompt names one object in a held-out combination of shape, colour and motion. A checker finds
the objects in the generated frames and says what they are. Beside the model's score stand two more:
the same check on rendered clips, and on rendered clips that went through the model's VAE, which is
the most that the model can reach.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ttvcli.artifacts.atomic import write_bytes, write_json
from ttvcli.artifacts.schema import header, settings_hash
from ttvcli.errors import UsageError, counted
from ttvcli.workflows.eval_partial import Partial, result_of, short
from ttvcli.workflows.output_file import check_output_file
from ttvcli.workflows.sample import SampleConfig
from ttvcli.workflows.sample_request import Request, check
from ttvcli.workflows.step import SILENT, Plan, Progress, check_seed

if TYPE_CHECKING:
    from ttvcli.core.world.checker import CheckResult

SCORES = ("colour", "shape", "motion", "background", "correct")
_SHEET_CLIPS, _SHEET_FRAMES = 16, 6


@dataclass(frozen=True, kw_only=True)
class EvalWorldConfig:
    """Settings of `ttv eval world`; None means "as the model prefers"."""

    out: Path = field(default=Path("world.json"), metadata={"help": "report to write"})
    contact_sheet: Path | None = field(
        default=None, metadata={"help": "also write a PNG: one row for each of the first clips"}
    )
    model: str = field(default="tiny", metadata={"help": "tiny, or a model folder"})
    prompts: int = field(default=128, metadata={"help": "number of held-out prompts"})
    batch: int = field(default=16, metadata={"help": "videos denoised together"})
    steps: int | None = field(default=None, metadata={"help": "denoising steps"})
    guidance: float | None = field(default=None, metadata={"help": "guidance scale"})
    sampler: str | None = field(default=None, metadata={"help": "name of the sampler"})
    seed: int = field(default=42, metadata={"help": "seed of prompts and noise"})
    force: bool = field(default=False, metadata={"help": "replace a report of other settings"})
    dtype: Literal["fp32", "bf16", "fp16"] = field(
        default="fp32", metadata={"help": "arithmetic of the networks"}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, mps"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 lets torch choose"})

    def __post_init__(self) -> None:
        if self.prompts < 1 or self.batch < 1:
            raise UsageError(
                f"prompts and batch must be at least 1, got {self.prompts} and {self.batch}"
            )
        check_seed(self.seed)


@dataclass(frozen=True)
class EvalWorldResult:
    """The report and its main figures."""

    report: dict[str, Any]
    paths: list[Path]
    failed: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report without its list of clips."""
        return {key: value for key, value in self.report.items() if key != "clips"}


def requests(config: EvalWorldConfig) -> tuple[list[Request], list[dict[str, Any]]]:
    """One request for each prompt, and what each asks for.

    Raises:
        UsageError: the model does not know the tiny world.
    """
    from ttvcli.core.world.grammar import heldout_prompts

    made, expected = [], []
    for index, (text, asked) in enumerate(heldout_prompts(config.prompts, config.seed)):
        sample = SampleConfig(
            prompt=text,
            model=config.model,
            steps=config.steps,
            guidance=config.guidance,
            sampler=config.sampler,
            seed=config.seed + index,
            dtype=config.dtype,
            device=config.device,
            threads=config.threads,
        )
        made.append(check(sample))
        expected.append(asked)
    if made[0].about.get("world") != "tiny":
        raise UsageError(
            "this model was not trained on the tiny world",
            where=str(made[0].folder),
            fix="`ttv eval world` measures models trained on `ttv prep synth` clips",
        )
    return made, expected


def plan(config: EvalWorldConfig) -> Plan:
    """Say what would be measured."""
    made, _ = requests(config)
    is_done = _existing(config, _identity(config, made[0])) is not None
    chosen = made[0].config
    return Plan(
        command="eval world",
        items=[
            ("model", str(made[0].folder)),
            ("prompts", len(made)),
            ("sampler", f"{chosen.sampler}, {counted(chosen.steps or 0, 'step')}"),
            ("guidance", f"{chosen.guidance:g}"),
            ("first prompt", made[0].board.prompts[0]),
            ("out", f"{config.out}{' (is there already)' if is_done else ''}"),
        ],
    )


def run(config: EvalWorldConfig, progress: Progress = SILENT) -> EvalWorldResult:
    """Generate, check, and write the report; a killed run goes on after its last whole batch.

    Raises:
        UsageError: see `requests`; or the output is a report with other settings.
    """
    made, expected = requests(config)
    identity = _identity(config, made[0])
    report = _existing(config, identity)
    if report is not None:
        progress.note(f"{config.out} is there already, with these settings")
        return _result(config, report)
    with Partial(config.out, identity, config.contact_sheet) as partial:
        clips = _generated(config, made, expected, partial, progress)
        truth = _truth(config, made[0], partial, progress)
        report = {
            **header("report", identity, made[0].hashes),
            "protocol": "one object in a held-out combination of shape, colour and motion",
            "n": len(clips),
            "generated": _table([result_of(entry) for entry in clips]),
            "reconstructed_truth": _table([result_of(e["reconstructed"]) for e in truth]),
            "rendered_truth": _table([result_of(e["rendered"]) for e in truth]),
            "clips": clips,
        }
        write_json(config.out, report)
        partial.discard()
    for name in SCORES:
        progress.note(_line(name, report))
    return _result(config, report)


def _identity(config: EvalWorldConfig, request: Request) -> dict[str, Any]:
    """Everything that decides the figures; prompts and noise follow from `prompts` and `seed`."""
    of_all = request.identity()
    for name in ("texts", "negatives", "negative", "crf", "frames", "fps"):
        of_all.pop(name)
    return {
        **of_all,
        "step": "eval world",
        "prompts": config.prompts,
        "batch": config.batch,
        "seed": config.seed,
    }


def _existing(config: EvalWorldConfig, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The report that is there with these settings, or None."""
    check_output_file(config.out, ".json", "--out")
    if config.contact_sheet is not None:
        check_output_file(config.contact_sheet, ".png", "--contact-sheet")
    if not config.out.exists() or config.force:
        return None
    try:
        found = json.loads(config.out.read_text(encoding="utf-8"))
        old = found["settings_hash"] if found["kind"] == "report" else None
    except (ValueError, KeyError, TypeError):
        old = None
    if old != settings_hash(identity):
        raise UsageError(
            f"the output exists, made with settings {old or 'unknown'}, "
            f"now {settings_hash(identity)}",
            where=str(config.out),
            fix="choose another --out, or --force to replace it",
        )
    sheet = config.contact_sheet
    return found if sheet is None or sheet.exists() else None


def _result(config: EvalWorldConfig, report: dict[str, Any]) -> EvalWorldResult:
    paths = [path for path in (config.out, config.contact_sheet) if path is not None]
    return EvalWorldResult(json.loads(json.dumps(report)), paths)


def _generated(
    config: EvalWorldConfig,
    made: Sequence[Request],
    expected: Sequence[dict[str, Any]],
    partial: Partial,
    progress: Progress,
) -> list[dict[str, Any]]:
    """What the checker says of each request's video; they are denoised in batches."""
    from ttvcli.core.world.checker import check_clip
    from ttvcli.workflows.generate import decode_frames, generate_latents, load_vae

    clips = partial.entries("generated")
    wanted = min(_SHEET_CLIPS, len(made)) if config.contact_sheet is not None else 0
    if len(clips) < wanted:  # their frames were not kept
        clips = []
    del clips[len(clips) // config.batch * config.batch if len(clips) < len(made) else len(clips) :]
    rows: list[np.ndarray] = []
    vae = load_vae(made[0]) if len(clips) < len(made) else None
    for start in range(len(clips), len(made), config.batch):
        part = made[start : start + config.batch]
        progress.note(f"prompts {start + 1} to {start + len(part)} of {len(made)}")
        latents = generate_latents(part, progress)
        progress.start("checking", total=len(part), unit="clips")
        for request, single, asked in zip(part, latents, expected[start:], strict=False):
            frames = np.stack(list(decode_frames(request, single, SILENT, vae)))
            if config.contact_sheet is not None and len(clips) < wanted:
                rows.append(frames[np.linspace(0, len(frames) - 1, _SHEET_FRAMES).astype(int)])
                if len(rows) == wanted:
                    write_bytes(config.contact_sheet, _sheet(rows))
            about = {"prompt": request.board.prompts[0], "seed": request.config.seed}
            clips.append({**about, **short(check_clip(frames, asked))})
            partial.add("generated", len(clips) - 1, clips[-1])
            progress.advance()
        progress.finish()
    return clips


def _truth(
    config: EvalWorldConfig, request: Request, partial: Partial, progress: Progress
) -> list[dict[str, Any]]:
    """The same for rendered held-out clips, as they are and after the model's VAE."""
    from ttvcli.core.world.checker import check_clip
    from ttvcli.core.world.grammar import parse
    from ttvcli.core.world.render import render_clip
    from ttvcli.core.world.sampling import sample_scene
    from ttvcli.workflows.generate import load_vae, reconstruct

    entries = partial.entries("truth")
    vae = load_vae(request) if len(entries) < config.prompts else None
    total = config.prompts
    progress.start("reconstructing the truth", total=total, unit="clips", done=len(entries))
    for index in range(len(entries), config.prompts):
        rng = np.random.default_rng((config.seed, index))
        scene = sample_scene(rng, "heldout", objects=1, paths="fixed")
        asked = parse(scene.segments[0].caption)
        assert asked is not None  # captions of the world are in its grammar
        frames = render_clip(scene, request.height)
        entry = {
            "rendered": short(check_clip(frames, asked)),
            "reconstructed": short(check_clip(reconstruct(request, frames, vae), asked)),
        }
        entries.append(entry)
        partial.add("truth", index, entry)
        progress.advance()
    progress.finish()
    return entries


def _table(results: "Sequence[CheckResult]") -> dict[str, Any]:
    """Shares with the number of clips they are of and their 95 % Wilson intervals; means."""
    from ttvcli.core.world.checker import summarise

    table: dict[str, Any] = {}
    for name, value in summarise(results).items():
        if name in SCORES:
            n = sum(getattr(result, name) is not None for result in results)
            table[name] = {"share": value, "n": n, "interval": wilson(value, n)}
        else:
            table[name] = value
    return table


def wilson(share: float, n: int, z: float = 1.96) -> list[float]:
    """95 % confidence interval of a share out of n (Wilson, 1927)."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [max(0.0, middle - half), min(1.0, middle + half)]


def _line(name: str, report: dict[str, Any]) -> str:
    def cell(column: str) -> str:
        entry = report[column].get(name)
        return "-" if entry is None else f"{100 * entry['share']:.1f} %"

    return (
        f"{name:>10}: {cell('generated')} (rendered clips: {cell('rendered_truth')}, "
        f"through the VAE: {cell('reconstructed_truth')})"
    )


def _sheet(rows: Sequence[np.ndarray]) -> bytes:
    from ttvcli.core.video.contact_sheet import contact_sheet

    frames = [frame for row in rows for frame in row]
    times = list(np.linspace(0, 3, _SHEET_FRAMES)) * len(rows)
    return contact_sheet(frames, times, columns=2 * _SHEET_FRAMES, scale=1)
