"""Named flags and config fields agree, and the same option is the same in every command."""

from collections import defaultdict
from importlib import import_module
from typing import Any

import pytest
import typer
from helpers import run_ttv

from ttvcli.cli import run_step
from ttvcli.cli.main import COMMANDS, build_app
from ttvcli.cli.run_step import config_name
from ttvcli.cli.settings import leaves

STEPS = [module for module, _ in COMMANDS if module not in ("info", "doctor")]


def all_commands() -> dict[str, Any]:
    """Return every command that does something, by its name."""
    root: Any = typer.main.get_command(build_app())
    found: dict[str, Any] = {}
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {key}": value for key, value in inner.items()} if inner else {}
        if not inner:
            found[name] = command
    return found


@pytest.mark.parametrize("module", STEPS)
def test_every_flag_sets_a_field_of_the_same_name(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        run_step, "execute", lambda step, flags, **rest: calls.append((step, flags))
    )
    ran = run_ttv(*module.replace("_", "-").split("."))
    assert ran.code == 0, ran.stderr
    ((step, flags),) = calls
    assert set(flags.values()) <= {None, ()}, "a flag that is not given must be None"
    config = getattr(import_module(f"ttvcli.workflows.{step}"), config_name(step))
    assert set(flags) <= {key for key, _ in leaves(config)}


def test_the_same_option_reads_the_same_in_every_command() -> None:
    # Options of one command alone may share a name with none of the common ones.
    common = ("--json", "--quiet", "--dry-run", "--show-config", "--set", "--config", "--seed")
    helps: dict[str, set[str]] = defaultdict(set)
    for command in all_commands().values():
        for parameter in command.params:
            for name in set(parameter.opts) & set(common):
                helps[name].add(f"{parameter.opts} {parameter.help}")
    assert {name for name, texts in helps.items() if len(texts) > 1} == set()
    assert set(helps) == set(common)


def test_every_command_has_examples_that_start_with_its_name() -> None:
    for name, command in all_commands().items():
        assert "Examples:" in command.help, name
        assert f"ttv {name}" in command.help.partition("Examples:")[2], name


@pytest.mark.parametrize("name", ["--json", "--dry-run", "--show-config", "--set", "--config"])
def test_every_step_takes_the_options_that_all_steps_have(name: str) -> None:
    for module in STEPS:
        command = all_commands()[module.replace("_", "-").replace(".", " ")]
        assert any(name in parameter.opts for parameter in command.params), module
