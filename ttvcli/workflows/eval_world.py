"""Measure a model of the tiny world on combinations it never saw in training.

Each prompt names one object in a held-out combination of shape, colour and motion. A checker finds
the objects in the generated frames and says what they are. Beside the model's score stands its
ceiling: the same check on rendered clips that went through the model's VAE.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ttvcli.artifacts.atomic import write_bytes, write_json
from ttvcli.artifacts.schema import header, settings_hash
from ttvcli.errors import UsageError
from ttvcli.workflows.sample import SampleConfig
from ttvcli.workflows.sample_request import Request, check, model_hashes
from ttvcli.workflows.step import SILENT, Plan, Progress

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
    chosen = made[0].config
    return Plan(
        command="eval world",
        items=[
            ("model", str(made[0].folder)),
            ("prompts", len(made)),
            ("sampler", f"{chosen.sampler}, {chosen.steps} steps"),
            ("guidance", f"{chosen.guidance}"),
            ("first prompt", made[0].board.prompts[0]),
            ("out", str(config.out)),
        ],
    )


def run(config: EvalWorldConfig, progress: Progress = SILENT) -> EvalWorldResult:
    """Generate, check, and write the report."""
    from ttvcli.core.world.checker import check_clip, summarise

    made, expected = requests(config)
    clips: list[dict[str, Any]] = []
    rows: list[np.ndarray] = []
    results = []
    for frames, request, asked in zip(
        _generated(config, made, progress), made, expected, strict=True
    ):
        result = check_clip(frames, asked)
        results.append(result)
        clips.append(
            {
                "prompt": request.board.prompts[0],
                "seed": request.config.seed,
                **_short(result.to_json()),
            }
        )
        if len(rows) < _SHEET_CLIPS:
            rows.append(frames[np.linspace(0, len(frames) - 1, _SHEET_FRAMES).astype(int)])
    ceiling = [
        check_clip(frames, asked) for frames, asked in _reconstructed(config, made[0], progress)
    ]
    identity = {**made[0].identity(), "prompts": config.prompts, "seed": config.seed}
    report = {
        **header("report", identity, model_hashes(made[0].folder)),
        "protocol": "one object in a held-out combination of shape, colour and motion",
        "n": len(results),
        "settings_hash": settings_hash(identity),
        "generated": _table(summarise(results), len(results)),
        "reconstructed_truth": _table(summarise(ceiling), len(ceiling)),
        "clips": clips,
    }
    write_json(config.out, report)
    paths = [config.out]
    if config.contact_sheet is not None:
        write_bytes(config.contact_sheet, _sheet(rows))
        paths.append(config.contact_sheet)
    for name in SCORES:
        progress.note(_line(name, report))
    return EvalWorldResult(json.loads(json.dumps(report)), paths)


def _generated(
    config: EvalWorldConfig, made: Sequence[Request], progress: Progress
) -> Iterator[np.ndarray]:
    """Frames uint8 [T, H, W, 3] of every request, denoised in batches."""
    from ttvcli.workflows.generate import decode_frames, generate_latents

    for start in range(0, len(made), config.batch):
        part = made[start : start + config.batch]
        progress.note(f"prompts {start + 1} to {start + len(part)} of {len(made)}")
        latents = generate_latents(part, progress)
        for request, single in zip(part, latents, strict=True):
            yield np.stack(list(decode_frames(request, single, SILENT)))


def _reconstructed(
    config: EvalWorldConfig, request: Request, progress: Progress
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Rendered held-out clips after the model's VAE, and what their captions ask for."""
    import torch

    from ttvcli.core.device import DTYPES
    from ttvcli.core.world.grammar import parse
    from ttvcli.core.world.render import render_clip
    from ttvcli.core.world.sampling import sample_scene
    from ttvcli.workflows import components

    device = components.device_named(config.device)
    vae = components.load(request.folder, "vae", dtype=config.dtype, device=device)
    progress.start("reconstructing the truth", total=config.prompts, unit="clip")
    for index in range(config.prompts):
        rng = np.random.default_rng((config.seed, index))
        scene = sample_scene(rng, "heldout", objects=1)
        asked = parse(scene.segments[0].caption)
        assert asked is not None  # captions of the world are in its grammar
        frames = torch.from_numpy(render_clip(scene, request.height))
        with torch.inference_mode():
            pixels = frames.permute(3, 0, 1, 2)[None].to(device).float() / 127.5 - 1
            latents = vae.encode(pixels.to(DTYPES[config.dtype]))[0]  # type: ignore[operator]
            shown = vae.decode(latents)[0].float()  # type: ignore[operator]
            shown = (shown / 2 + 0.5).clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
        progress.advance()
        yield shown.permute(1, 2, 3, 0).numpy(), asked
    progress.finish()


def _short(result: dict[str, Any]) -> dict[str, Any]:
    """A clip's result without the tracks."""
    found = [{k: v for k, v in item.items() if k != "track"} for item in result["found"]]
    return {**result, "found": found}


def _table(shares: dict[str, float], n: int) -> dict[str, Any]:
    """Shares with their 95 % Wilson intervals, and the mean figures as they are."""
    return {
        name: {"share": value, "interval": wilson(value, n)} if name in SCORES else value
        for name, value in shares.items()
    }


def wilson(share: float, n: int, z: float = 1.96) -> list[float]:
    """95 % confidence interval of a share out of n (Wilson, 1927)."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [max(0.0, middle - half), min(1.0, middle + half)]


def _line(name: str, report: dict[str, Any]) -> str:
    def cell(column: str) -> str:
        entry = report[column].get(name)
        return "-" if entry is None else f"{100 * entry['share']:.1f} %"

    return f"{name:>10}: {cell('generated')} (VAE ceiling {cell('reconstructed_truth')})"


def _sheet(rows: Sequence[np.ndarray]) -> bytes:
    from ttvcli.core.video.contact_sheet import contact_sheet

    frames = [frame for row in rows for frame in row]
    times = list(np.linspace(0, 3, _SHEET_FRAMES)) * len(rows)
    return contact_sheet(frames, times, columns=2 * _SHEET_FRAMES, scale=1)
