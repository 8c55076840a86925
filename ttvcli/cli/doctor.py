"""`ttv doctor`: say whether this machine can run ttv."""

import typer

from ttvcli.cli.options import Json
from ttvcli.cli.output import Output
from ttvcli.cli.settings import ENVIRONMENT, OTHER_VARIABLES
from ttvcli.errors import ExitCode

MARKS = {"ok": "ok", "hint": "hint", "problem": "PROBLEM"}


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("doctor")
    def doctor(json: Json = False) -> None:
        """Check whether this machine can run ttv.

        Looks at Python, memory, disk, torch, the GPU, libraries and the built-in model.

        \b
        Examples:
          ttv doctor
          ttv doctor --json > report.json

        Exit code 0 if all that ttv needs is there, 1 if not; each problem comes with its fix.
        """
        from ttvcli.workflows.doctor import DoctorConfig, run

        result = run(DoctorConfig((*ENVIRONMENT, *OTHER_VARIABLES)))
        output = Output(json=json)
        if json:
            output.record(result.to_json())
        else:
            rows = []
            for check in result.checks:
                rows.append((check.name, f"{MARKS[check.state]:<7}  {check.value}"))
                if check.fix:
                    rows.append(("", f"{'':<7}  fix: {check.fix}"))
            output.table(rows)
        if not result.healthy:
            raise typer.Exit(int(ExitCode.FAILED))
