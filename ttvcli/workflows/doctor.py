"""Check the machine: what ttv needs, what it could use, and how to get what is missing."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import ttvcli
from ttvcli.artifacts import model_folder
from ttvcli.errors import TtvError, counted, nearest
from ttvcli.workflows.step import SILENT, Progress

GIB = 1024**3
LEAST_MEMORY = 3 * GIB  # a 3 s clip with the built-in model
LEAST_DISK = 1 * GIB
LIBRARIES = (
    *("numpy", "einops", "safetensors", "sentencepiece", "av", "PIL", "py3langid"),
    *("rich", "tomli_w"),
)
DISTRIBUTIONS = {"PIL": "pillow", "tomli_w": "tomli-w"}


@dataclass(frozen=True)
class DoctorConfig:
    """The machine is the input; `variables` are the TTV_ variables that mean something."""

    variables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One finding: "ok", a "hint" about what could be better, or a "problem" that stops ttv."""

    name: str
    value: str
    state: Literal["ok", "hint", "problem"] = "ok"
    fix: str = ""


@dataclass(frozen=True)
class DoctorResult:
    """All findings, in reading order."""

    checks: list[Check]

    @property
    def healthy(self) -> bool:
        """Whether everything that ttv needs is there."""
        return all(check.state != "problem" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        return {"healthy": self.healthy, "checks": [asdict(check) for check in self.checks]}


def run(config: DoctorConfig, progress: Progress = SILENT) -> DoctorResult:
    """Look at everything; a check that fails in an unforeseen way is a problem, never a crash."""
    groups: tuple[Callable[[], Iterator[Check]], ...] = (
        _python,
        _machine,
        _torch,
        _libraries,
        _model,
        lambda: _environment(config.variables),
    )
    checks: list[Check] = []
    for group in groups:
        try:
            checks.extend(group())
        except (OSError, RuntimeError, TtvError) as error:
            checks.append(Check(group.__name__.strip("_<>"), str(error), "problem"))
    return DoctorResult(checks)


def _python() -> Iterator[Check]:
    yield Check("ttv", f"{ttvcli.__version__} in {Path(ttvcli.__file__).parent}")
    yield Check("python", f"{platform.python_version()} ({sys.executable})")
    yield Check("platform", platform.platform())


def _machine() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cpu", f"{processor()}, {counted(cores or 1, 'usable core')}")
    threads = os.environ.get("TTV_THREADS") or os.environ.get("OMP_NUM_THREADS")
    yield Check(
        "threads", f"limited to {threads}" if threads else f"all of {counted(cores or 1, 'core')}"
    )
    memory = memory_bytes()
    if memory is None:
        yield Check("memory", "unknown")
    elif memory < LEAST_MEMORY:
        fix = "close other programs; a clip of 3 s takes up to 3 GiB"
        yield Check("memory", f"{memory / GIB:.1f} GiB available", "hint", fix)
    else:
        yield Check("memory", f"{memory / GIB:.1f} GiB available")
    for name, folder in (("disk here", Path.cwd()), ("disk for temporary files", _temporary())):
        free = shutil.disk_usage(folder).free
        fix = "" if free >= LEAST_DISK else "free some space"
        text = f"{free / GIB:.1f} GiB free in {folder}"
        yield Check(name, text, "hint" if fix else "ok", fix)
    yield _writable(_temporary())


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


def _writable(folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Check("temporary files", f"writable: {folder}")
    except OSError as error:
        return Check(
            "temporary files", str(error), "problem", "set TMPDIR to a folder you may write to"
        )


def _torch() -> Iterator[Check]:
    try:
        torch: Any = import_module("torch")
    except (ImportError, OSError) as error:
        yield Check("torch", f"cannot be imported: {error}", "problem", "pip install torch")
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if getattr(torch.version, "hip", None):
        build = f"ROCm {torch.version.hip}"
    threads = counted(torch.get_num_threads(), "thread")
    yield Check("torch", f"{torch.__version__}, {build} build, {threads}")
    yield from _devices(torch)


def _devices(torch: Any) -> Iterator[Check]:
    if not torch.cuda.is_available():
        built_for_gpu = torch.version.cuda is not None
        has_driver = shutil.which("nvidia-smi") is not None
        if built_for_gpu and has_driver:
            fix = "the driver is older than torch's CUDA: update it, or install a matching torch"
            yield Check("gpu", "not usable by torch", "hint", fix)
        elif has_driver:
            yield Check("gpu", "torch is a CPU build", "hint", "install torch with CUDA")
        elif torch.backends.mps.is_available():
            yield Check("gpu", "Apple (mps)")
        else:
            yield Check("gpu", "none; the built-in model needs none")
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        yield Check(
            f"gpu {index}",
            f"{facts.name}, compute {facts.major}.{facts.minor}, "
            f"{free / GIB:.1f} of {total / GIB:.1f} GiB free",
        )


def _libraries() -> Iterator[Check]:
    for name in LIBRARIES:
        distribution = DISTRIBUTIONS.get(name, name)
        try:
            module: Any = import_module(name)
            text = version(distribution)
        except (ImportError, OSError, PackageNotFoundError) as error:
            fix = f"pip install {distribution}"
            yield Check(distribution, f"cannot be imported: {error}", "problem", fix)
            continue
        if name == "av":
            ffmpeg = module.ffmpeg_version_info
            encoder = "libx264" in module.codecs_available
            text = f"{text} with FFmpeg {ffmpeg}, H.264 {'encoder' if encoder else 'absent'}"
            if not encoder:
                yield Check("av", text, "problem", "pip install --force-reinstall av")
                continue
        yield Check(distribution, text)
    try:
        yield Check("triton", version("triton"))
    except PackageNotFoundError:
        yield Check("triton", "absent; only the GPU kernels use it")


def _model() -> Iterator[Check]:
    fix = "install ttv again: the model is part of the package"
    names = model_folder.builtin_names()
    if not names:
        yield Check("built-in model", "absent", "problem", fix)
    for name in names:
        folder = model_folder.resolve_model(name)
        missing = [
            component
            for component in model_folder.COMPONENTS
            if not model_folder.has_component(folder, component)
        ]
        broken = model_folder.broken_components(folder)
        if missing or broken:
            text = f"damaged: {', '.join(dict.fromkeys(missing + broken))}"
            yield Check(f"model {name}", text, "problem", fix)
        else:
            sealed = "hashes match" if model_folder.read_about(folder).get("hashes") else "present"
            yield Check(f"model {name}", f"{sealed}, {folder}")


def _environment(known: tuple[str, ...]) -> Iterator[Check]:
    """List the TTV_ variables that are set, and point at those that mean nothing."""
    for name in sorted(name for name in os.environ if name.startswith("TTV_")):
        if name in known:
            yield Check(name, os.environ[name])
        else:
            yield Check(name, "set, but nothing reads it", "hint", nearest(name, known))


def processor() -> str:
    """The name of the CPU."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Return the memory this process may still use: of the machine, or of its container if less."""
    available = None
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    if available is None:
        with suppress(OSError, ValueError, AttributeError):
            available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # "max" means no limit
        limit = int((group / "memory.max").read_text())
        left = limit - int((group / "memory.current").read_text())
        available = left if available is None else min(available, left)
    return available
