"""A classifier in a folder becomes a checker: exactly its probabilities, by category."""

from pathlib import Path

import numpy as np
import pytest
import torch
from vision_model import save_classifier

from ttvcli.core.filters.harm_plugin import LABELS_FILE, FolderChecker, check_folder

transformers = pytest.importorskip("transformers")
LABELS = ["normal", "porn", "sexy", "gore"]


def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def public_logits(folder: Path) -> torch.Tensor:
    from PIL import Image

    model = transformers.ViTForImageClassification.from_pretrained(folder)
    image = Image.fromarray(frame()).resize((32, 32), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(image, np.float32) / 255 * 2 - 1).permute(2, 0, 1)
    with torch.inference_mode():
        return model(pixels[None]).logits[0]


def test_a_score_is_the_probability_of_all_labels_of_its_category(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, LABELS)
    checker = FolderChecker(folder)
    expected = public_logits(folder).softmax(0)
    assert checker.categories == ("sexual", "gore")
    scores = checker.score(frame())
    # float32 sums over 1 layer; resizing is of whole levels in both
    assert scores["sexual"] == pytest.approx(float(expected[1] + expected[2]), abs=1e-3)
    assert scores["gore"] == pytest.approx(float(expected[3]), abs=1e-3)


def test_labels_that_do_not_exclude_each_other_are_not_summed(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, LABELS, problem="multi_label_classification")
    expected = public_logits(folder).sigmoid()
    score = FolderChecker(folder).score(frame())["sexual"]
    assert score == pytest.approx(float(expected[1:3].max()), abs=1e-3)


def test_a_folder_says_what_its_own_labels_stand_for(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, ["LABEL_0", "LABEL_1"])
    with pytest.raises(ValueError, match="'LABEL_0'"):
        check_folder(folder)
    (folder / LABELS_FILE).write_text('{"LABEL_0": "safe", "LABEL_1": "weapons"}')
    assert FolderChecker(folder).categories == ("weapons",)


def test_what_is_no_category_is_refused(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, ["normal", "rude"])
    (folder / LABELS_FILE).write_text('{"rude": "rudeness"}')
    with pytest.raises(ValueError, match="'rudeness' is no category"):
        check_folder(folder)


def test_a_classifier_that_sees_no_harm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of sexual"):
        check_folder(save_classifier(tmp_path, ["normal", "drawings"]))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        check_folder(tmp_path / "nothing")
    folder = save_classifier(tmp_path, LABELS)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be loaded"):
        FolderChecker(folder)


@pytest.mark.parametrize(
    ("config", "stated", "said"),
    [
        ("[]", None, "config.json is no JSON object"),
        ('{"id2label": {"1": "normal", "2": "gore"}}', None, "id2label does not count"),
        ('{"id2label": ["normal", "gore"]}', None, "id2label does not count"),
        ('{"id2label": {"0": "normal", "1": "gore"}}', "[1]", "harm_labels.json is no JSON object"),
    ],
)
def test_files_of_another_form_are_named(
    config: str, stated: str | None, said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(config)
    if stated is not None:
        (tmp_path / LABELS_FILE).write_text(stated)
    with pytest.raises(ValueError, match=said):
        check_folder(tmp_path)


def test_weights_that_could_run_code_are_not_read(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, LABELS)
    model = transformers.ViTForImageClassification.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be loaded"):
        FolderChecker(folder)
