"""What gets installed: the metadata, and a wheel that holds all that ttv needs and nothing else."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest
from helpers import REPOSITORY, run_ttv
from packaging.requirements import Requirement
from packaging.version import Version

import ttvcli

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LARGEST_WHEEL = 20_000_000
PROBE = "ttvcli/builtin/probe/transformer/config.json"  # of a model put into the copy of the tree
NOT_PACKAGED = {"tests", "docs", "configs", "kernels", "build", "dist"}


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "ttvcli.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", ttvcli.__version__)
    assert run_ttv("--version").stdout == f"ttv {ttvcli.__version__}\n"
    files = [*REPOSITORY.glob("*.toml"), *(REPOSITORY / "ttvcli").rglob("*.py")]
    naming = [path for path in files if f'"{ttvcli.__version__}"' in path.read_text()]
    assert naming == [REPOSITORY / "ttvcli" / "__init__.py"]


def test_the_installed_command_is_the_one_of_this_tree() -> None:
    installed = distribution("ttv")
    (command,) = installed.entry_points.select(group="console_scripts", name="ttv")
    assert command.value == PROJECT["project"]["scripts"]["ttv"]
    assert callable(command.load())
    assert installed.metadata["Requires-Python"] == PROJECT["project"]["requires-python"]
    assert installed.metadata["License-Expression"] == "Apache-2.0"


def test_the_oldest_python_is_the_same_everywhere() -> None:
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert PROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert f"sys.version_info < ({oldest.replace('.', ', ')})" in (
        REPOSITORY / ".ci" / "run"
    ).read_text(encoding="utf-8")


def test_every_requirement_has_an_exact_version_in_the_constraints() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(name for extra in extras for name in extra)]
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        assert name[0].lower() in pinned, requirement


def test_no_dependency_needs_a_newer_one_than_ours_asks_for() -> None:
    ours = {r.name: r for r in map(Requirement, PROJECT["project"]["dependencies"])}
    for name in ours:
        for needed in map(Requirement, requires(name) or []):
            if needed.name not in ours or (needed.marker and not needed.marker.evaluate()):
                continue
            floors = {s.version for s in needed.specifier if s.operator == ">="}
            own = next(s.version for s in ours[needed.name].specifier if s.operator == ">=")
            assert all(Version(own) >= Version(floor) for floor in floors), f"{name}: {needed}"


def test_nothing_depends_on_packages_with_unfit_licences_or_windows() -> None:
    # AGPL; non-commercial; abandoned; OpenCV with a user interface
    refused = {"nudenet", "pyiqa", "decord", "opencv-python", "opencv-contrib-python"}
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(name for extra in extras for name in extra)]
    named = {Requirement(text).name.lower() for text in wanted}
    named |= {line.partition("==")[0].lower() for line in lines if "==" in line}
    assert len(named) > 30
    assert not named & refused


def test_presets_are_a_link_to_configs() -> None:
    link = REPOSITORY / "ttvcli" / "presets"
    assert link.is_symlink()
    assert link.readlink() == Path("..") / "configs"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tree, so that nothing is left behind in it."""
    root = tmp_path_factory.mktemp("wheel")
    leave_out = shutil.ignore_patterns(
        ".*", "build", "dist", "*.egg-info", "__pycache__", "runs", "work"
    )
    shutil.copytree(REPOSITORY, root / "tree", symlinks=True, ignore=leave_out)
    probe = root / "tree" / PROBE
    probe.parent.mkdir(parents=True)
    probe.write_text("{}")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(root / "out")]
    done = subprocess.run([*build, str(root / "tree")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (root / "out").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def packed(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.slow
def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= LARGEST_WHEEL


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_marks_them_typed(packed: set[str]) -> None:
    for root, package in ((REPOSITORY, "ttvcli"), (REPOSITORY / "kernels", "ttv_kernels")):
        modules = {path.relative_to(root).as_posix() for path in (root / package).rglob("*.py")}
        assert modules
        assert modules <= packed
    assert "ttvcli/py.typed" in packed


@pytest.mark.slow
def test_the_wheel_holds_presets_model_and_licence(packed: set[str]) -> None:
    presets = (REPOSITORY / "configs").rglob("*.toml")
    wanted = {f"ttvcli/presets/{p.relative_to(REPOSITORY / 'configs').as_posix()}" for p in presets}
    assert wanted
    builtin = (REPOSITORY / "ttvcli" / "builtin").rglob("*")
    wanted |= {path.relative_to(REPOSITORY).as_posix() for path in builtin if path.is_file()}
    assert wanted | {PROBE} <= packed
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in packed)


@pytest.mark.slow
def test_the_wheel_holds_nothing_else(packed: set[str]) -> None:
    tops = {name.partition("/")[0] for name in packed}
    assert not tops & NOT_PACKAGED
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ttvcli", "ttv_kernels"}
    assert not [name for name in packed if "__pycache__" in name or "/." in name]
