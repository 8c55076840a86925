"""The rules of the tree: who may import whom, what start-up may load, how long code may get."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import REPOSITORY, run_ttv

SOURCES = sorted(
    path
    for root in ("ttvcli", "kernels/ttv_kernels")
    for path in (REPOSITORY / root).rglob("*.py")
    if "presets" not in path.parts
)
# package -> first-party packages that it may import (inside functions: also LATE).
ALLOWED = {
    "ttvcli.cli": {"ttvcli.cli", "ttvcli.catalog", "ttvcli.errors"},
    "ttvcli.workflows": {
        "ttvcli.workflows",
        "ttvcli.core",
        "ttvcli.artifacts",
        "ttvcli.catalog",
        "ttvcli.errors",
    },
    "ttvcli.artifacts": {"ttvcli.artifacts", "ttvcli.errors"},
    "ttvcli.core": {"ttvcli.core", "ttvcli.errors", "ttv_kernels"},
    "ttvcli.catalog": {"ttvcli.errors"},
    "ttvcli.errors": set(),
    "ttvcli.__main__": {"ttvcli.cli"},
    "ttv_kernels": {"ttv_kernels"},
}
LATE = {"ttvcli.cli": {"ttvcli.workflows", "ttvcli.artifacts"}}
# package -> third-party packages that its modules may import at their top.
THIRD_PARTY = {
    "ttvcli.cli": {"typer"},
    "ttvcli.artifacts": {"numpy", "safetensors", "tomli_w"},
    "ttvcli.catalog": set(),
    "ttvcli.errors": set(),
    "ttv_kernels": {"torch", "triton"},
}
HEAVY = ("torch", "triton", "numpy", "transformers", "diffusers", "PIL", "av", "rich.progress")


def package_of(module: str) -> str:
    """Return the package whose rule applies: "ttvcli.core.video.decode" -> "ttvcli.core"."""
    parts = module.split(".")
    return parts[0] if parts[0] != "ttvcli" else ".".join(parts[:2])


def module_of(path: Path) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    parts = parts[1:] if parts[0] == "kernels" else parts
    return ".".join(parts).removesuffix(".__init__")


def imports(tree: ast.AST, *, late: bool = False) -> Iterator[tuple[str, bool, int]]:
    """Yield (module, inside a function or for types only, line) of every import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, late, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", late, node.lineno
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            yield from imports(node, late=late or function or for_types)


def test_only_the_benchmark_knows_another_video_reader_than_pyav() -> None:
    readers = {"cv2", "torchcodec", "decord", "imageio", "moviepy", "ffmpeg", "torchvision"}
    found = {
        (module_of(path), name.partition(".")[0])
        for path in SOURCES
        for name, _, _ in imports(ast.parse(path.read_text()))
        if name.partition(".")[0] in readers
    }
    assert {module for module, _ in found} == {"ttvcli.workflows.bench_readers"}


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_go_one_way(path: Path) -> None:
    package = package_of(module_of(path))
    if package == "ttvcli":  # ttvcli/__init__.py, which imports nothing
        assert not list(imports(ast.parse(path.read_text())))
        return
    for name, late, line in imports(ast.parse(path.read_text())):
        where = f"{path.relative_to(REPOSITORY)}:{line} imports {name}"
        root = name.partition(".")[0]
        if root in ("ttvcli", "ttv_kernels"):
            allowed = ALLOWED[package] | (LATE.get(package, set()) if late else set())
            is_version = name in ("ttvcli", "ttvcli.__version__")
            assert is_version or package_of(name) in allowed, where
        # Kernels depend on nothing else, wherever the import stands.
        elif package in THIRD_PARTY and (not late or package == "ttv_kernels"):
            assert root in THIRD_PARTY[package] or root in sys.stdlib_module_names, where


@pytest.mark.parametrize("words", ["--help", "--version", "train --help", "prep encode --help"])
def test_help_loads_nothing_heavy(words: str) -> None:
    code = (
        "import sys\n"
        "from ttvcli.cli.main import main\n"
        f"assert main({words.split()!r}) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_name_kernels_stays_free_for_the_package_of_that_name(tmp_path: Path) -> None:
    # transformers probes for a package called kernels; a folder on the path would answer.
    code = (
        "import importlib.util, ttv_kernels\n"
        "spec = importlib.util.find_spec('kernels')\n"
        "print(spec is not None and spec.origin is None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_commands_of_the_help_stand_in_pipeline_order() -> None:
    listed = run_ttv("--help").stdout.partition("Commands:")[2].split("\n\n")[0]
    names = [line.split()[0] for line in listed.splitlines() if line.strip()]
    assert names == [
        "demo",
        "prep",
        "embed-text",
        "train",
        "sample",
        "eval",
        "bench",
        "export",
        "info",
        "doctor",
    ]


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_files_and_functions_keep_within_a_readable_length(path: Path) -> None:
    kernel = "ttv_kernels" in path.parts
    text = path.read_text()
    assert len(text.splitlines()) <= (500 if kernel else 400)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            # A kernel's parameters take a line each and are not what makes it long to read.
            first = node.body[0].lineno if kernel else node.lineno
            length = (node.end_lineno or node.lineno) - first + 1
            assert length <= (150 if kernel else 80), f"{node.name} in line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_every_file_is_named_for_what_it_holds(path: Path) -> None:
    assert path.stem not in {"utils", "common", "misc", "helpers"}
