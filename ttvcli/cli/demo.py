"""`ttv demo`: the whole pipeline in about a minute."""

from typing import Annotated

import typer

from ttvcli.cli.options import Force, Model, Out, Seed, Steps, Threads
from ttvcli.cli.run_step import step_command

Prompt = Annotated[
    str | None, typer.Argument(help="What the trained model draws, in words of the tiny world.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @step_command(app, "demo")
    def demo(
        prompt: Prompt = None,
        out: Out = None,
        model: Model = None,
        steps: Steps = None,
        seed: Seed = None,
        threads: Threads = None,
        force: Force = None,
    ) -> None:
        """Run the whole pipeline on a tiny world: render, encode, train, sample, check.

        Takes about a minute on two CPU cores and downloads nothing. Training is killed half-way
        and resumed. Prints where each step's result is. A demo that was stopped goes on, and
        another prompt in the same folder draws with the model that was trained there.

        \b
        Examples:
          ttv demo
          ttv demo "a blue star bounces" --out demo/ --json
        """
