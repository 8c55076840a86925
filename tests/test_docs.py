"""The documents say what the program does: commands, options, settings, artifacts, links."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from documentation import (
    PAGES,
    all_commands,
    blocks,
    find_command,
    links,
    shell_lines,
    ttv_commands,
)
from helpers import REPOSITORY, run_ttv
from model_files import write_text_encoder, write_vae

from ttvcli.artifacts import embeddings, latents
from ttvcli.artifacts.presets import PRESETS
from ttvcli.artifacts.schema import KINDS
from ttvcli.cli.run_step import config_name
from ttvcli.cli.settings import leaves
from ttvcli.errors import ExitCode

README = REPOSITORY / "README.md"
FORMATS = REPOSITORY / "docs" / "formats.md"
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


@pytest.mark.parametrize("path", PAGES, ids=NAMES.get)
def test_commands_of_a_page_exist_with_their_options(path: Path) -> None:
    for words, line in ttv_commands(path):
        where = f"{path.name}:{line}: ttv {' '.join(words)}"
        command, name, rest = find_command(words)
        known = {option: entry for entry in command.params for option in entry.opts}
        if hasattr(command, "commands"):
            assert rest, where  # a group alone does nothing
        for index, word in enumerate(rest):
            if word in ("-", "--help", "-h") or not re.match(r"--?[a-z]", word):
                continue
            assert word in known, f"{where}: no option {word}"
            if word == "--set":
                key = rest[index + 1].partition("=")[0].replace("-", "_")
                assert key in dict(leaves(config_of(name))), f"{where}: no setting {key}"
            if word == "--config" and rest[index + 1].startswith("configs/"):
                assert (REPOSITORY / rest[index + 1]).is_file(), where
            if word in ("--stage", "--gpu"):
                assert (PRESETS / word[2:] / f"{rest[index + 1]}.toml").is_file(), where


@pytest.mark.parametrize("path", PAGES, ids=NAMES.get)
def test_links_lead_somewhere(path: Path) -> None:
    for target in links(path):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", PAGES, ids=NAMES.get)
def test_python_blocks_compile(path: Path) -> None:
    for block in blocks(path):
        if block.language == "python":
            compile(block.text, f"{path.name}:{block.line}", "exec")
        if block.language == "json":
            json.loads(block.text)


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


def test_whatever_the_steps_write_is_documented(tmp_path: Path) -> None:
    model = write_text_encoder(write_vae(tmp_path / "model"))
    raw, encoded, text = (tmp_path / name for name in ("raw", "latents", "text"))
    assert run_ttv("prep", "synth", "--out", raw, "--clips", "1", "--size", "16").code == 0
    assert run_ttv("prep", "encode", raw, "--out", encoded, "--model", model).code == 0
    assert run_ttv("embed-text", encoded, "--out", text, "--model", model).code == 0
    manifest = documented(section("manifest"))
    for folder, kind in ((raw, "clips"), (encoded, "latents"), (text, "embeddings")):
        (line,) = (folder / "manifest.jsonl").read_text().splitlines()
        record = json.loads(line)
        named = manifest | documented(section(kind)) | documented(section("latents"))
        named |= documented(section("clips"))  # unknown fields survive every step
        assert set(record) <= named, folder
        assert set(record["segments"][0]) <= manifest
        settings = json.loads((folder / "ttv.json").read_text())["settings"]
        assert set(settings) <= documented(section(kind))
    for folder in (encoded, text):
        written = json.loads((folder / "report.json").read_text())
        named = documented(section("report")) | documented(section("The header"))
        assert set(written) <= named, folder
