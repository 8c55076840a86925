"""The state of an unfinished sampling run, in a file beside its video."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts.safetensors_file import read_artifact, write_artifact
from ttvcli.artifacts.schema import settings_hash
from ttvcli.errors import ArtifactError

if TYPE_CHECKING:
    from ttvcli.core.diffusion.samplers import SamplerState

KIND = "sampling"


class StateFile:
    """Written after every `every` steps (0: never), whole or not at all.

    Holds the sample, the last prediction and the state of the generators, in float32 as they are
    in memory: the run that goes on from it ends with the bytes of one that was never stopped.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], every: int) -> None:
        self.path = path
        self.every = every
        self._settings = settings_hash(identity)

    def load(self) -> "SamplerState | None":
        """The state that a run with the same settings left; None if there is none, or no use."""
        from ttvcli.core.diffusion.samplers import SamplerState

        if not self.path.exists():
            return None
        try:
            tensors, about = read_artifact(self.path, KIND)
        except ArtifactError:
            return None
        if about.get("settings_hash") != self._settings:
            return None
        return SamplerState(
            int(about["next_step"]), tensors["x"], tensors["old_denoised"], tensors["generator"]
        )

    def update(self, state: "SamplerState") -> None:
        """Keep the state after a step, when it is due."""
        if not self.every or state.next_step % self.every:
            return
        tensors = {"x": state.x, "old_denoised": state.old_denoised, "generator": state.generator}
        present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        about = {"settings_hash": self._settings, "next_step": state.next_step}
        write_artifact(self.path, KIND, present, about)

    def remove(self) -> None:
        """The run is finished: its result is stored elsewhere."""
        self.path.unlink(missing_ok=True)
