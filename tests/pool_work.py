"""What the worker processes of tests do: behave, crash, hang, fail, or watch their parent."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def work(item: Any, beat: Callable[[Any], None]) -> Any:
    """Do what the item says."""
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "hang":
        time.sleep(600)
    if item == "slow":
        for count in range(8):
            time.sleep(0.25)
            beat(count)
    if item == "full disk":
        raise OSError(28, "No space left on device", "x.json")
    if item == "bug":
        raise ZeroDivisionError
    if item == "held":
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    if item == "folder":
        return str(Path.cwd())
    if item == "threads":
        return os.environ.get("OMP_NUM_THREADS")
    if item == "pid":
        return os.getpid()
    return f"did {item}"
