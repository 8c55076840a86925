"""What all tests share: `helpers` on the import path, one thread, no TTV_ variables or cache."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny_model import TinyData

os.environ.setdefault("OMP_NUM_THREADS", "1")
if not Path("/dev/nvidiactl").exists():
    # Kernels run in Triton's interpreter; has to be set before anything imports triton.
    os.environ.setdefault("TRITON_INTERPRET", "1")
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _nobodys_settings(monkeypatch: pytest.MonkeyPatch, _cache_folder: Path) -> None:
    """Keep settings and cache of whoever runs the tests out of them, and them out of the cache."""
    for name in [name for name in os.environ if name.startswith("TTV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(_cache_folder))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> "TinyData":
    """A random tiny model with clips, latents and text made from it; read-only."""
    from tiny_model import make_data

    return make_data(tmp_path_factory.mktemp("tiny"))
