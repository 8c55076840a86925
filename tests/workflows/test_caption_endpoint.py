"""Captions from a server: what is sent, what is tried again, what ends the run."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ANSWER, chat_server, completion
from PIL import Image
from video_files import make_video

from ttvcli.errors import UsageError, WorkFailed
from ttvcli.workflows.caption import run
from ttvcli.workflows.caption_endpoint import EndpointCaptioner
from ttvcli.workflows.caption_model import FAILED, CaptionConfig, NoCaption, View

VIEW = View("a.mp4 at 0 s", 3.0, np.full((2, 16, 32, 3), 200, np.uint8))


def captioner(url: str, pauses: list[float] | None = None, **settings: Any) -> EndpointCaptioner:
    config = CaptionConfig(
        source="x", captioner=url, **{"retries": 2, "view_frames": 2, **settings}
    )
    return EndpointCaptioner(config, wait=[].append if pauses is None else pauses.append)


def test_frames_and_instruction_are_sent_as_a_chat_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONER_API_KEY", "secret")
    with chat_server() as server:
        assert captioner(server.url)(VIEW) == ANSWER
    (sent,), (headers,) = server.requests, server.headers
    assert (sent["path"], sent["model"]) == ("/v1/chat/completions", "small-vlm")
    assert headers["Authorization"] == "Bearer secret"
    (message,) = sent["messages"]
    text, *pictures = message["content"]
    assert "3 seconds" in text["text"]
    assert len(pictures) == 2
    kind, _, data = pictures[0]["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert picture.shape == (16, 32, 3)
    assert abs(float(picture.mean()) - 200) < 2


def test_a_key_from_a_file_may_end_with_a_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONER_API_KEY", "secret\n")
    with chat_server() as server:
        captioner(server.url)(VIEW)
    assert server.headers[0]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("key", ["sec\nret", "“secret”"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONER_API_KEY", key)
    with pytest.raises(UsageError, match="the key of the server") as refused:
        captioner("http://127.0.0.1:9/v1", captioner_model="m")
    assert refused.value.where == "CAPTIONER_API_KEY"
    assert "ret" not in str(refused.value)


def test_the_address_may_be_that_of_the_completions() -> None:
    with chat_server() as server:
        assert captioner(f"{server.url}/chat/completions/", captioner_model="m")(VIEW) == ANSWER
    assert server.requests[0]["path"] == "/v1/chat/completions"


def test_entries_of_the_request_can_be_set_and_taken_out() -> None:
    extra = json.dumps({"temperature": None, "top_p": 0.5})
    with chat_server() as server:
        captioner(server.url, request=extra, max_tokens=0)(VIEW)
    assert server.requests[0]["top_p"] == 0.5
    assert not {"temperature", "max_tokens"} & set(server.requests[0])


def test_busy_answers_are_tried_again_with_growing_pauses() -> None:
    replies = [(429, {}, {"Retry-After": "7"}), (503, {}, {}), (200, None, {})]
    pauses: list[float] = []
    with chat_server(lambda number: replies[number]) as server:
        assert captioner(server.url, pauses)(VIEW) == ANSWER
    assert pauses == [7.0, 2.0]


@pytest.mark.parametrize("reply", [(500, {"error": "broken"}, {}), (200, b"<html>", {})])
def test_a_server_that_stays_broken_fails_the_segment_only(reply: Any) -> None:
    pauses: list[float] = []
    failing = pytest.raises(NoCaption, match="after 3 tries")
    with chat_server(lambda _: reply) as server, failing as failure:
        captioner(server.url, pauses)(VIEW)
    assert failure.value.reason == FAILED
    assert (len(server.requests), pauses) == (3, [1.0, 2.0])


@pytest.mark.parametrize("body", [{"error": {"message": "too many images"}}, {"choices": []}])
def test_a_request_that_is_refused_is_not_repeated(body: Any) -> None:
    status = 400 if "error" in body else 200
    with chat_server(lambda _: (status, body, {})) as server, pytest.raises(NoCaption):
        captioner(server.url)(VIEW)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_ends_the_run_without_telling_the_key(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONER_API_KEY", "secret")
    body = {"error": "no access with secret"}
    failing = pytest.raises(UsageError, match=r"no access with \*\*\*")
    with chat_server(lambda _: (status, body, {})) as server, failing as failure:
        captioner(server.url)(VIEW)
    assert "secret" not in failure.value.what + failure.value.where + failure.value.fix


def test_another_address_does_not_get_the_frames() -> None:
    with chat_server() as other:
        place = {"Location": f"{other.url}/chat/completions"}
        with chat_server(lambda _: (307, {}, place)) as server, pytest.raises(UsageError):
            captioner(server.url)(VIEW)
    assert other.requests == []


def test_an_address_where_nobody_listens_is_told() -> None:
    with chat_server() as server:
        url = server.url
    with pytest.raises(WorkFailed, match="does not answer"):
        captioner(url)
    with pytest.raises(NoCaption, match="refused"):
        captioner(url, captioner_model="m")(VIEW)


@pytest.mark.parametrize("text", ["[1]", "{"])
def test_a_request_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="request"):
        captioner("http://127.0.0.1:9", request=text, captioner_model="m")


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        ("One. Two. Thr", "length", "One. Two."),
        (
            [{"type": "text", "text": "One."}, {"type": "text", "text": " Two."}],
            "stop",
            "One. Two.",
        ),
        (None, "stop", ""),
    ],
)
def test_answers_in_parts_and_cut_off_answers(content: Any, reason: str, said: str) -> None:
    with chat_server(lambda _: (200, completion(content, reason), {})) as server:
        assert captioner(server.url)(VIEW) == said


def test_after_a_stop_nothing_is_tried_again() -> None:
    with chat_server(lambda _: (503, {}, {"Retry-After": "50"})) as server:
        asked = captioner(server.url, captioner_model="m")
        asked.stop()
        with pytest.raises(NoCaption):
            asked(VIEW)
    assert len(server.requests) == 1


def test_segments_are_asked_for_together_and_recorded(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", frames=24, fps=2, size=(32, 16))

    def script(number: int) -> Any:
        # The first answer waits until a second request is there.
        assert number or server.together.wait(60)
        return 200, None, {}

    with chat_server(script) as server:
        config = CaptionConfig(source=str(tmp_path), captioner=server.url, concurrency=3)
        result = run(config)
    assert (result.captioned, result.open) == (4, 0)
    assert 2 <= server.most_at_once <= 3
    record = json.loads((tmp_path / "manifest.jsonl").read_text())
    for span in record["segments"]:
        assert (span["caption"], span["language"]) == (ANSWER, "en")
        assert span["caption_source"] == "endpoint:small-vlm"


def test_a_refusal_in_the_middle_keeps_what_was_answered(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", frames=24, fps=2, size=(32, 16))
    replies: list[Any] = [(200, None, {}), (401, {}, {}), (401, {}, {}), (401, {}, {})]
    with chat_server(lambda number: replies[number]) as server:
        config = CaptionConfig(source=str(tmp_path), captioner=server.url, concurrency=2)
        with pytest.raises(UsageError):
            run(config)
        replies[:] = [(200, None, {})] * 20
        before = len(server.requests)
        assert run(config).captioned == 4
    assert len(server.requests) == before + 3


def test_an_address_without_a_path_is_told_what_most_have() -> None:
    with chat_server(lambda _: (404, {}, {})) as server:
        for address, told in ((server.url.removesuffix("/v1"), True), (server.url, False)):
            with pytest.raises(UsageError) as refused:
                captioner(address, captioner_model="m")(VIEW)
            assert ("most end in /v1" in refused.value.fix) == told


class Trickling:
    """A response that gives a byte at a time, and never ends."""

    def __init__(self, part: bytes) -> None:
        self.part = part

    def __enter__(self) -> "Trickling":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read1(self, _: int) -> bytes:
        return self.part


@pytest.mark.parametrize(
    ("part", "timeout", "said"),
    [(b" ", 0.05, "no whole answer in 0.05 s"), (b" " * (1 << 20), 60, "longer than 4,194,304")],
)
def test_an_answer_without_end_is_given_up(
    part: bytes, timeout: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = captioner("http://localhost:1/v1", captioner_model="m", retries=0, timeout=timeout)
    monkeypatch.setattr(asking._opener, "open", lambda *_, **__: Trickling(part))
    with pytest.raises(NoCaption, match=said) as failed:
        asking(VIEW)
    assert "tries" not in failed.value.detail  # there was one
