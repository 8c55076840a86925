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
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        self._folder = Path(folder)
        self.name = self._folder.name
        labels = _labels(_read(self._folder / "config.json"))
        self._meaning = read_meanings(self._folder, labels)
        self.categories = tuple(name for name in CATEGORIES if name in self._meaning)
        if not self.categories:
            raise ValueError(f"{self.name} sees none of {', '.join(CATEGORIES)}")
        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._prepare = AutoImageProcessor.from_pretrained(self._folder, **local)
            model = AutoModelForImageClassification.from_pretrained(
                self._folder, use_safetensors=True, **local
            )
        except OSError as error:
            raise ValueError(f"{self.name} cannot be loaded: {error}") from error
        self._model: Any = model.eval().requires_grad_(False).to(device)
        self._device = device

    def score(self, frame: np.ndarray) -> dict[str, float]:
        """Probability of each category for one frame uint8 RGB `[H, W, 3]`."""
        import torch

        pixels = self._prepare(images=frame, return_tensors="pt", input_data_format="channels_last")
        with torch.inference_mode():
            logits = self._model(**pixels.to(self._device)).logits[0].double().cpu()
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


def _labels(config: Mapping[str, Any]) -> list[str]:
    # transformers leaves the names out where they are its default for two labels.
    named = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    try:
        return [str(named[str(index)]) for index in range(len(named))]
    except (KeyError, TypeError) as error:
        raise ValueError(f"id2label does not count its labels from 0: {named}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no JSON object")
    return found
