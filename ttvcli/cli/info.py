"""`ttv info`: say what an artifact is."""

from typing import Annotated, Any

import typer

from ttvcli.cli.options import Json
from ttvcli.cli.output import Output, human_bytes
from ttvcli.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("info")
    def info(
        artifact: Annotated[
            str | None,
            typer.Argument(
                help="Any artifact: a file, a folder, or a built-in model.", show_default=False
            ),
        ] = None,
        model: Annotated[
            str | None, typer.Option("--model", "-m", help="The same, for the name of a model.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Say what a file or folder is, and what it was made from.

        \b
        Examples:
          ttv info latents/
          ttv info runs/latest --json
          ttv info --model tiny
          ttv info path/to/CogVideoX-5b
          ttv info ttt-video/step-5000

        Only headers are read: it answers at once, whatever the size.
        """
        from ttvcli.workflows.info import InfoConfig, run

        chosen = artifact or model
        if chosen is None or (artifact and model):
            raise UsageError("give one artifact, or one --model", fix="ttv info --help")
        result = run(InfoConfig(chosen))
        output = Output(json=json)
        if json:
            output.record(result.to_json())
        else:
            rows: list[tuple[str, Any]] = [("kind", result.kind), ("path", result.path)]
            output.table([*rows, *rows_of(result.facts)])


def rows_of(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested facts as rows, `a.b` for what is inside, counts of values as "v (n)"."""
    rows: list[tuple[str, Any]] = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            rows += rows_of(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], list | dict):
            rows += rows_of({str(i): entry for i, entry in enumerate(value, 1)}, f"{prefix}{name}.")
        elif isinstance(value, bool):
            rows.append((prefix + name, "yes" if value else "no"))
        elif isinstance(value, int) and name.startswith("bytes"):
            rows.append((prefix + name, f"{value:,} ({human_bytes(value)})"))
        elif isinstance(value, int):
            rows.append((prefix + name, f"{value:,}" if value >= 10_000 else value))
        elif isinstance(value, list):
            rows.append((prefix + name, ", ".join(map(str, value))))
        elif value is not None:
            rows.append((prefix + name, value))
    return rows
