"""Run the command line from a test."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

REPOSITORY = Path(__file__).resolve().parent.parent
_DYING = REPOSITORY / "tests" / "dying_decoder"
# Environment of a process in which some files are deadly; see `dying_decoder/sitecustomize.py`.
DYING = {"PYTHONPATH": os.pathsep.join(filter(None, [str(_DYING), os.environ.get("PYTHONPATH")]))}


def compile_elsewhere(launches: str, cases: list[tuple[int, dict[str, Any]]]) -> list[list[Any]]:
    """Compile kernels in a fresh process; see `compile_child.py`.

    `launches` is "module:function"; each case a compute capability and the function's keywords.
    Returns for each case the resources of each launch, as dicts.
    """
    child = REPOSITORY / "tests" / "compile_child.py"
    done = subprocess.run(
        [sys.executable, str(child), launches, json.dumps(cases)],
        capture_output=True,
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


class Ran(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        (line,) = self.stdout.splitlines()
        return json.loads(line)


def run_ttv(*words: str | Path, stdin: str = "", process: bool = False, **env: str) -> Ran:
    """Run `ttv` with these words and return (code, stdout, stderr).

    In this process, which is fast, unless `process` asks for a fresh interpreter. Keywords are
    environment variables.
    """
    arguments = [str(word) for word in words]
    if process:
        done = subprocess.run(
            [sys.executable, "-m", "ttvcli", *arguments],
            input=stdin.encode(),
            capture_output=True,
            env={**os.environ, **env},
            timeout=300,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
    from ttvcli.cli.main import main

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    typed = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    with (
        patch.dict(os.environ, env),
        patch("sys.stdin", typed),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = main(arguments)
    return Ran(code, *(_written(stream) for stream in (out, err)))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
