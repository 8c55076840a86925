"""Work ahead of whoever takes the results, in a thread of its own."""

from collections.abc import Generator, Iterable
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yield what `items` gives, taken in a thread and held until it is asked for.

    Errors are raised where they would be without the thread. Once this generator is closed, nothing
    takes from `items` any more.

    Args:
        items: what takes long to make, and lets other threads work meanwhile.
        depth: how many are held at most.
    """
    room, made, closed = Semaphore(depth), SimpleQueue[tuple[bool, T | BaseException]](), False
    ended = object()

    def work() -> None:
        try:
            source = iter(items)
            while True:
                room.acquire()
                if closed:
                    return
                item = next(source, ended)
                if item is ended:
                    raise StopIteration
                made.put((True, item))  # type: ignore[arg-type]
        except BaseException as error:  # not raised here, but by the one who asks
            made.put((False, error))

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            good, item = made.get()
            if not good:
                if isinstance(item, StopIteration):
                    return
                raise item  # type: ignore[misc]
            yield item  # type: ignore[misc]
            room.release()
    finally:
        closed = True
        room.release()
        thread.join()
