"""`ttv doctor`: exit code, problems with fixes, misspelt variables."""

import re
from pathlib import Path

import pytest
from helpers import run_ttv

import ttvcli
from ttvcli.artifacts import model_folder
from ttvcli.cli.settings import ENVIRONMENT, OTHER_VARIABLES


def checks(**env: str) -> tuple[int, dict[str, dict]]:
    ran = run_ttv("doctor", "--json", **env)
    assert ran.json["healthy"] == (ran.code == 0)
    return ran.code, {check["name"]: check for check in ran.json["checks"]}


def fake_model(root: Path, name: str = "tiny") -> Path:
    folder = root / name
    model_folder.write_file(folder, "tokenizer/spiece.model", b"pieces")
    model_folder.write_config(folder, "scheduler", {})
    for component in ("transformer", "vae", "text_encoder"):
        model_folder.write_component(folder, component, {}, {})
    model_folder.seal(folder)
    return folder


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(model_folder, "BUILTIN", tmp_path)
    return fake_model(tmp_path)


def test_a_machine_with_everything_is_healthy(model: Path) -> None:
    code, found = checks()
    assert code == 0
    for name in ("python", "memory", "torch", "av", "sentencepiece", "temporary files", "threads"):
        assert found[name]["state"] != "problem"
    assert "hashes match" in found["model tiny"]["value"]


def test_a_changed_model_is_a_problem_with_a_fix(model: Path) -> None:
    (model / "tokenizer" / "spiece.model").write_bytes(b"other")
    code, found = checks()
    assert code == 1
    assert found["model tiny"]["value"] == "damaged: tokenizer"
    assert found["model tiny"]["fix"]


def test_a_missing_model_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "BUILTIN", tmp_path / "nothing")
    ran = run_ttv("doctor")
    assert ran.code == 1
    assert "PROBLEM  absent" in ran.stdout
    assert "fix: install ttv again" in ran.stdout


def test_a_misspelt_variable_is_pointed_at(model: Path) -> None:
    code, found = checks(TTV_DEVIC="cpu", TTV_THREADS="2")
    assert code == 0
    assert "did you mean TTV_DEVICE" in found["TTV_DEVIC"]["fix"]
    assert found["TTV_THREADS"]["state"] == "ok"
    assert found["threads"]["value"] == "limited to 2"


def test_every_variable_that_the_program_reads_is_known() -> None:
    sources = [path.read_text() for path in Path(ttvcli.__file__).parent.rglob("*.py")]
    read = set(re.findall(r'"(TTV_[A-Z_]+)"', "".join(sources)))
    assert {*ENVIRONMENT, *OTHER_VARIABLES} == read
