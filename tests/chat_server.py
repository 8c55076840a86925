"""A small OpenAI-compatible server on this machine that answers as a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "A grey field lies in even light while a white line moves to the right."

# (status, body or None for the usual answer, headers)
Reply = tuple[int, Any, dict[str, str]]


class ChatServer:
    """Counts what it is asked; `script` is called with the number of the request, from 0."""

    def __init__(self, script: Callable[[int], Reply]) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self.together = threading.Event()  # set when two requests are open at once
        self.url = ""

    def handle(self, path: str, body: Any, headers: dict[str, str]) -> Reply:
        """Answer one request."""
        if path.endswith("/models"):
            return 200, {"data": [{"id": "small-vlm"}]}, {}
        with self._lock:
            number = len(self.requests)
            self.requests.append({"path": path, **body})
            self.headers.append(headers)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            if self._now > 1:
                self.together.set()
        status, value, extra = self.script(number)
        with self._lock:
            self._now -= 1
        return status, completion(ANSWER) if value is None else value, extra


def completion(text: Any, reason: str = "stop") -> dict[str, Any]:
    """Return the body of an answer."""
    return {"choices": [{"message": {"content": text}, "finish_reason": reason}]}


@contextmanager
def chat_server(script: Callable[[int], Reply] = lambda _: (200, None, {})) -> Iterator[ChatServer]:
    """Serve on a free port of this machine until the block ends."""
    state = ChatServer(script)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            status, value, extra = state.handle(self.path, body, dict(self.headers))
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in {**extra, "Content-Length": str(len(data))}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
