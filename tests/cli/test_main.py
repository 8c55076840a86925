"""The outermost layer: no arguments, version, broken pipes, signals."""

import os
import signal
import subprocess
import sys

import pytest
from helpers import run_ttv

import ttvcli


def test_without_arguments_the_help_goes_to_stderr_with_code_2() -> None:
    ran = run_ttv()
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Usage: ttv")
    group = run_ttv("prep")
    assert group.code == 2
    assert group.stderr.startswith("Usage: ttv prep")


def test_the_version_is_one_line() -> None:
    assert run_ttv("--version") == (0, f"ttv {ttvcli.__version__}\n", "")


def test_help_is_a_result_and_shows_a_pipeline() -> None:
    ran = run_ttv("--help")
    assert (ran.code, ran.stderr) == (0, "")
    assert "ttv prep encode raw/ --out latents/\n" in ran.stdout
    assert run_ttv("-h").stdout == ran.stdout


def test_an_unknown_command_names_the_nearest() -> None:
    ran = run_ttv("doctr", "--json")
    assert ran.code == 2
    assert "doctor" in ran.json["error"]["what"]


def test_starting_as_a_module_is_the_same_program() -> None:
    ran = run_ttv("info", "no/such/thing", process=True)
    assert ran.code == 3
    assert ran.stderr.startswith("error: there is no such file or folder\n  where: no/such/thing\n")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ttvcli", "info", "--json", ttvcli.__path__[0] + "/nothing"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    assert process.wait(60) == 141
    process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_step_with_130_and_no_traceback(number: signal.Signals) -> None:
    # Standard input that never ends keeps the command waiting.
    code = (
        "import signal, sys\n"
        # A shell starts what runs in its background with SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from ttvcli.cli import main as m\n"
        "def wait(*a, **k):\n"
        "    print('ready', flush=True)\n"
        "    import time; time.sleep(60)\n"
        "m.build_app = lambda: wait\n"
        "sys.exit(m.main(['x']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.startswith("error: interrupted\n")
    assert "Traceback" not in stderr
