"""Sources decoded ahead of whoever encodes them, by worker processes of one thread each.

A pool gives streams of events. `ready()` names one that has something to take, so the encoder never
waits for a slow source while another has frames. A worker may run ahead of the encoder by a fixed
number of bytes, so memory does not grow with the length of a video or the number of sources.
"""

import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ttvcli.core.video.clip_stream import Broken, Frames
from ttvcli.errors import WorkFailed
from ttvcli.workflows.decode_worker import DecodeTask, Done, Task, read_event
from ttvcli.workflows.process_pool import interrupts_held
from ttvcli.workflows.shared_pixels import SharedPixels, shared_file

AHEAD_BYTES = 64 << 20  # of a source, and of finished ones; 49 frames in 720x480 have 51 MB
_MOST_AUTOMATIC = 32
_NVIDIA = Path("/dev/nvidiactl")
# Not by -m: what a module pickles while it is __main__ nobody else can read.
_COMMAND = [sys.executable, "-P", "-c", "from ttvcli.workflows import decode_worker as w; w.main()"]


class Stream(Protocol):
    """The events of one task."""

    index: int  # of the task

    def take(self) -> Any:
        """Return the next event, waiting for it; None after the last."""


class Decoder(Protocol):
    """What gives streams: a pool of processes, or this process itself; a context manager."""

    def prepare(self) -> float:
        """Wait until it could begin; return the CPU seconds of other processes that this took."""

    def ready(self) -> Stream | None:
        """Return a stream with something to take; None once all have been taken to their end."""

    def stream(self, index: int) -> Stream:
        """Return the stream of one task: for who takes them all, in the order of the tasks."""

    def __enter__(self) -> "Decoder": ...

    def __exit__(self, *unused: object) -> None: ...


def worker_count(*, on_gpu: bool) -> int:
    """Return how many processes this machine has cores for, if none is to wait for another.

    An encoder on the GPU leaves all cores but one to them, one on the CPU every second core.
    """
    there = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if there else os.cpu_count() or 1
    return min(max(cores - 1 if on_gpu else cores // 2, 1), _MOST_AUTOMATIC)


def on_gpu(device: str) -> bool:
    """Tell whether something on this device will most likely run on a GPU; asks no library."""
    return device.startswith("cuda") or (device == "auto" and _NVIDIA.exists())


def open_decoder(tasks: Sequence[Task], workers: int, ahead: int = AHEAD_BYTES) -> Decoder:
    """Return what decodes the tasks: `workers` processes, or with 0 this one, as it is asked."""
    return Pool(tasks, workers, ahead) if workers and tasks else Inline(tasks)


class Inline:
    """Decodes in this process, when an event is taken."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._waiting = deque(
            _Taken(index, iter(task.events())) for index, task in enumerate(tasks)
        )

    def prepare(self) -> float:
        """Do nothing: there is nothing to wait for."""
        return 0.0

    def ready(self) -> Stream | None:
        """Return the first stream that has not ended."""
        while self._waiting and self._waiting[0].ended:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def stream(self, index: int) -> Stream:
        """Return the stream of one task."""
        return next(stream for stream in self._waiting if stream.index == index)

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *unused: object) -> None:
        self._waiting.clear()


class _Taken:
    def __init__(self, index: int, events: Iterator[Any]) -> None:
        self.index = index
        self.ended = False
        self._events = events

    def take(self) -> Any:
        event = next(self._events, None)
        self.ended = event is None
        return event


class Pool:
    """Worker processes, each with a thread of this process that reads what it makes.

    They are started at once, and given tasks once the pool is entered. No more are started than
    there are tasks; a task that would leave a worker idle gets a second thread in its own instead.
    """

    def __init__(self, tasks: Sequence[Task], workers: int, ahead: int = AHEAD_BYTES) -> None:
        self.ahead = ahead
        self.changed = threading.Condition()
        self.closed = False
        self._tasks = deque(enumerate(tasks))
        self._open = len(tasks)  # tasks whose last event was not taken yet
        self._streams: list[_Buffered] = []
        self._error: BaseException | None = None  # of a thread: a bug
        self._wanted = workers
        self._entered = False
        self._workers = [_Worker() for _ in range(min(workers, len(tasks)))]
        self._threads = [
            threading.Thread(target=self._feed, args=(worker,), daemon=True)
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    def prepare(self) -> float:
        """Wait until all processes have started; return the CPU seconds that they took for it."""
        with self.changed:
            while any(worker.started is None for worker in self._workers):
                if self._error is not None:
                    raise self._error
                self.changed.wait()
            return sum(worker.started or 0.0 for worker in self._workers)

    def ready(self) -> Stream | None:
        """Return the stream that is furthest ahead, as its worker is the next to be stopped."""
        with self.changed:
            while True:
                if self._error is not None:
                    raise self._error
                waiting = [stream for stream in self._streams if stream.events]
                if waiting:
                    return max(waiting, key=lambda stream: (stream.bytes, -stream.index))
                if not self._open:
                    return None
                self.changed.wait()

    def stream(self, index: int) -> Stream:
        """Return the stream of one task, waiting for a worker to begin it."""
        with self.changed:
            while True:
                if self._error is not None:
                    raise self._error
                for stream in self._streams:
                    if stream.index == index:
                        return stream
                self.changed.wait()

    def __enter__(self) -> "Pool":
        with self.changed:
            self._entered = True
            self.changed.notify_all()
        return self

    def __exit__(self, *unused: object) -> None:
        with self.changed:
            self.closed = True
            self._tasks.clear()
            self.changed.notify_all()
        for worker in self._workers:
            worker.stop()
        for thread in self._threads:
            thread.join()

    def forget(self, stream: "_Buffered") -> None:
        """Drop a stream whose last event was taken; hold `changed`."""
        self._streams.remove(stream)
        self._open -= 1
        self.changed.notify_all()

    def _feed(self, worker: "_Worker") -> None:
        try:
            worker.start()
            with self.changed:
                self.changed.notify_all()
                while not self._entered and not self.closed:
                    self.changed.wait()
            mine: list[_Buffered] = []
            while True:
                with self.changed:
                    # Short sources do not fill their own streams, but there may be many of them.
                    while sum(stream.bytes for stream in mine) >= self.ahead and not self.closed:
                        self.changed.wait()
                    if not self._tasks:
                        break
                    idle = len(self._tasks) < self._wanted
                    index, task = self._tasks.popleft()
                    if idle and isinstance(task, DecodeTask):
                        task = replace(task, threads=2)
                    stream = _Buffered(self, index)
                    self._streams.append(stream)
                    mine = [stream, *(other for other in mine if other.bytes)]
                for event in worker.events(task):
                    if not stream.put(event):
                        return
                if not stream.put(None):
                    return
            worker.stop()
        except BaseException as error:
            with self.changed:
                self._error = None if self.closed else error
                self.changed.notify_all()


class _Buffered:
    """Events of one task that were made and not taken yet."""

    def __init__(self, pool: Pool, index: int) -> None:
        self.index = index
        self.events: deque[Any] = deque()
        self.bytes = 0
        self._pool = pool

    def put(self, event: Any) -> bool:
        """Add an event once there is room for it; False if nobody wants it any more."""
        size = _size(event)
        with self._pool.changed:
            while self.bytes and self.bytes + size > self._pool.ahead and not self._pool.closed:
                self._pool.changed.wait()
            if self._pool.closed:
                return False
            self.events.append(event)
            self.bytes += size
            self._pool.changed.notify_all()
            return True

    def take(self) -> Any:
        with self._pool.changed:
            while not self.events:
                if self._pool._error is not None:
                    raise self._pool._error
                self._pool.changed.wait()
            event = self.events.popleft()
            self.bytes -= _size(event)
            if event is None:
                self._pool.forget(self)
            self._pool.changed.notify_all()
            return event


def _size(event: Any) -> int:
    return event.pictures.nbytes if isinstance(event, Frames) else 0


class _Worker:
    """One process, started with its first task and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopped = False
        self._shared: SharedPixels | None = None
        self.started: float | None = None  # CPU seconds that it took

    def start(self) -> None:
        """Start the process, and wait until it has: if it cannot, that is no fault of any video."""
        process = self._running()
        if process is None or self.started is not None:
            return
        assert process.stdout is not None
        try:
            self.started = read_event(process.stdout).cpu_seconds
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            if self._stopped:
                return
            raise WorkFailed(
                f"a process to decode in cannot be started, it ends with code {_ended(process)}",
                where=" ".join(_COMMAND),
                fix="what it wrote is above; `ttv doctor` checks the packages",
            ) from None

    def events(self, task: Task) -> Iterator[Any]:
        """Yield the events of a task; `Broken` if the process does not survive it."""
        self.start()
        process = self._running()
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(task, process.stdin)
            process.stdin.flush()
            while not isinstance(event := read_event(process.stdout, self._shared), Done):
                yield event
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            code = _ended(process)
            self._process = self.started = None
            yield _cause(code, task.patience)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        with self._lock:
            self._stopped = True
            process = self._process
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _running(self) -> "subprocess.Popen[bytes] | None":
        with self._lock:
            if self._stopped:
                return None
            if self._process is None:
                # it finds this package as we did, and one thread each is the point of it
                paths = os.pathsep.join(path for path in sys.path if path)
                file = shared_file()
                files = [] if file is None else [file]
                self._shared = None if file is None else SharedPixels(file)
                with interrupts_held():
                    self._process = subprocess.Popen(
                        [*_COMMAND, *map(str, files)],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        pass_fds=files,
                        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
                    )
                for file in files:
                    os.close(file)
            return self._process


def _ended(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait(timeout=10)  # its output is closed, so it is about to end by itself
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _cause(code: int, patience: float) -> Broken:
    if code == -14:  # SIGALRM, see decode_worker
        return Broken("timeout", f"no frame for {patience:g} s")
    return Broken("crashed", f"the process that decoded it ended with code {code}")
