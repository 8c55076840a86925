'''From the options of a command to a finished step: the one path that all steps take.

A command file is a docstring and its own options:

    """`ttv trim`: cut clips to a length."""
    def register(app: typer.Typer) -> None:
        @step_command(app, "trim")
        def trim(source: Annotated[Path, typer.Argument()], out: Out = None) -> None:
            """Cut clips to a length. (Then examples, after a line that holds only \\b.)"""

plus its line in `COMMANDS` of `cli/main.py`. Options are named after the fields of `TrimConfig` in
`workflows/trim.py`; None is "not given". Text from an option is parsed by the type of the field, so
an option may simply be a `str`.
'''

from collections.abc import Callable, Container, Mapping
from functools import wraps
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import typer
from typer.models import ArgumentInfo

from ttvcli.cli.options import ConfigFile, DryRun, Json, Quiet, Set, ShowConfig
from ttvcli.cli.output import Output, one_line
from ttvcli.cli.settings import resolve
from ttvcli.cli.settings_files import to_toml
from ttvcli.errors import ExitCode

# What every step takes behind its own options, in the order of the help: type and default.
_COMMON: dict[str, tuple[Any, Any]] = {
    "json": (Json, False),
    "quiet": (Quiet, False),
    "dry_run": (DryRun, False),
    "show_config": (ShowConfig, False),
    "sets": (Set, None),
    "config": (ConfigFile, None),
}


def step_command(
    app: typer.Typer, step: str, *, presets: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], None]:
    """Make a function the command of a step, named like it: its parameters are the options.

    The function itself is never called; its docstring is the help.

    Args:
        app: where the command goes.
        step: module in `ttvcli.workflows`.
        presets: the options that name a preset, and set no field.
    """

    def register(options: Callable[..., None]) -> None:
        @wraps(options)
        def command(**given: Any) -> None:
            common = {name: given.pop(name) for name in _COMMON}
            config_file = common.pop("config")
            chosen = {name: given.pop(name) for name in presets}
            execute(
                step,
                given,
                **common,
                config_file=config_file,
                presets=chosen,
                arguments=arguments,
            )

        own = signature(options)
        arguments = {name for name, at in own.parameters.items() if _is_argument(at)}
        added = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for name, (kind, default) in _COMMON.items()
        ]
        vars(command)["__signature__"] = own.replace(parameters=[*own.parameters.values(), *added])
        app.command()(command)

    return register


def _is_argument(parameter: Parameter) -> bool:
    """Tell whether a parameter is given by its place, and not by the name of an option."""
    return any(
        isinstance(info, ArgumentInfo) for info in getattr(parameter.annotation, "__metadata__", ())
    )


def execute(
    step: str,
    flags: Mapping[str, Any],
    *,
    json: bool = False,
    quiet: bool = False,
    dry_run: bool = False,
    show_config: bool = False,
    sets: list[str] | None = None,
    config_file: list[Path] | Path | None = None,
    presets: Mapping[str, str | None] | None = None,
    arguments: Container[str] = (),
) -> None:
    """Run the workflow `ttvcli.workflows.<step>` with settings merged from every source.

    Prints the merged settings, the plan or the result. Exits 5 if some items failed.
    """
    output = Output(json=json, quiet=quiet)
    module = import_module(f"ttvcli.workflows.{step}")
    files = [config_file] if isinstance(config_file, Path) else config_file or []
    resolved = resolve(
        getattr(module, config_name(step)),
        step,
        flags=flags,
        sets=sets or [],
        config_files=files,
        presets=presets,
        arguments=arguments,
    )
    if show_config:
        show_settings(output, resolved.config, step, resolved.origins)
        return
    if dry_run:
        output.plan(module.plan(resolved.config))
        return
    with output.progress() as progress:
        result = module.run(resolved.config, progress)
    report(output, result)


def config_name(step: str) -> str:
    """Return the name of a step's config class: "embed_text" -> "EmbedTextConfig"."""
    return "".join(word.capitalize() for word in step.split("_")) + "Config"


def show_settings(output: Output, config: Any, step: str, origins: Mapping[str, str]) -> None:
    """Print the merged settings as TOML, or with --json as an object of settings and origins."""
    if not output.json:
        output.text(to_toml(config, step, origins))
        return
    from ttvcli.artifacts.schema import plain

    output.record({"step": step, "settings": plain(config), "origins": dict(origins)})


def report(output: Output, result: Any) -> None:
    """Print a result, its table first if it has one; typer.Exit(5) if it lists failed items."""
    failed = list(result.failed)
    if output.json:
        output.record(result.to_json())
    else:
        for item in failed:
            detail = f" ({item['detail']})" if item.get("detail") else ""
            reason = item.get("reason", "unknown")
            output.warn(one_line(f"skipped {item.get('item', '?')}: {reason}{detail}"))
        if getattr(result, "table", None):
            output.table(result.table)
        output.paths(result.paths)
    if failed:
        output.note(f"{len(failed)} failed")
        raise typer.Exit(int(ExitCode.PARTIAL))
