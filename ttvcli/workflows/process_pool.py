"""Worker processes that may crash or hang: it costs the one item, never the run.

Each worker takes one item at a time over a pipe and answers with its result. A worker that dies is
replaced; one that gives no sign of life for too long is killed and replaced. When the process that
started them goes away, however it goes, they end too.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

Work = Callable[[Any, Callable[[Any], None]], Any]
_POLL = 1.0  # seconds
_BETWEEN_BEATS = 0.5  # seconds


@dataclass(frozen=True)
class Message:
    """What became of an item, or a sign of life while it is being worked on."""

    item: Any
    kind: Literal["beat", "done", "error", "crashed", "timeout"]
    value: Any = None  # what the work returned or reported, or the error it raised


def why_lost(message: Message, patience: float) -> str:
    """What to tell of an item whose worker crashed or was killed."""
    if message.kind == "timeout":
        return f"no frame for {patience:g} s"
    return f"the process that decoded it ended with code {message.value}"


class Beats:
    """Passes the number of frames on as a sign of life, but not every time."""

    def __init__(self, beat: Callable[[Any], None]) -> None:
        self.frames = 0
        self._beat = beat
        self._last = time.monotonic()

    def __call__(self, frames: int) -> None:
        """Tell how many frames were decoded so far."""
        self.frames = frames
        if frames % 16 == 0:
            self.alive()

    def alive(self) -> None:
        """Give a sign of life, if the last one was some time ago."""
        if time.monotonic() - self._last > _BETWEEN_BEATS:
            self._last = time.monotonic()
            self._beat(self.frames)


def machine_workers() -> int:
    """How many processes this machine can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Start processes that Ctrl-C, which goes to all processes of a terminal, does not end.

    What is blocked here stays blocked in them: they could ignore it only once they have started.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ProcessPool:
    """`workers` processes that apply `work(item, beat)`; a context manager.

    Args:
        work: a function of a module; `beat(value)` reports progress and proves life.
        workers: number of processes.
        patience: seconds without a sign of life after which a worker that has started is killed.
    """

    def __init__(self, work: Work, workers: int, patience: float) -> None:
        self.work = work
        self.size = workers
        self.patience = patience
        self._workers: list[_Worker] = []

    def __enter__(self) -> "ProcessPool":
        return self

    def __exit__(self, *unused: object) -> None:
        for worker in self._workers:
            worker.end()

    def map(self, items: Iterable[Any]) -> Iterator[Message]:
        """Yield the messages about all items, in the order in which they come."""
        waiting = iter(items)
        while True:
            self._hand_out(waiting)
            busy = [worker for worker in self._workers if worker.busy]
            if not busy:
                return
            ready = wait([worker.pipe for worker in busy], timeout=_POLL)
            for worker in busy:
                yield from self._hear(worker, worker.pipe in ready)

    def _hand_out(self, waiting: Iterator[Any]) -> None:
        idle = [worker for worker in self._workers if not worker.busy]
        for slot in range(self.size - len(self._workers) + len(idle)):
            try:
                item = next(waiting)
            except StopIteration:
                return
            if slot < len(idle):
                worker = idle[slot]
            else:
                worker = _Worker(self.work)
                self._workers.append(worker)
            worker.give(item)

    def _hear(self, worker: "_Worker", ready: bool) -> Iterator[Message]:
        item = worker.item
        if not ready:
            if worker.started and time.monotonic() - worker.heard > self.patience:
                yield self._lost(worker, item, "timeout")
            return
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            yield self._lost(worker, item, "crashed")
            return
        worker.heard = time.monotonic()
        if kind == "started":
            worker.started = True
            return
        worker.busy = kind == "beat"
        yield Message(item, kind, value)

    def _lost(self, worker: "_Worker", item: Any, kind: Literal["crashed", "timeout"]) -> Message:
        worker.end()
        self._workers.remove(worker)
        return Message(item, kind, worker.process.exitcode)


class _Worker:
    """One process, the pipe to it, and what it is working on."""

    def __init__(self, work: Work) -> None:
        # Threads of a progress display do not survive a fork: start afresh.
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        life, self._life = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_serve, args=(work, other, life, _here()), daemon=True
        )
        if sys.platform != "win32":  # once it has started, it lets interrupts through again
            resource_tracker.ensure_running()
        with interrupts_held(), _one_thread():
            self.process.start()
        other.close()
        life.close()
        self.started = False  # importing what it needs is no fault of an item
        self.busy = False
        self.item: Any = None
        self.heard = 0.0

    def give(self, item: Any) -> None:
        """Start it on an item."""
        self.item, self.busy, self.heard = item, True, time.monotonic()
        with suppress(BrokenPipeError):  # it died while idle: found when it is listened to
            self.pipe.send(item)

    def end(self) -> None:
        """Kill it: files are written so that this harms nothing."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self._life.close()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let what starts now calculate with one thread: there is a process for each core already."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when NumPy and PyTorch are imported
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _here() -> str:
    with suppress(OSError):  # it was deleted: absolute paths are good without it
        return str(Path.cwd())
    return ""


def _serve(work: Work, pipe: Connection, life: Connection, folder: str) -> None:
    if folder:  # a spawned process begins where this one has once begun
        os.chdir(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, args=(life,), daemon=True).start()
    with suppress(BrokenPipeError):
        pipe.send(("started", None))
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            message = ("done", work(item, lambda value: pipe.send(("beat", value))))
        except OSError as error:  # plain, because not every exception survives the pipe
            message = ("error", OSError(error.errno, error.strerror, error.filename))
        except Exception:
            message = ("error", RuntimeError(traceback.format_exc()))
        with suppress(BrokenPipeError):
            pipe.send(message)


def _end_with_parent(life: Connection) -> None:
    with suppress(EOFError, OSError):
        life.recv_bytes()  # nothing is ever sent: it returns when the other end is gone
    os._exit(1)
