"""Ask an OpenAI-compatible server for captions: chat completions with frames as data URLs.

Works with hosted services and with local servers (vLLM, SGLang, llama.cpp, Ollama). Busy and broken
answers are tried again after growing pauses; a refused key stops the run at once.
"""

import base64
import io
import json
import os
import time
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException
from threading import Event
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

import ttvcli
from ttvcli.core.captions.instruction import instruction
from ttvcli.core.video.segment_frames import FrameChoice
from ttvcli.errors import UsageError, WorkFailed
from ttvcli.workflows.caption_model import FAILED, CaptionConfig, NoCaption, View, read_instruction

_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_HOPELESS = {401, 402, 403, 404, 405}  # the next segment would be answered the same way
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds
_LONGEST_ANSWER = 4 << 20  # bytes
_SHOWN = 300  # characters of a server's complaint
_QUALITY = 90  # of the JPEG files


class EndpointCaptioner:
    """Writes captions through a server.

    Args:
        config: settings.
        wait: pauses for so many seconds; by default until `stop` at most.

    Raises:
        UsageError: the address or the key is refused, or `request` is no JSON object.
        WorkFailed: the server does not answer.
    """

    def __init__(
        self, config: CaptionConfig, wait: Callable[[float], object] | None = None
    ) -> None:
        self.config = config
        self._stopped = Event()
        self.wait = wait or self._stopped.wait
        self.url = _base(config.captioner)
        self.key = _key(config.key_variable)
        self.own = read_instruction(config)
        self.extra = _object(config.request)
        self._opener: OpenerDirector = build_opener(_NoRedirect)
        self.concurrency = config.concurrency
        self.choice = FrameChoice(count=config.view_frames, longest=config.view_size)
        self.model = config.captioner_model or self._first_model()
        self.source = f"endpoint:{self.model}"
        self.settings: dict[str, object] = {
            "captioner": "endpoint",
            "url": self.url,
            "model": self.model,
            "instruction": instruction(config.style, config.view_frames, 3, self.own),
            "frames": config.view_frames,
            "size": config.view_size,
            "max_tokens": config.max_tokens,
            "request": self.extra,
        }

    def __call__(self, view: View) -> str:
        """Return the server's answer."""
        try:
            answer = self._ask("/chat/completions", self._body(view))
        except _Refused as error:
            raise NoCaption(FAILED, str(error)) from error
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise NoCaption(FAILED, f"no text in {str(answer)[:_SHOWN]}") from error
        if isinstance(text, list):  # parts, as some servers have it
            text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
        if choice.get("finish_reason") == "length":
            text = _whole_sentences(str(text or ""))
        return str(text or "")

    def stop(self) -> None:
        """Wait for answers, and try nothing again."""
        self._stopped.set()

    def _body(self, view: View) -> dict[str, Any]:
        text = instruction(self.config.style, len(view.frames), view.seconds, self.own)
        parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
        parts += [
            {"type": "image_url", "image_url": {"url": _data_url(frame)}} for frame in view.frames
        ]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": parts}],
            "temperature": 0.0,
        }
        if self.config.max_tokens:
            body["max_tokens"] = self.config.max_tokens
        body.update(self.extra)
        return {key: value for key, value in body.items() if value is not None}

    def _first_model(self) -> str:
        try:
            found = self._ask("/models", None)
            return str(found["data"][0]["id"])
        except _Refused as error:
            raise WorkFailed(
                f"the server does not answer: {error}", where=self.url, fix="check the address"
            ) from error
        except (KeyError, IndexError, TypeError) as error:
            raise UsageError(
                "the server names no model", where=self.url, fix="add --captioner-model NAME"
            ) from error

    def _ask(self, path: str, body: dict[str, Any] | None) -> Any:
        """Send one request, again where that may help; _Refused if it does not."""
        for attempt in range(self.config.retries + 1):
            try:
                return self._send(path, body)
            except _Busy as busy:
                if attempt == self.config.retries or self._stopped.is_set():
                    tries = f" (after {attempt + 1} tries)" if attempt else ""
                    raise _Refused(f"{busy}{tries}") from busy
                pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
                self.wait(min(max(pause, busy.after), _LONGEST_PAUSE))
        raise AssertionError("unreachable")

    def _send(self, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"User-Agent": f"ttv/{ttvcli.__version__}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, headers)
        end = time.monotonic() + self.config.timeout
        try:
            with self._opener.open(request, timeout=self.config.timeout) as response:
                return json.loads(self._read(response, end))
        except HTTPError as error:
            raise self._complaint(error) from error
        except (URLError, HTTPException, OSError) as error:
            raise _Busy(
                str(getattr(error, "reason", "") or error or type(error).__name__)
            ) from error
        except ValueError as error:
            raise _Busy(f"the answer is not JSON: {error}") from error

    def _advice(self) -> str:
        """What to look at when a server does not know what it is asked for."""
        path = urlsplit(self.url).path
        return "check the address and --captioner-model" + ("" if path else "; most end in /v1")

    def _read(self, response: Any, end: float) -> bytes:
        """Read an answer until `end`: one that trickles in would hold the request for hours."""
        data = bytearray()
        while part := response.read1(1 << 16):
            data += part
            if len(data) > _LONGEST_ANSWER:
                raise HTTPException(f"the answer is longer than {_LONGEST_ANSWER:,} bytes")
            if time.monotonic() > end:
                raise TimeoutError(f"no whole answer in {self.config.timeout:g} s")
        return bytes(data)

    def _complaint(self, error: HTTPError) -> Exception:
        try:
            said = " ".join(error.read(_LONGEST_ANSWER).decode("utf-8", "replace").split())[:_SHOWN]
        except (OSError, HTTPException):
            said = ""
        text = f"HTTP {error.code} {said}".strip()
        if self.key:  # some servers repeat it
            text = text.replace(self.key, "***")
        if error.code in _AGAIN:
            return _Busy(text, _seconds(error.headers))
        if error.code in _HOPELESS or 300 <= error.code < 400:
            key = f"the key in {self.config.key_variable}" if self.key else "a key"
            fix = {401: f"set {self.config.key_variable}", 403: f"check {key}"}
            return UsageError(
                f"the server refuses: {text}",
                where=self.url,
                fix=fix.get(error.code, self._advice()),
            )
        return _Refused(text)


class _Refused(Exception):
    """The server does not want this request, or does not answer at all."""


class _Busy(Exception):
    """The same request may be answered later, `after` so many seconds."""

    def __init__(self, text: str, after: float = 0.0) -> None:
        super().__init__(text)
        self.after = after


class _NoRedirect(HTTPRedirectHandler):
    """Other addresses do not get the key, nor the frames."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: the redirection then is an HTTPError."""


def _base(address: str) -> str:
    return address.rstrip("/").removesuffix("/chat/completions").rstrip("/")


def _key(variable: str) -> str:
    """The key of the server; secrets that come as files end with a line break."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        what = "the key of the server has characters that a request cannot carry"
        raise UsageError(what, where=variable, fix="set it to the key alone")
    return key


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError as error:
        raise UsageError(f"request is not JSON: {error}", where=text) from error
    if not isinstance(value, dict):
        raise UsageError("request is not a JSON object", where=text)
    return value


def _seconds(headers: Message) -> float:
    try:
        return float(headers.get("Retry-After", "0"))
    except ValueError:  # a date
        return 0.0


def _data_url(frame: Any) -> str:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(frame).save(data, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _whole_sentences(text: str) -> str:
    """Cut off the sentence in which an answer ran out of tokens."""
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1] if end > 0 else text
