"""Captions from a vision-language model in a folder; a random one, so only that it is asked."""

import sys
from pathlib import Path

import numpy as np
import pytest
from vision_model import IMAGE_TOKEN, WORDS, write_vision_model

from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows.caption_model import CaptionConfig, View, load_captioner
from ttvcli.workflows.caption_transformers import TransformersCaptioner


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vision_model(tmp_path_factory.mktemp("models") / "small-llava")


def config(model: Path) -> CaptionConfig:
    return CaptionConfig(
        source="x", captioner=str(model), view_frames=2, max_tokens=9, device="cpu"
    )


def view(seed: int) -> View:
    rng = np.random.default_rng(seed)
    return View("a", 3.0, rng.integers(0, 255, (2, 24, 40, 3), dtype=np.uint8))


def test_the_model_is_asked_about_the_frames(model: Path) -> None:
    captioner = load_captioner(config(model))
    assert isinstance(captioner, TransformersCaptioner)
    assert captioner.source == "transformers:small-llava"
    seen = []
    generate = captioner.model.generate
    captioner.model.generate = lambda **given: seen.append(given) or generate(**given)
    answers = [captioner(view(seed)) for seed in (0, 0, 1)]
    for given, answer in zip(seen, answers, strict=True):
        assert given["pixel_values"].shape == (2, 3, 16, 16)
        # Four patches and one more token for each picture.
        assert (given["input_ids"] == IMAGE_TOKEN).sum() == 2 * (4 + 1 - 1)
        assert 0 < len(answer.split()) <= 9
        assert set(answer.split()) <= {*WORDS, "USER:", "ASSISTANT:"}  # not of the question
    assert answers[0] == answers[1]
    assert seen[0]["pixel_values"].equal(seen[1]["pixel_values"])
    assert not seen[0]["pixel_values"].equal(seen[2]["pixel_values"])


def test_a_folder_without_such_a_model_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(ArtifactError, match="transformers cannot load it"):
        load_captioner(config(tmp_path))


def test_without_transformers_the_extra_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr("ttvcli.workflows.caption_transformers.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs transformers") as failure:
        load_captioner(config(model))
    assert "ttv[caption]" in failure.value.fix


def test_another_model_in_the_same_place_is_another_captioner(model: Path) -> None:
    before = load_captioner(config(model)).settings
    (model / "generation_config.json").write_text("{}")
    assert load_captioner(config(model)).settings != before
