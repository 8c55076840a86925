"""The tables of choices: every entry loads, every unknown name is answered with a suggestion."""

import pytest

from ttvcli import catalog
from ttvcli.errors import UsageError

ENTRIES = [(table, name) for table, entries in catalog.TABLES.items() for name in entries]


@pytest.mark.parametrize(("table", "name"), ENTRIES)
def test_every_entry_loads(table: str, name: str) -> None:
    assert catalog.get(table, name) is not None


def test_the_table_itself_and_its_name_give_the_same_entry() -> None:
    assert catalog.get(catalog.SAMPLERS, "ddim") is catalog.get("sampler", "ddim")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        catalog.get(catalog.SAMPLERS, "dimm")
    assert "sampler 'dimm'" in caught.value.what
    assert caught.value.fix.startswith("did you mean ddim")
    assert "dpm++2m-sde" in caught.value.fix
