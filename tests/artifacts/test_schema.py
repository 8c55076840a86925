"""Headers: what changes the hash, what is refused, when a folder may be continued."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from ttvcli.artifacts import schema
from ttvcli.errors import ArtifactError, UsageError


class Mode(Enum):
    A = "a"


@dataclass(frozen=True)
class Settings:
    path: Path = Path("x/y")
    size: tuple[int, int] = (1, 2)
    mode: Mode = Mode.A


def test_the_hash_depends_on_values_and_not_on_order_or_container() -> None:
    assert schema.settings_hash({"a": 1, "b": [2]}) == schema.settings_hash({"b": (2,), "a": 1})
    assert schema.settings_hash({"a": 1}) != schema.settings_hash({"a": 2})
    same = {"path": "x/y", "size": [1, 2], "mode": "a"}
    assert schema.settings_hash(Settings()) == schema.settings_hash(same)
    assert schema.settings_hash({}) == "44136fa355b3678a"  # must not change: stored in artifacts


def test_a_reader_accepts_what_it_asked_for_and_refuses_the_rest() -> None:
    found = schema.header("latents", {"fps": 16}, {"vae": "abc"})
    schema.check_header(
        found,
        kind="latents",
        where="x",
        settings_hash=schema.settings_hash({"fps": 16}),
        made_from={"vae": "abc"},
    )
    with pytest.raises(ArtifactError, match="expected"):
        schema.check_header(found, kind="clips", where="x")
    with pytest.raises(ArtifactError, match="newer than"):
        schema.check_header({**found, "schema_version": 99}, kind="latents", where="x")
    with pytest.raises(ArtifactError, match=found["settings_hash"]):
        schema.check_header(found, kind="latents", where="x", settings_hash="0" * 16)
    with pytest.raises(ArtifactError, match="stale: made from vae abc, which is now abd"):
        schema.check_header(found, kind="latents", where="x", made_from={"vae": "abd"})


def test_the_same_settings_continue_and_others_are_refused_naming_both(tmp_path: Path) -> None:
    old, new = (schema.header("clips", {"size": size}) for size in (64, 128))
    folder = tmp_path / "out"
    assert schema.claim_folder(folder, old) == "new"
    assert schema.claim_folder(folder, old) == "continued"
    with pytest.raises(UsageError) as caught:
        schema.claim_folder(folder, new)
    assert old["settings_hash"] in caught.value.what
    assert new["settings_hash"] in caught.value.what
    assert "--force" in caught.value.fix
    assert schema.claim_folder(folder, new, force=True) == "replaced"
    assert schema.read_header(folder) == new


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    made = {"size": {"min": 480.0, "max": 3}, "fps": "16"}
    schema.claim_folder(folder, schema.header("clips", made))
    other = schema.header("clips", {"size": {"min": 80.0, "max": 3}, "fps": "24"})
    for check in (schema.check_claim, schema.claim_folder):
        with pytest.raises(UsageError, match=r"other settings \(size\.min, fps\): settings "):
            check(folder, other)
    with pytest.raises(UsageError, match=r"other settings \(fps\): "):
        schema.check_settings(folder, {"fps": "24"})
    schema.check_settings(folder, {"fps": "16"})  # not all of them have to be known
    schema.check_settings(folder, {"fps": "24"}, force=True)
    schema.check_settings(tmp_path / "new", {"fps": "24"})


def test_a_folder_of_another_kind_or_a_file_is_refused(tmp_path: Path) -> None:
    schema.claim_folder(tmp_path, schema.header("clips", {}))
    with pytest.raises(UsageError, match="kind clips, now latents"):
        schema.claim_folder(tmp_path, schema.header("latents", {}))
    with pytest.raises(UsageError, match="a file, not a folder"):
        schema.claim_folder(tmp_path / "ttv.json", schema.header("clips", {}))


def test_a_missing_or_damaged_header_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no ttv\.json"):
        schema.read_header(tmp_path)
    (tmp_path / "ttv.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        schema.read_header(tmp_path)
