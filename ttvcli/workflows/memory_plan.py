"""How much memory a video will take and how long it will last, from headers alone.

The answer of `ttv sample --dry-run`, and what the run itself then keeps to.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts import model_folder
from ttvcli.core.memory.footprint import (
    Clip,
    TextEncoderSizes,
    text_flops,
    transformer_calls,
    transformer_flops,
)
from ttvcli.core.memory.plan import (
    Limits,
    MemoryPlan,
    NetworkBytes,
    Stage,
    plan_image,
    plan_text,
    plan_transformer,
    plan_vae,
)
from ttvcli.core.memory.vae_footprint import decode_flops
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.core.models.vae.tiles import Tiling
from ttvcli.errors import ArtifactError, UsageError, WouldNotFit

if TYPE_CHECKING:
    from ttvcli.workflows.sample import SampleConfig
    from ttvcli.workflows.sample_request import Request

ELEMENT = {"fp32": 4, "bf16": 2, "fp16": 2}
BLOCKS = {"transformer": "transformer_blocks.", "text_encoder": "encoder.block.", "vae": ""}
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
GIB = 2**30
# Where a device is not here to be measured: a card of the 24 GB class, in bf16.
ASSUMED_RATE = 80e12
# What the networks reach of the rate of one large matrix product, by (GPU, bytes of an element).
SHARE = {(False, 4): 0.8, (False, 2): 0.3, (True, 4): 0.6, (True, 2): 0.5}
SECONDS_PER_CALL = {False: 2e-5, True: 1e-5}


def parse_bytes(text: str) -> int:
    """A size such as "22GiB", "22G", "500 MB" or "1e9" in bytes.

    Raises:
        UsageError: it is none, or not above 0.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE]\d+)?)\s*([KMGT]?)(i?)(B?)\s*", text, re.IGNORECASE)
    try:
        number = float(found[1]) if found else 0.0
    except ValueError:
        number = 0.0
    if found is None or not number > 0:
        raise UsageError(
            f"--vram-limit must be a size of memory, got {text!r}", fix="--vram-limit 22GiB"
        )
    unit = found[2].upper()
    is_decimal = bool(found[4]) and not found[3]  # GB; GiB and G count in 1024
    return int(number * (1000 ** "_KMGT".index(unit or "_") if is_decimal else UNITS[unit]))


def plan_memory(request: "Request", videos: int = 1) -> MemoryPlan:
    """Where weights go and how passes are cut for so many videos at once; refuses nothing."""
    config = request.config
    limits = limits_of(config)
    fill = config.offload == "auto" or bool(config.vram_limit)
    size = ELEMENT[config.dtype]
    texts = {*request.board.prompts, *request.board.negatives}
    frames, _, height, width = request.latent_shape
    vae, vae_bytes = _vae(request), network_bytes(request.folder, "vae", size).total
    image = None
    if config.image is not None:
        picture = request.height, request.width
        image = plan_image(vae, vae_bytes, picture, size, limits.gpu, images=videos)
    return MemoryPlan(
        text=plan_text(
            _text_sizes(request.folder),
            network_bytes(request.folder, "text_encoder", size),
            len(texts),
            request.tokens,
            size,
            limits,
            config.offload,
            fill=fill,
        ),
        transformer=plan_transformer(
            _transformer(request),
            network_bytes(request.folder, "transformer", size),
            clip_of(request, videos),
            size,
            limits,
            config.offload,
            fill=fill,
        ),
        vae=plan_vae(
            vae,
            vae_bytes,
            (frames, height, width),
            size,
            limits.gpu,
            Tiling() if config.vae_tiling else None,
        ),
        limits=limits,
        image=image,
    )


def check_memory(request: "Request", videos: int = 1) -> MemoryPlan:
    """The plan; WouldNotFit, naming the one option that would make it fit, if nothing does."""
    plan = plan_memory(request, videos)
    if plan.fits:
        return plan
    stage = plan.largest
    where = "GPU memory" if plan.limits.gpu else "memory"
    if plan.peak <= plan.limits.device:
        stage, where = max(plan.stages, key=lambda s: s.host), "memory of the host"
        need, there = stage.host, plan.limits.host
    else:
        need, there = plan.peak, plan.limits.device
    raise WouldNotFit(
        f"the {stage.name} needs {need / GIB:.1f} GiB of {where}, "
        f"{there / GIB:.1f} GiB may be used",
        where=str(request.folder),
        fix=_remedy(request, videos),
    )


def _remedy(request: "Request", videos: int) -> str:
    """The first single option with which the request fits."""
    config = request.config
    tries: list[tuple[str, Request]] = []
    if config.offload not in ("auto", "disk"):
        tries.append(("--offload disk", _with(request, offload="disk")))
    if config.dtype == "fp32":
        tries.append(("--dtype bf16", _with(request, dtype="bf16")))
    if not config.vae_tiling:
        tries.append(("--set vae_tiling=true", _with(request, vae_tiling=True)))
    if not request.transformer.get("use_learned_positional_embeddings"):
        tries += _smaller(request)
    for option, other in tries:
        if plan_memory(other, videos).fits:
            return option
    need = plan_memory(_with(request, offload="auto"), videos).peak
    return f"--vram-limit {-(-need // GIB)}GiB, on a machine that has it"


def _smaller(request: "Request") -> "Iterator[tuple[str, Request]]":
    step = 8 * int(request.transformer.get("patch_size", 2))
    for share in (0.75, 0.5, 0.25):
        width, height = (
            max(step, int(side * share) // step * step) for side in (request.width, request.height)
        )
        size = f"{width}x{height}"
        yield f"--size {size}", replace(_with(request, size=size), width=width, height=height)


def _with(request: "Request", **changes: Any) -> "Request":
    return replace(request, config=replace(request.config, **changes))


def clip_of(request: "Request", videos: int = 1) -> Clip:
    """What the transformer is given at each step."""
    config = _transformer(request)
    frames, _, height, width = request.latent_shape
    return Clip(
        rows=videos * (1 if request.config.guidance == 1 else 2),
        segments=len(request.board.segments),
        text=request.tokens,
        frames=frames // (config.patch_size_t or 1),
        frame=(height // config.patch_size) * (width // config.patch_size),
    )


def limits_of(config: "SampleConfig") -> Limits:
    """What may be used: `--vram-limit`, else what device and machine have."""
    host = host_memory()
    limit = parse_bytes(config.vram_limit) if config.vram_limit else None
    gpu = config.device.startswith("cuda")
    if config.device == "auto" or (gpu and limit is None):
        gpu, there = _gpu_memory(config.device)
        limit = limit or there
    if gpu:
        return Limits(limit or 24 * GIB, host, gpu=True)
    return Limits(limit or host, host, gpu=False)


def host_memory() -> int:
    """Nine tenths of the machine's memory, or of the part that a container may use.

    Of all memory rather than of what is free, so that a plan, and with it the last bits of a
    video, does not change with what else is running.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in (
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ):
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total * 9 // 10


@cache
def _gpu_memory(name: str) -> tuple[bool, int | None]:
    """Whether the device of that name is a GPU, and nine tenths of its memory if it is here.

    The rest is for a display, and for what pieces of memory leave unused between them. As on the
    host, a plan does not depend on what else is running.
    """
    import torch

    from ttvcli.core.device import pick_device

    try:
        device = pick_device(name)
    except ValueError:
        return name.startswith("cuda"), None
    if device.type != "cuda":
        return False, None
    return True, torch.cuda.get_device_properties(device).total_memory * 9 // 10


def network_bytes(folder: Path, component: str, size: int) -> NetworkBytes:
    """Bytes of a component's weights with elements of that size, from the headers of its files."""
    prefix = BLOCKS[component]
    outside = 0
    blocks: dict[int, int] = {}
    for name, info in model_folder.open_weights(folder, component).infos.items():
        number = name.removeprefix(prefix).partition(".")[0]
        if prefix and name.startswith(prefix) and number.isdigit():
            blocks[int(number)] = blocks.get(int(number), 0) + info.elements * size
        elif not name.endswith("embed_tokens.weight"):  # stored twice in some T5 folders
            outside += info.elements * size
    return NetworkBytes(outside, tuple(blocks[number] for number in sorted(blocks)))


def estimate(request: "Request", plan: MemoryPlan) -> tuple[float, str]:
    """Seconds the video will take, and how that was found."""
    config, clip, transformer = request.config, clip_of(request), _transformer(request)
    frames, _, height, width = request.latent_shape
    steps = config.steps or 1
    texts = len({*request.board.prompts, *request.board.negatives})
    flops = steps * transformer_flops(transformer, clip)
    flops += text_flops(_text_sizes(request.folder), texts, request.tokens)
    flops += decode_flops(_vae(request), (frames, height, width))
    gpu = plan.limits.gpu
    rate, source = _rate(config.device, config.dtype, config.threads)
    rate *= SHARE[gpu, ELEMENT[config.dtype]]
    calls = steps * transformer_calls(transformer, clip, plan.transformer.tile)
    seconds = flops / rate + calls * SECONDS_PER_CALL[gpu]
    return seconds, f"{flops / 1e12:.3g} TFLOP at {rate / 1e12:.2g} TFLOP/s ({source})"


@cache
def _rate(device: str, dtype: str, threads: int) -> tuple[float, str]:
    """Operations a second of a large matrix product here, or an assumption."""
    import time

    import torch

    from ttvcli.core.device import DTYPES, pick_device

    try:
        there = pick_device(device)
    except ValueError:
        return ASSUMED_RATE, f"assumed: there is no {device} here"
    width = 1024 if there.type == "cpu" else 8192
    if threads:
        torch.set_num_threads(threads)
    a = torch.ones(width, width, device=there, dtype=DTYPES[dtype])
    times = []
    for _ in range(3):
        began = time.perf_counter()
        float((a @ a)[0, 0])
        times.append(time.perf_counter() - began)
    return 2 * width**3 / min(times), "from the speed of a matrix product here"


def memory_items(
    request: "Request", plan: MemoryPlan
) -> tuple[list[tuple[str, str]], dict[str, int], float]:
    """For `--dry-run`: how it will be run, bytes by class, and seconds."""
    seconds, source = estimate(request, plan)
    items = [(f"run {stage.name}", describe(stage)) for stage in plan.stages]
    items.append(("time from", source))
    sizes = {
        f"{name} on disk": sum(
            path.stat().st_size for path in model_folder.component_files(request.folder, name)
        )
        for name in BLOCKS
    }
    for stage in plan.stages:
        sizes[f"{stage.name} weights"] = stage.weights
        if stage.host:
            sizes[f"{stage.name} weights in host memory"] = stage.host
        sizes[f"{stage.name} activations"] = stage.activations
        if stage.caches:
            sizes[f"{stage.name} caches"] = stage.caches
    sizes |= {"libraries": plan.runtime, "peak": plan.peak, "may be used": plan.limits.device}
    return items, sizes, seconds


def describe(stage: Stage) -> str:
    """Where a stage's weights go and how its passes are cut, in words."""
    if stage.offload == "none":
        text = "all weights resident"
    else:
        place = {"cpu": "in host memory", "disk": "on disk"}[stage.offload]
        text = f"{stage.resident} of {stage.blocks} blocks resident, the others {place}"
    if stage.name != "transformer":
        return text
    if stage.tile:
        return f"{text}; in tiles of {stage.tile} tokens, guidance in two passes"
    return f"{text}; whole passes, guidance in one"


def _transformer(request: "Request") -> CogVideoXConfig:
    return _config(CogVideoXConfig, request, "transformer", request.transformer)


def _vae(request: "Request") -> VAEConfig:
    return _config(VAEConfig, request, "vae", request.vae)


def _config(kind: Any, request: "Request", component: str, values: dict[str, Any]) -> Any:
    try:
        return kind.from_dict(values)
    except (ValueError, TypeError) as error:
        raise ArtifactError(str(error), where=str(request.folder / component)) from error


def _text_sizes(folder: Path) -> TextEncoderSizes:
    values = model_folder.read_config(folder, "text_encoder")
    try:
        return TextEncoderSizes(
            **{name: int(values[name]) for name in TextEncoderSizes.__dataclass_fields__}
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"its sizes cannot be read: {error}", where=str(folder / "text_encoder")
        ) from error
