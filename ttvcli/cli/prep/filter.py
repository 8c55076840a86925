"""`ttv prep filter`: videos to verdicts."""

from pathlib import Path
from typing import Annotated

import typer

from ttvcli.cli.options import Force, Limit, Out, Videos, Workers
from ttvcli.cli.run_step import step_command


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "filter", presets=("profile",))
    def filter(
        source: Videos = None,
        out: Out = None,
        include: Annotated[
            str | None, typer.Option("--with", help="Filters to run besides the default ones: a,b.")
        ] = None,
        exclude: Annotated[
            str | None, typer.Option("--without", help="Filters not to run: a,b.")
        ] = None,
        profile: Annotated[
            str | None,
            typer.Option("--profile", help="Preset of thresholds: strict, lenient or any-size."),
        ] = None,
        only_metrics: Annotated[
            bool | None,
            typer.Option("--only-metrics", help="Measure, and keep every readable video."),
        ] = None,
        rethreshold: Annotated[
            bool | None,
            typer.Option("--rethreshold", help="Judge again by what was measured; no decoding."),
        ] = None,
        report: Annotated[
            Path | None,
            typer.Option("--report", help="HTML page to write: distributions, what was dropped."),
        ] = None,
        workers: Workers = None,
        limit: Limit = None,
        force: Force = None,
    ) -> None:
        """Measure videos and say of each whether to keep it, and why not.

        Writes a manifest that the next steps read. No video is changed, moved or deleted. A video
        that cannot be decoded is listed with its reason, and the exit code is then 5. Run the same
        command again to continue after a stop; what is measured is not measured twice.

        \b
        Examples:
          ttv prep filter raw/ --out clean/
          ttv prep filter raw/ --out clean/ --report report.html --set filter.blur.min=-30
          ttv prep filter raw/ --out clean/ --only-metrics
          ttv prep filter raw/ --out clean/ --rethreshold --set size.min=360 --set motion.min=0.5
          ttv prep filter raw/ --out clean/ --profile strict --without cuts,bars --dry-run
        """
