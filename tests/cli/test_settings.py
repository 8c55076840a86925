"""Settings: which source wins, what is refused and how, and the round trip of --show-config."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from ttvcli.artifacts import presets as preset_files
from ttvcli.cli.settings import Resolved, resolve
from ttvcli.cli.settings_files import to_toml
from ttvcli.errors import UsageError


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Optimizer:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass(frozen=True)
class Config:
    data: Path = Path("data")
    size: tuple[int, int] = (64, 64)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=3e-4))
    mode: Literal["fast", "slow"] = "fast"
    colour: Colour = Colour.RED
    names: list[str] = field(default_factory=list)
    limit: int | None = None
    label: str = 'a "b"\n\x7f'
    exact: bool = False
    weights: dict[str, float] = field(default_factory=lambda: {"a b": 1.0})
    seed: int = 42
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.size[0] % 2:
            raise ValueError(f"width must be even, got {self.size[0]}")


def merged(step: str = "train", **sources: Any) -> Resolved:
    return resolve(Config, step, **{"environ": {}, **sources})


@pytest.fixture
def preset_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(preset_files, "PRESETS", tmp_path)
    (tmp_path / "stage").mkdir()
    return tmp_path / "stage"


def test_each_source_wins_over_the_ones_before(tmp_path: Path, preset_folder: Path) -> None:
    (preset_folder / "9s.toml").write_text("limit = 1\nseed = 1\ndevice = 'p'\nmode = 'slow'\n")
    file = tmp_path / "mine.toml"
    file.write_text("seed = 2\ndevice = 'f'\nlimit = 2\n")
    flags = {"seed": "5", "names": [], "data": None}
    sets = ["seed=4", "device=s"]
    sources: dict[str, Any] = {}
    assert merged().config.seed == 42
    sources["presets"] = {"stage": "9s", "gpu": None}
    assert merged(**sources).config.seed == 1
    sources["config_files"] = [file]
    assert merged(**sources).config.seed == 2
    sources["environ"] = {"TTV_DEVICE": "e", "TTV_SEED": "9"}
    assert merged(**sources).config.device == "e"
    assert merged(**sources).config.seed == 2  # only facts about the machine come from there
    sources["sets"] = sets
    assert merged(**sources).config.seed == 4
    sources["flags"] = flags
    last = merged(**sources)
    assert (last.config.seed, last.config.device, last.config.limit) == (5, "s", 2)
    assert last.config.mode == "slow"
    assert last.origins == {
        "limit": str(file),
        "seed": "--seed",
        "device": "--set",
        "mode": "--stage 9s",
    }


def test_every_kind_of_value_can_be_typed() -> None:
    sets = [
        "data=a/b",
        "size=720x480",
        "optimizer.lr=1e-5",
        "optimizer.betas=0.1,0.2",
        "mode=slow",
        "colour=blue",
        "names=x, y",
        "limit=3",
        "exact=yes",
        "weights={q = 2}",
    ]
    config = merged(sets=sets).config
    assert config.optimizer == Optimizer(1e-5, (0.1, 0.2))
    assert (config.data, config.size, config.mode) == (Path("a/b"), (720, 480), "slow")
    assert (config.colour, config.names, config.limit) == (Colour.BLUE, ["x", "y"], 3)
    assert (config.exact, config.weights) == (True, {"q": 2.0})
    assert merged(sets=["limit=none"]).config.limit is None


def test_a_nested_group_keeps_its_own_defaults_where_nothing_is_set() -> None:
    assert merged(sets=["optimizer.betas=0,0"]).config.optimizer.lr == 3e-4


def test_what_show_config_prints_gives_the_same_config_again(tmp_path: Path) -> None:
    first = merged(sets=["limit=3", "optimizer.lr=1e-9", "colour=blue"], flags={"size": "2x4"})
    text = to_toml(first.config, "train", first.origins)
    assert "size = [2, 4]  # --size\n" in text
    assert 'device = "auto"  # default\n' in text
    file = tmp_path / "shown.toml"
    file.write_text(text)
    assert merged(config_files=[file]).config == first.config


def test_a_file_may_hold_tables_for_several_steps(tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text("seed = 7\n[train]\nlimit = 1\n[train.optimizer]\nlr = 1\n[info]\nnope = 1\n")
    config = merged(config_files=[file]).config
    assert (config.seed, config.limit, config.optimizer.lr) == (7, 1, 1.0)


def test_a_file_for_another_step_alone_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("[info]\nartifact = 'x'\n")
    with pytest.raises(UsageError, match="settings of info, none of train"):
        merged(config_files=[file])


@pytest.mark.parametrize(
    ("assignment", "what", "fix"),
    [
        ("optimizer.lrr=1", "no setting 'optimizer.lrr'", "did you mean optimizer.lr?"),
        ("lr=1", "no setting 'lr'", "did you mean optimizer.lr?"),
        ("optimizer=1", "a group of settings", "optimizer.lr, optimizer.betas"),
        ("limit=abc", "limit expects a whole number or none, got 'abc'", ""),
        ("limit=1.5", "whole number", ""),
        ("size=1,2,3", "size expects 2 values", ""),
        ("mode=fats", "mode expects one of fast, slow, got 'fats'", "did you mean fast?"),
        ("exact=3", "exact expects true or false", ""),
        ("exact", "--set expects key=value", "--set optimizer.lr=1e-4"),
        ("size=63x64", "width must be even, got 63", "--help"),
    ],
)
def test_a_wrong_setting_says_what_is_wrong_and_what_would_be_right(
    assignment: str, what: str, fix: str
) -> None:
    with pytest.raises(UsageError) as caught:
        merged(sets=[assignment])
    assert what in caught.value.what
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("seed = 1\n\nlimt = 3\n", "no setting 'limt'", "line 3"),
        ("[optimizer]\nlr = 'x'\n", "optimizer.lr expects a number, got 'x'", "line 2"),
        ("exact = 1\n", "exact expects true or false, got 1", "line 1"),
        ("seed = true\n", "seed expects a whole number", "line 1"),
        ("seed = \n", "not valid TOML", "bad.toml"),
    ],
)
def test_an_error_in_a_file_names_file_and_line(
    text: str, what: str, line: str, tmp_path: Path
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        merged(config_files=[file])
    assert what in caught.value.what
    assert line in caught.value.where
    assert str(file) in caught.value.where


def test_a_missing_file_or_preset_is_a_usage_error(tmp_path: Path, preset_folder: Path) -> None:
    (preset_folder / "63s.toml").write_text("")
    with pytest.raises(UsageError, match="no such config file"):
        merged(config_files=[tmp_path / "none.toml"])
    with pytest.raises(UsageError, match="no stage preset '63'") as caught:
        merged(presets={"stage": "63"})
    assert caught.value.fix.startswith("did you mean 63s?")


def test_a_random_seed_is_drawn_and_becomes_part_of_the_config() -> None:
    seeds = {merged(flags={"seed": "random"}).config.seed for _ in range(4)}
    assert len(seeds) > 1
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_setting_without_default_is_asked_for() -> None:
    @dataclass(frozen=True)
    class Strict:
        vram_limit: str

    with pytest.raises(UsageError) as caught:
        resolve(Strict, "train", environ={})
    assert "--vram-limit" in caught.value.fix
    with pytest.raises(UsageError) as caught:  # of a command that takes it without a name
        resolve(Strict, "train", environ={}, arguments={"vram_limit"})
    assert "--vram-limit" not in caught.value.fix


def test_what_a_config_refuses_is_told_with_the_option_it_came_from() -> None:
    @dataclass(frozen=True)
    class Clip:
        seconds: float = 3.0

        def __post_init__(self) -> None:
            if self.seconds % 3:
                raise ValueError(f"seconds must be 3, 6, ..., got {self.seconds:g}")

    with pytest.raises(UsageError) as told:
        resolve(Clip, "train", flags={"seconds": "8"}, environ={})
    assert told.value.where == "--seconds 8"
