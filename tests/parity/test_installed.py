"""Nothing in this folder is left out in silence where all of it has to run."""

import importlib
import os

import pytest

pytestmark = pytest.mark.parity


@pytest.mark.skipif("CI" not in os.environ, reason="elsewhere they are optional")
@pytest.mark.parametrize("name", ["diffusers", "transformers", "google.protobuf", "sentencepiece"])
def test_what_is_compared_with_is_there_in_continuous_integration(name: str) -> None:
    importlib.import_module(name)
