"""A side of a benchmark in a process of its own: a module that prints one line of JSON."""

import json
import os
import subprocess
import sys
from typing import Any


def answer(module: str, *arguments: str, **environment: str) -> dict[str, Any] | str:
    """What the module answers to these arguments, or why it does not."""
    paths = os.pathsep.join(path for path in sys.path if path)
    ran = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if "Error" in line]
        return (lines or ran.stderr.splitlines() or [f"exit code {ran.returncode}"])[-1][:300]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found
