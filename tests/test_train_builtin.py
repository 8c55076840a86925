"""The commands by which the built-in model is made, at a size that takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest
from documentation import shell_lines, split_commands
from helpers import REPOSITORY, run_ttv

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.runs import read_metrics

PAGE = REPOSITORY / "docs" / "train-builtin.md"
SMALLER = {
    "prep synth": ("--clips", "4"),
    "train": ("--steps", "2", "--batch-size", "2", "--stop-after", "2", "--device", "cpu"),
    "prep encode": ("--device", "cpu"),
    "embed-text": ("--device", "cpu"),
    "eval world": ("--prompts", "2", "--steps", "2", "--device", "cpu"),
}


@pytest.mark.slow
def test_each_command_takes_what_the_one_before_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.chdir(tmp_path)
    ran = []
    for line, number in shell_lines(PAGE):
        if line.startswith("python docs/"):
            script, *rest = line.removeprefix("python ").split()
            subprocess.run([sys.executable, str(REPOSITORY / script), *rest], check=True)
            ran.append(script)
        for words in split_commands(line):
            name = next((n for n in SMALLER if words[: len(n.split())] == n.split()), None)
            if name is None:  # ttv doctor looks at the machine
                continue
            done = run_ttv(*words, *SMALLER[name])  # of an option given twice, the last one counts
            assert done.code == 0, f"{PAGE.name}:{number}: {done.stderr}"
            ran.append(name)
    assert set(ran) == {*SMALLER, "docs/hardest_clips.py"}
    model = tmp_path / "work" / "nine" / "model"
    assert all(model_folder.has_component(model, part) for part in model_folder.COMPONENTS)
    assert model_folder.read_config(model, "transformer")["ssm"] != "none"
    assert len(read_metrics(model.parent)) == 2
