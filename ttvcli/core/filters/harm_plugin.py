"""A stronger harm checker from a local folder: an image classifier as transformers saves it.

The folder has `config.json` with `id2label`, weights as safetensors, `preprocessor_config.json`,
and, unless every label is in `KNOWN_LABELS`, `harm_labels.json`: an object from each label to one
of the categories or to "safe". Nothing is downloaded and no code of the folder runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ttvcli.core.filters.harmful import CATEGORIES

SAFE = "safe"
LABELS_FILE = "harm_labels.json"
# Labels of public classifiers whose meaning leaves no doubt, in lower case.
KNOWN_LABELS = {
    **dict.fromkeys(("normal", "safe", "sfw", "neutral", "drawings", "drawing"), SAFE),
    **dict.fromkeys(("nsfw", "porn", "pornography", "hentai", "sexy", "sexual", "nude"), "sexual"),
    **dict.fromkeys(("gore", "blood"), "gore"),
    **dict.fromkeys(("violence", "violent"), "violence"),
    **dict.fromkeys(("weapon", "weapons", "gun"), "weapons"),
    **dict.fromkeys(("hate", "hateful"), "hate"),
    **dict.fromkeys(("self_harm", "self-harm"), "self_harm"),
}


class FolderChecker:
    """An image classifier of transformers; a category's score is the sum over its labels.

    Args:
        folder: as `save_pretrained` writes it.
        device: where it runs.

    Raises:
        ValueError: the folder is not such a classifier, or a label's meaning is unknown.
        ImportError: transformers is not installed.
    """

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        from transformers import AutoModelForImageClassification

        self._folder = Path(folder)
        self.name = self._folder.name
        labels = _labels(_read(self._folder / "config.json"))
        self._meaning = read_meanings(self._folder, labels)
        self.categories = tuple(name for name in CATEGORIES if name in self._meaning)
        if not self.categories:
            raise ValueError(f"{self.name} sees none of {', '.join(CATEGORIES)}")
        self._prepare = _Preparation(_read(self._folder / "preprocessor_config.json"))
        try:
            model = AutoModelForImageClassification.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        except OSError as error:
            raise ValueError(f"{self.name} cannot be loaded: {error}") from error
        self._model: Any = model.eval().requires_grad_(False).to(device)
        self._device = device

    def score(self, frame: np.ndarray) -> dict[str, float]:
        """Probability of each category for one frame uint8 RGB `[H, W, 3]`."""
        import torch

        pixels = torch.from_numpy(self._prepare(frame))[None].to(self._device)
        with torch.inference_mode():
            logits = self._model(pixel_values=pixels).logits[0].double().cpu()
        # Labels of a multi-label network do not exclude each other.
        several = self._model.config.problem_type == "multi_label_classification"
        if several:
            each = torch.sigmoid(logits)
            return {name: float(each[self._meaning[name]].max()) for name in self.categories}
        each = torch.softmax(logits, 0)
        return {name: min(float(each[self._meaning[name]].sum()), 1.0) for name in self.categories}


def read_meanings(folder: Path, labels: list[str]) -> dict[str, list[int]]:
    """Return the indices of the labels of each category that a folder's classifier has.

    Raises:
        ValueError: a label is missing, or stands for something that is no category.
    """
    path = folder / LABELS_FILE
    stated: Mapping[str, str] = _read(path) if path.exists() else {}
    meaning: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        category = stated.get(label, KNOWN_LABELS.get(label.lower()))
        if category is None:
            raise ValueError(
                f"what the label {label!r} of {folder.name} stands for is unknown; "
                f"say it in {LABELS_FILE}, one of {SAFE}, {', '.join(CATEGORIES)}"
            )
        if category != SAFE and category not in CATEGORIES:
            known = ", ".join((SAFE, *CATEGORIES))
            raise ValueError(f"{path}: {category!r} is no category; known are {known}")
        if category != SAFE:
            meaning.setdefault(category, []).append(index)
    return meaning


def check_folder(folder: Path) -> None:
    """Raise ValueError if a folder is no classifier whose labels are understood; loads nothing."""
    meanings = read_meanings(folder, _labels(_read(folder / "config.json")))
    _read(folder / "preprocessor_config.json")
    if not meanings:
        raise ValueError(f"{folder.name} sees none of {', '.join(CATEGORIES)}")


class _Preparation:
    """Resize, crop, rescale and normalise as `preprocessor_config.json` says, with Pillow only."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        size = config.get("size", 224)
        self._size = {"height": size, "width": size} if isinstance(size, int) else dict(size)
        crop = config.get("crop_size") if config.get("do_center_crop") else None
        self._crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        self._filter = int(config.get("resample", 2))  # numbers of Pillow; 2 is bilinear
        rescale = config.get("do_rescale", True)
        self._factor = float(config.get("rescale_factor", 1 / 255)) if rescale else 1.0
        normal = config.get("do_normalize", True)
        self._mean = np.array(config.get("image_mean", [0.5] * 3) if normal else [0.0], np.float32)
        self._std = np.array(config.get("image_std", [0.5] * 3) if normal else [1.0], np.float32)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Turn uint8 RGB `[H, W, 3]` into float32 `[3, h, w]`."""
        from PIL import Image

        height, width = self._resized(*frame.shape[:2])
        image = Image.fromarray(frame).resize((width, height), Image.Resampling(self._filter))
        if self._crop is not None:
            top = (height - self._crop["height"]) // 2
            left = (width - self._crop["width"]) // 2
            right, bottom = left + self._crop["width"], top + self._crop["height"]
            image = image.crop((left, top, right, bottom))
        values = np.asarray(image, np.float32) * np.float32(self._factor)
        return np.ascontiguousarray(((values - self._mean) / self._std).transpose(2, 0, 1))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if "shortest_edge" in self._size:
            scale = self._size["shortest_edge"] / min(height, width)
            return round(height * scale), round(width * scale)
        return int(self._size["height"]), int(self._size["width"])


def _labels(config: Mapping[str, Any]) -> list[str]:
    named = config.get("id2label")
    if not named:
        raise ValueError("config.json names no labels (id2label)")
    return [named[str(index)] for index in range(len(named))]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
