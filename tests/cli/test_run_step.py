"""The path of every step: settings, dry run, result, exit code; on a step made for the test."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
import typer
from helpers import Ran, run_ttv

from ttvcli.cli import main as main_module
from ttvcli.cli.options import Out, Seed
from ttvcli.cli.run_step import step_command
from ttvcli.errors import ArtifactError, Interrupted, WorkFailed, WouldNotFit
from ttvcli.workflows.step import Plan, Progress, StepResult

Behaviour = Callable[[], StepResult]


@dataclass(frozen=True)
class TrimConfig:
    source: str = "in"
    out: Path = Path("out.mp4")
    seed: int = 42
    exact: bool = field(default=False)


def register(app: typer.Typer) -> None:
    @step_command(app, "trim")
    def info(
        source: Annotated[str | None, typer.Argument()] = None,
        out: Out = None,
        seed: Seed = None,
    ) -> None:
        """Trim."""


@pytest.fixture
def trim(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run a step `trim` (registered in place of `info`) that ends as `behaviour` says."""

    def run(*words: str, behaviour: Behaviour | None = None, **options: Any) -> Ran:
        module = ModuleType("ttvcli.workflows.trim")

        def do(config: TrimConfig, progress: Progress) -> StepResult:
            progress.start("trimming", total=2, unit="clips")
            progress.advance(2)
            progress.warn("blurred")
            return behaviour() if behaviour else StepResult([config.out])

        vars(module).update(
            TrimConfig=TrimConfig,
            plan=lambda config: Plan("trim", [("clips", 2)], {"disk": 3 * 2**30}, 75.0),
            run=do,
        )
        monkeypatch.setitem(sys.modules, module.__name__, module)
        command = ModuleType("ttvcli.cli.info")
        vars(command).update(register=register)
        monkeypatch.setitem(sys.modules, command.__name__, command)
        monkeypatch.setattr(main_module, "COMMANDS", (("info", None), ("doctor", None)))
        return run_ttv("info", *words, **options)

    return run


def raising(error: BaseException) -> Behaviour:
    def behave() -> StepResult:
        raise error

    return behave


def test_the_path_is_the_only_thing_on_stdout(trim: Callable[..., Ran]) -> None:
    ran = trim("--out", "a.mp4")
    assert (ran.code, ran.stdout) == (0, "a.mp4\n")
    assert "trimming: 2 clips" in ran.stderr
    assert "warning: blurred" in ran.stderr


def test_quiet_says_nothing_on_stderr(trim: Callable[..., Ran]) -> None:
    assert trim("--quiet") == Ran(0, "out.mp4\n", "")


def test_json_prints_exactly_one_object(trim: Callable[..., Ran]) -> None:
    ran = trim("--json", "--out", "é.mp4")
    assert ran.json == {"paths": ["é.mp4"], "failed": []}


def test_failed_items_are_listed_and_end_with_5(trim: Callable[..., Ran]) -> None:
    failed = [{"item": "b.mp4", "reason": "empty"}]
    ran = trim(behaviour=lambda: StepResult([Path("a")], failed))
    assert (ran.code, ran.stdout) == (5, "a\n")
    assert "skipped b.mp4: empty\n" in ran.stderr
    assert trim("--json", behaviour=lambda: StepResult([], failed)).json["failed"] == failed


def test_a_failed_item_tells_the_detail_of_its_reason(trim: Callable[..., Ran]) -> None:
    failed = [{"item": "b.mp4", "reason": "too_short", "detail": "2.4 s"}]
    ran = trim(behaviour=lambda: StepResult([Path("a")], failed))
    assert "skipped b.mp4: too_short (2.4 s)\n" in ran.stderr


def test_a_dry_run_prints_the_plan_and_runs_nothing(trim: Callable[..., Ran]) -> None:
    ran = trim("--dry-run", behaviour=raising(AssertionError("ran")))
    assert ran.code == 0
    assert [line.split(maxsplit=1) for line in ran.stdout.splitlines()] == [
        ["plan", "trim"],
        ["clips", "2"],
        ["disk", "3.0 GiB"],
        ["time", "about 1:15"],
    ]
    plan = trim("--dry-run", "--json").json["plan"]
    assert plan["items"] == {"clips": 2}
    assert plan["bytes"] == {"disk": 3 * 2**30}


def test_show_config_round_trips_through_a_file(trim: Callable[..., Ran], tmp_path: Path) -> None:
    ran = trim("x", "--seed", "random", "--set", "exact=true", "--show-config")
    assert 'source = "x"  # --source' in ran.stdout
    assert "exact = true  # --set" in ran.stdout
    file = tmp_path / "c.toml"
    file.write_text(ran.stdout)
    again = trim("--config", str(file), "--show-config").stdout
    assert [line.partition("  #")[0] for line in again.splitlines()] == [
        line.partition("  #")[0] for line in ran.stdout.splitlines()
    ]
    shown = trim("--show-config", "--json").json
    assert shown["settings"]["seed"] == 42


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkFailed("loss is nan", where="step 3", fix="lower the lr"), 1),
        (ArtifactError("corrupt"), 3),
        (WouldNotFit("too large", fix="--offload cpu"), 4),
        (MemoryError(), 4),
        (OSError(28, "No space left on device", "/data/x"), 4),
        (PermissionError(13, "Permission denied", "/data/x"), 2),
        (Interrupted("stopped after step 3"), 130),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_kind_of_error_has_its_code_and_no_traceback(
    trim: Callable[..., Ran], error: BaseException, code: int
) -> None:
    ran = trim(behaviour=raising(error))
    assert (ran.code, ran.stdout) == (code, "")
    assert "error: " in ran.stderr
    assert "Traceback" not in ran.stderr
    told = trim("--json", behaviour=raising(error)).json["error"]
    assert set(told) == {"what", "where", "fix", "code"}
    assert told["code"] == code


def test_an_error_reads_what_where_fix(trim: Callable[..., Ran]) -> None:
    error = WorkFailed("loss is nan", where="step 3", fix="lower the lr")
    last = trim("--quiet", behaviour=raising(error)).stderr
    assert last == "error: loss is nan\n  where: step 3\n  fix:   lower the lr\n"


def test_a_bug_shows_its_traceback_and_the_version(trim: Callable[..., Ran]) -> None:
    ran = trim("--json", behaviour=raising(ZeroDivisionError("oops")))
    assert ran.code == 1
    assert "Traceback" in ran.stderr
    assert "this is a bug in ttv: ZeroDivisionError: oops" in ran.json["error"]["what"]
    assert ran.json["error"]["where"].startswith("ttv ")


def test_debug_shows_the_traceback_of_an_expected_error_too(trim: Callable[..., Ran]) -> None:
    ran = trim(behaviour=raising(ArtifactError("corrupt")), TTV_DEBUG="1")
    assert ran.code == 3
    assert "Traceback" in ran.stderr


def test_usage_errors_of_the_option_parser_follow_the_same_form(trim: Callable[..., Ran]) -> None:
    ran = trim("--sed", "3")
    assert ran.code == 2
    assert ran.stderr.startswith("error: No such option: --sed")
    assert "fix:   ttv info --help" in ran.stderr
    assert trim("--json", "--sed", "3").json["error"]["code"] == 2
    assert trim("--json", "--set", "sed=3").json["error"]["code"] == 2


def test_json_after_a_double_dash_is_not_the_option(trim: Callable[..., Ran]) -> None:
    ran = trim("--sed", "--", "--json")
    assert ran.stdout == ""
    json.dumps(ran.stderr)
