"""The documents say what the program does: commands, options, settings, artifacts, links."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from documentation import (
    PAGES,
    all_commands,
    anchors,
    blocks,
    find_command,
    links,
    shell_lines,
    split_commands,
    ttv_commands,
)
from helpers import REPOSITORY, run_ttv
from video_files import make_video

from ttvcli.artifacts import embeddings, latents
from ttvcli.artifacts.lock import LOCK_NAME
from ttvcli.artifacts.schema import KINDS
from ttvcli.cli.run_step import config_name
from ttvcli.core.captions.check import PROBLEMS
from ttvcli.core.video.errors import REASONS
from ttvcli.errors import ExitCode

if TYPE_CHECKING:
    from tiny_model import TinyData

README = REPOSITORY / "README.md"
FORMATS = REPOSITORY / "docs" / "formats.md"
BUILTIN = REPOSITORY / "docs" / "train-builtin.md"
CLI = REPOSITORY / "docs" / "cli.md"
COMMANDS = all_commands()
NAMES = {path: path.relative_to(REPOSITORY).as_posix() for path in PAGES}


def load_generator() -> Any:
    """Import docs/generate.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("generate", CLI.with_name("generate.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config_of(words: list[str]) -> type:
    """Return the config class of a command, given as words."""
    step = load_generator().step_of(" ".join(words))
    module = importlib.import_module(f"ttvcli.workflows.{step}")
    return getattr(module, config_name(step))


def section(title: str) -> str:
    """Return the text of one section of docs/formats.md, up to the next of its level."""
    found = re.search(
        rf"^## {re.escape(title)}\b.*?(?=^## |\Z)", FORMATS.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/formats.md has no section {title!r}"
    return found[0]


def documented(text: str) -> set[str]:
    """Return every name that a text sets in code type."""
    return {
        name for quoted in re.findall(r"`([^`\n]+)`", text) for name in re.split(r"\W+", quoted)
    }


def test_cli_page_is_what_the_program_says(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load_generator()
    monkeypatch.setenv("COLUMNS", generator.WIDTH)
    # `python docs/generate.py` writes it again
    assert CLI.read_text() == generator.document()


@pytest.mark.parametrize("name", COMMANDS)
def test_cli_page_has_every_option(name: str) -> None:
    page = CLI.read_text().partition(f"\n## `ttv {name}`\n")[2].partition("\n## ")[0]
    for parameter in COMMANDS[name].params:
        for option in parameter.opts:
            if option.startswith("-"):
                assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", page), option


def test_every_exit_code_is_explained() -> None:
    generator = load_generator()
    assert set(generator.CODES) == {*map(int, ExitCode), 141}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_has_a_help_text(name: str) -> None:
    generator = load_generator()
    if generator.step_of(name):
        for key, _, _, text in generator.rows_of(config_of(name.split())):
            assert text, f"{name}: {key}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"`ttv {name}`" in README.read_text()


def check_command(words: list[str], where: str) -> None:
    """Find the command, and let it merge its settings without looking at its inputs."""
    command, name, rest = find_command(words)
    known = {option for entry in command.params for option in entry.opts} | {"-h", "--help"}
    if hasattr(command, "commands"):
        assert set(rest) & known, where  # a group alone does nothing
    for word in rest:
        if re.match(r"--?[a-z]", word):
            assert word in known, f"{where}: no option {word}"
    helps = set(rest) & {"-h", "--help"}
    if "--show-config" in known and not helps and not asks_for_own_settings(rest):
        ran = run_ttv(*name, *rest, "--show-config")
        assert ran.code == 0, f"{where}: {ran.stderr}"


def asks_for_own_settings(words: list[str]) -> bool:
    """Tell whether a command reads a settings file that only the reader has."""
    files = [words[i + 1] for i, word in enumerate(words) if word == "--config"]
    return any(not file.startswith("configs/") for file in files)


@pytest.mark.parametrize("path", PAGES, ids=NAMES.get)
def test_commands_of_a_page_are_accepted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)  # where the recipes in configs/ are
    for words, line in ttv_commands(path):
        check_command(words, f"{path.name}:{line}: ttv {' '.join(words)}")


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_in_the_help_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    examples = COMMANDS[name].help.partition("Examples:")[2].splitlines()
    for line in examples:
        for words in split_commands(line):
            check_command(words, line)


@pytest.mark.parametrize("path", PAGES, ids=NAMES.get)
def test_recipes_that_a_page_names_exist(path: Path) -> None:
    for name in re.findall(r"configs/[\w./-]*\w", path.read_text(encoding="utf-8")):
        assert (REPOSITORY / name).exists(), name


@pytest.mark.parametrize("path", PAGES, ids=NAMES.get)
def test_links_lead_somewhere(path: Path) -> None:
    for target, heading in links(path):
        assert target.exists(), f"{path.name} links to {target}"
        assert not heading or heading in anchors(target), f"{path.name}: no {heading!r} in {target}"


@pytest.mark.parametrize("path", PAGES, ids=NAMES.get)
def test_python_blocks_compile(path: Path) -> None:
    for block in blocks(path):
        if block.language == "python":
            compile(block.text, f"{path.name}:{block.line}", "exec")
        if block.language == "json":
            json.loads(block.text)


def test_the_built_in_model_is_made_by_every_recipe_in_its_order() -> None:
    page = BUILTIN.read_text(encoding="utf-8")
    commands = [words for words, _ in ttv_commands(BUILTIN) if "--config" in words]
    used = [words[words.index("--config") + 1] for words in commands]
    recipes = sorted((REPOSITORY / "configs" / "train").glob("tiny*.toml"))
    assert sorted(set(used)) == [path.relative_to(REPOSITORY).as_posix() for path in recipes]
    for name in used:
        step = re.match(r"# Step (\d+) of the built-in model", (REPOSITORY / name).read_text())
        assert step, name
        assert name in page.partition(f"\n## {step[1]}. ")[2].partition("\n## ")[0]


def test_readme_shows_the_first_command_at_once() -> None:
    first = next(blocks(README))
    assert first.line < 25
    assert first.text.lstrip("$ ").startswith("pip install -c constraints.txt . && ttv sample")


def test_test_command_is_the_same_everywhere() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    install = "pip install -c constraints.txt -e '.[dev]'"
    assert any(line == f"{install} && pytest" for line, _ in shell_lines(README))
    assert install.removeprefix("pip install ") in script
    assert "stage tests pytest 2>&1" in script


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_artifact_has_a_section(kind: str) -> None:
    assert section(kind)


def test_header_fields_are_documented() -> None:
    from ttvcli.artifacts.schema import header

    assert set(header("clips", {})) <= documented(section("The header"))


@pytest.mark.parametrize("module", [latents, embeddings], ids=lambda m: m.KIND)
def test_fields_that_a_tensor_file_must_have_are_documented(module: Any) -> None:
    assert set(module.REQUIRED) <= documented(section(module.KIND))


def test_storyboard_keys_are_documented() -> None:
    from ttvcli.artifacts.storyboard import OUR_KEYS, PUBLIC_KEYS

    assert {*OUR_KEYS, *PUBLIC_KEYS} <= documented(section("storyboard"))


def test_objects_of_the_tiny_world_are_documented() -> None:
    from ttvcli.core.world.scene import Segment, WorldObject

    names = {field.name for item in (Segment, WorldObject) for field in dataclasses.fields(item)}
    assert names <= documented(section("clips"))


def test_whatever_the_steps_write_is_documented(tiny_data: "TinyData") -> None:
    manifest = documented(section("manifest"))
    folders = {"clips": tiny_data.clips, "latents": tiny_data.latents, "embeddings": tiny_data.text}
    named = set(manifest)
    for kind, folder in folders.items():
        named |= documented(section(kind))  # unknown fields survive every step
        record = json.loads((folder / "manifest.jsonl").read_text().splitlines()[0])
        assert set(record) <= named, folder
        assert set(record["segments"][0]) <= manifest
        settings = json.loads((folder / "ttv.json").read_text())["settings"]
        assert set(settings) <= documented(section(kind))
        if kind != "clips":
            report = json.loads((folder / "report.json").read_text())
            assert set(report) <= documented(section("report")) | documented(section("The header"))
    about = json.loads((tiny_data.model / "ttv.json").read_text())["settings"]
    assert set(about) <= documented(section("model"))


def test_whatever_training_writes_is_documented(tiny_data: "TinyData", tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = ("--data", tiny_data.latents, "--text", tiny_data.text, "--model", tiny_data.model)
    short = ("--steps", "1", "--batch-size", "1", "--set", "ema_decay=0.9")
    ran = run_ttv("train", *data, *short, "--out", run, "--device", "cpu")
    assert ran.code == 0, ran.stderr
    named = documented(section("run"))
    for path in run.iterdir():
        assert path.name == LOCK_NAME or path.stem in named, path
    (line,) = (run / "metrics.jsonl").read_text().splitlines()
    assert set(json.loads(line)) <= named
    assert set(json.loads((run / "plan.json").read_text())) <= named
    (saved,) = (run / "checkpoints").iterdir()
    for path in saved.rglob("*"):
        assert path.name in section("checkpoint"), path
    for path in (run / "model").rglob("*"):
        assert path.name in section("model"), path


def test_whatever_sampling_writes_is_documented(tiny_data: "TinyData", tmp_path: Path) -> None:
    video = tmp_path / "out.mp4"
    how = ("--model", tiny_data.model, "--steps", "2", "--device", "cpu")
    ran = run_ttv("sample", "a red circle grows", *how, "-o", video, "--set", "keep_latents=true")
    assert ran.code == 0, ran.stderr
    sidecar = json.loads(video.with_suffix(".json").read_text())
    named = documented(section("video")) | documented(section("The header"))
    assert {*sidecar, *sidecar["settings"], *sidecar["sampling"]} <= named
    assert video.with_suffix(".latents.safetensors").name in section("video")


def test_the_report_of_a_measurement_is_documented(tiny_data: "TinyData", tmp_path: Path) -> None:
    how = ("--model", tiny_data.model, "--steps", "1", "--prompts", "2", "--device", "cpu")
    ran = run_ttv("eval", "world", *how, "-o", tmp_path / "world.json")
    assert ran.code == 0, ran.stderr
    report = json.loads((tmp_path / "world.json").read_text())
    named = documented(section("report"))
    assert set(report) <= named | documented(section("The header"))
    for table in (report["generated"], report["reconstructed_truth"], *report["clips"]):
        assert set(table) <= named
    for name in ("colour", "shape", "motion", "correct"):
        assert set(report["generated"][name]) <= named


def test_whatever_captioning_writes_is_documented(tiny_data: "TinyData", tmp_path: Path) -> None:
    records = (tiny_data.clips / "manifest.jsonl").read_text().splitlines()
    record = json.loads(records[0])
    path = str((tiny_data.clips / record["path"]).resolve())
    german = {"caption": "ein roter Kreis bewegt sich", "language": "de"}
    spans = [{**span, **german} for span in record["segments"]]
    line = json.dumps({**record, "path": path, "segments": spans})
    out = tmp_path / "out"
    assert run_ttv("prep", "caption", "-", "--out", out, "--no-sheets", stdin=line).code == 5
    row = json.loads((out / "captions.todo.jsonl").read_text())
    assert set(row) <= documented(section("clips"))
    assert row["problem"] in documented((FORMATS.parent / "captions.md").read_text())
    how = ("--captioner", "tiny-world", "--out", out)
    run_ttv("prep", "caption", "-", *how, stdin=line)
    report = json.loads((out / "captions.json").read_text())
    assert set(report) <= documented(section("report")) | documented(section("The header"))
    (written,) = (out / "manifest.jsonl").read_text().splitlines()
    assert set(json.loads(written)["segments"][0]) <= documented(section("manifest"))
    assert set(json.loads((out / "ttv.json").read_text())["settings"]) <= documented(
        section("clips")
    )


def test_problems_of_captions_are_documented() -> None:
    assert set(PROBLEMS) <= documented((FORMATS.parent / "captions.md").read_text())


def test_every_filter_its_limits_metrics_and_words_are_documented() -> None:
    from ttvcli.workflows.filter_job import ALL_FILTERS

    named = documented((REPOSITORY / "docs" / "filters.md").read_text())
    for entry in ALL_FILTERS.values():
        assert entry.name in named
        assert {field.name for field in dataclasses.fields(entry.limits)} <= named, entry.name
        assert {rule.metric for rule in entry.rules} <= named, entry.name
        assert {rule.code for rule in entry.rules} <= named, entry.name


def test_whatever_filtering_writes_is_documented(tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "a.mp4", frames=12)
    ran = run_ttv("prep", "filter", tmp_path / "in", "--out", tmp_path / "out", "--workers", "1")
    assert ran.code == 0, ran.stderr
    named = documented(section("filtered")) | documented(section("manifest"))
    record = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    assert set(record) <= named
    pages = documented((REPOSITORY / "docs" / "filters.md").read_text())
    for metrics in record["metrics"].values():
        assert set(metrics) <= pages
    header = json.loads((tmp_path / "out" / "ttv.json").read_text())
    assert set(header["settings"]) <= named
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report) <= documented(section("report")) | documented(section("The header"))
    (state,) = (tmp_path / "out" / "state").rglob("*.json")
    assert set(json.loads(state.read_text())) <= named


def test_reasons_for_skipping_a_video_are_documented() -> None:
    assert set(REASONS) <= documented(section("report"))
