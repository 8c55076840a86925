"""`ttv embed-text` as a program."""

import json
from pathlib import Path

import pytest
from helpers import run_ttv
from model_files import write_text_encoder

from ttvcli.artifacts.embeddings import load_embeddings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_encoder(tmp_path_factory.mktemp("model"))


def test_prompts_can_be_piped_in(tmp_path: Path, model: Path) -> None:
    words = ["embed-text", "-", "--out", tmp_path / "text", "--model", model, "--device", "cpu"]
    ran = run_ttv(*words, "--json", stdin="a red circle\na blue square\n")
    assert ran.code == 0
    assert (ran.json["clips"], ran.json["embedded"]) == (2, 2)
    manifest = (tmp_path / "text" / "manifest.jsonl").read_text().splitlines()
    for line, caption in zip(manifest, ("a red circle", "a blue square"), strict=True):
        path = tmp_path / "text" / json.loads(line)["path"]
        assert load_embeddings(path)[2]["captions"] == [caption]
    again = run_ttv(*words, stdin=(tmp_path / "text" / "manifest.jsonl").read_text())
    assert (again.code, again.stdout) == (0, f"{tmp_path / 'text'}\n")


def test_a_cut_caption_is_warned_about(tmp_path: Path, model: Path) -> None:
    words = ["embed-text", "-", "--out", tmp_path / "text", "--model", model, "--device", "cpu"]
    ran = run_ttv(*words, "--max-tokens", "4", stdin="a red circle moves right and right again\n")
    assert ran.code == 0
    assert "cut to 4" in ran.stderr


@pytest.mark.parametrize(
    ("source", "code"), [("absent", 3), ("absent.txt", 3), ("absent.jsonl", 3)]
)
def test_a_missing_source_is_a_bad_input(
    tmp_path: Path, model: Path, source: str, code: int
) -> None:
    ran = run_ttv("embed-text", tmp_path / source, "--out", tmp_path / "text", "--model", model)
    assert ran.code == code
    assert ran.stderr.startswith("error: ")
    assert not (tmp_path / "text").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path, model: Path) -> None:
    words = ["embed-text", "-", "--out", tmp_path / "text", "--model", model, "--dry-run"]
    ran = run_ttv(*words, "--json", stdin="a red circle\n")
    assert ran.code == 0
    assert ran.json["plan"]["items"]["clips"] == 1
    assert not (tmp_path / "text").exists()
