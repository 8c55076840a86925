"""Checkpoints: bit-exact round trip, incomplete ones ignored, changed ones refused."""

from pathlib import Path

import pytest
import torch

from ttvcli.artifacts import checkpoint
from ttvcli.errors import ArtifactError, UsageError


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Linear(4, 3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    module(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return module, optimizer


def save(folder: Path, step: int) -> Path:
    module, optimizer = trained()
    return checkpoint.save_checkpoint(
        folder,
        step,
        model=module.state_dict(),
        ema=module.state_dict(),
        optimizer=optimizer.state_dict(),
        state={"epoch": 2, "position": [1, 2]},
        config={"lr": 1e-3, "name": None, "inner": {"path": Path("a/b")}},
        rng=checkpoint.capture_rng(),
    )


def test_everything_comes_back_to_the_bit(tmp_path: Path) -> None:
    module, optimizer = trained()
    loaded = checkpoint.load_checkpoint(save(tmp_path, 500))
    assert loaded.step == 500
    assert loaded.state == {"epoch": 2, "position": [1, 2]}
    for name, tensor in module.state_dict().items():
        assert torch.equal(loaded.model[name], tensor)
        assert loaded.ema is not None
        assert torch.equal(loaded.ema[name], tensor)
    before, after = optimizer.state_dict(), loaded.optimizer
    assert after["param_groups"] == before["param_groups"]
    assert after["state"].keys() == before["state"].keys()  # numbers, not text
    for number, state in before["state"].items():
        for name, value in state.items():
            assert torch.equal(after["state"][number][name], value)
    optimizer.load_state_dict(after)


def test_the_settings_are_readable_toml(tmp_path: Path) -> None:
    text = (save(tmp_path, 1) / "config.toml").read_text()
    assert text == 'lr = 0.001\n\n[inner]\npath = "a/b"\n'


def test_random_states_continue_where_they_were(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    with torch.random.fork_rng():
        checkpoint.restore_rng(checkpoint.load_checkpoint(path).rng)
        first = torch.rand(3)
        checkpoint.restore_rng(checkpoint.load_checkpoint(path).rng)
        assert torch.equal(torch.rand(3), first)


def test_saving_the_same_state_twice_gives_the_same_files(tmp_path: Path) -> None:
    paths = [
        checkpoint.save_checkpoint(
            tmp_path / name, 3, model=trained()[0].state_dict(), optimizer=trained()[1].state_dict()
        )
        for name in "ab"
    ]
    assert (paths[0] / "COMPLETE").read_text() == (paths[1] / "COMPLETE").read_text()


def test_an_incomplete_checkpoint_is_not_the_latest(tmp_path: Path) -> None:
    assert checkpoint.latest_checkpoint(tmp_path) is None
    good = save(tmp_path / "checkpoints", 10)
    torn = save(tmp_path / "checkpoints", 20)
    (torn / "COMPLETE").unlink()
    (tmp_path / "checkpoints" / "step-000030.tmp-0123abcd").mkdir()
    assert checkpoint.latest_checkpoint(tmp_path) == good
    assert checkpoint.latest_checkpoint(tmp_path / "checkpoints") == good
    with pytest.raises(ArtifactError, match="not complete"):
        checkpoint.load_checkpoint(torn)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer/state.json", "config.toml"])
def test_a_changed_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    file = path / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name} has changed"):
        checkpoint.load_checkpoint(path)
    file.unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        checkpoint.load_checkpoint(path)


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a is a object: cannot be stored"):
        checkpoint.save_checkpoint(tmp_path, 1, model={}, optimizer={"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_pruning_keeps_the_newest_and_clears_leftovers(tmp_path: Path) -> None:
    paths = [save(tmp_path, step) for step in (1, 2, 1_000_000)]
    leftover = tmp_path / "step-000003.tmp-0123abcd"
    leftover.mkdir()
    assert set(checkpoint.prune(tmp_path, keep=2)) == {paths[0], leftover}
    assert checkpoint.complete_checkpoints(tmp_path) == paths[1:]
    with pytest.raises(UsageError, match="at least one"):
        checkpoint.prune(tmp_path, keep=0)
