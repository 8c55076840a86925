'''From the options of a command to a finished step: the one path that all steps take.

A command file is a docstring, its options and one call:

    """`ttv trim`: cut clips to a length."""
    def register(app: typer.Typer) -> None:
        @app.command("trim")
        def trim(source: Annotated[Path, typer.Argument()], out: Out = None, json: Json = False,
                 quiet: Quiet = False, dry_run: DryRun = False, show_config: ShowConfig = False,
                 sets: Set = None, config: ConfigFile = None) -> None:
            """Cut clips to a length. (Then examples, after a line that holds only \\b.)"""
            execute("trim", {"source": source, "out": out}, json=json, quiet=quiet, sets=sets,
                    dry_run=dry_run, show_config=show_config, config_file=config)

plus its line in `COMMANDS` of `cli/main.py`. `flags` maps fields of `TrimConfig` in
`workflows/trim.py` (dotted for nested ones) to what was given on the command line; None is "not
given". Text from a flag is parsed by the type of the field, so an option may simply be a `str`.
'''

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from ttvcli.cli.output import Output
from ttvcli.cli.settings import resolve
from ttvcli.cli.settings_files import to_toml
from ttvcli.errors import ExitCode


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
            output.warn(f"skipped {item.get('item', '?')}: {reason}{detail}")
        if getattr(result, "table", None):
            output.table(result.table)
        output.paths(result.paths)
    if failed:
        output.note(f"{len(failed)} failed")
        raise typer.Exit(int(ExitCode.PARTIAL))
