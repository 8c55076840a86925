"""Model folders in the layout of diffusers: the built-in model, and any CogVideoX.

model_index.json
transformer/    config.json  *.safetensors (one file, or shards and an index)
vae/            config.json  *.safetensors
text_encoder/   config.json  *.safetensors
tokenizer/      spiece.model
scheduler/      scheduler_config.json
ttv.json        only in models that ttv wrote: the header, and what diffusers has no place for
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts import file_hashes
from ttvcli.artifacts.atomic import write_bytes, write_json
from ttvcli.artifacts.schema import HEADER_NAME, header, read_header
from ttvcli.artifacts.tensor_file import Weights, write_sharded
from ttvcli.artifacts.weight_files import weight_files
from ttvcli.errors import ArtifactError, nearest

if TYPE_CHECKING:
    import torch

BUILTIN = Path(__file__).resolve().parent.parent / "builtin"

# component -> (library and class in model_index.json)
COMPONENTS = {
    "transformer": ("diffusers", "CogVideoXTransformer3DModel"),
    "vae": ("diffusers", "AutoencoderKLCogVideoX"),
    "text_encoder": ("transformers", "T5EncoderModel"),
    "tokenizer": ("transformers", "T5Tokenizer"),
    "scheduler": ("diffusers", "CogVideoXDDIMScheduler"),
}
CONFIG_NAMES = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
WEIGHT_STEMS = {"text_encoder": "model"}
USUAL_STEM = "diffusion_pytorch_model"
# component -> other names under which files store a tensor
ALIASES = {"text_encoder": {"encoder.embed_tokens.weight": "shared.weight"}}
TOKENIZER_FILE = "spiece.model"


def builtin_names() -> list[str]:
    """Return the names of the models that come with ttv."""
    return sorted(path.parent.name for path in BUILTIN.glob("*/model_index.json"))


def resolve_model(name: str | Path) -> Path:
    """Return the folder of a model, given the name of a built-in one or a path."""
    folder = Path(name)
    if str(name) in builtin_names():
        return BUILTIN / str(name)
    if is_model_folder(folder):
        return folder
    how = "or give a folder in the diffusers layout, such as a download of THUDM/CogVideoX-2b"
    if folder.is_dir():
        raise ArtifactError(
            "not a model folder: it has no model_index.json and no transformer/",
            where=str(folder),
            fix=f"built in: {', '.join(builtin_names()) or 'none'}; {how}",
        )
    raise ArtifactError(
        f"there is no model {str(name)!r}", fix=f"{nearest(str(name), builtin_names())}; {how}"
    )


def is_model_folder(folder: str | Path) -> bool:
    """Tell whether a folder looks like a model."""
    folder = Path(folder)
    return (folder / "model_index.json").is_file() or any(
        (folder / component / "config.json").is_file() for component in COMPONENTS
    )


def config_path(folder: str | Path, component: str) -> Path:
    """Return where a component keeps its configuration."""
    return Path(folder) / component / CONFIG_NAMES.get(component, "config.json")


def has_component(folder: str | Path, component: str) -> bool:
    """Tell whether a model folder has a component."""
    if component == "tokenizer":
        return (Path(folder) / component / TOKENIZER_FILE).is_file()
    return config_path(folder, component).is_file()


def read_config(folder: str | Path, component: str) -> dict[str, Any]:
    """Read the JSON configuration of a component, without diffusers' private keys (`_...`)."""
    path = config_path(folder, component)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"the model has no {component}",
            where=str(path),
            fix="check the download, or name a model that has it with --model",
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot be read as JSON: {error}", where=str(path)) from error
    if not isinstance(config, dict):
        raise ArtifactError("expected a JSON object", where=str(path))
    return {key: value for key, value in config.items() if not key.startswith("_")}


def open_weights(folder: str | Path, component: str) -> Weights:
    """Open the weights of a component; tensors are mapped from disk when they are asked for."""
    return Weights(weight_files(Path(folder) / component), ALIASES.get(component))


def check_weights(
    weights: Weights, expected: Mapping[str, tuple[int, ...]], *, where: str | Path
) -> None:
    """Compare names and shapes with what a network needs, before any tensor is loaded."""
    check_shapes({name: weights.infos[name].shape for name in weights}, expected, where=where)


def check_shapes(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    *,
    where: str | Path,
) -> None:
    """Raise ArtifactError that names what is missing, unknown, and of another shape."""
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    wrong = [
        f"{name} is {list(found[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != tuple(shape)
    ]
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for kind, names in (("missing", missing), ("unknown", surplus), ("of another shape", wrong))
        if names
    ]
    if problems:
        raise ArtifactError(
            f"the weights do not fit the model ({'; '.join(problems)})",
            where=str(where),
            fix="weights and config.json must come from the same checkpoint",
        )


def component_hash(folder: str | Path, component: str) -> str:
    """Return 16 hex digits over the configuration and weights (or tokenizer) of a component.

    They tell which component it is. Large files that nobody wrote to since an earlier run are not
    read again, so damage on the disk goes unseen: `broken_components` reads every byte.
    """
    return hash_of_files(component_files(folder, component), between_runs=True)


def hash_of_files(files: Iterable[Path], *, between_runs: bool = False) -> str:
    """Return 16 hex digits over the content of files, in their order; each is read once.

    `between_runs`: see `file_hashes.digest_of`. It is for models, which many runs share, and not
    for data sets, of which there are more files than are remembered.
    """
    return _joined(file_hashes.digest_of(path, between_runs=between_runs) for path in files)


def component_files(folder: str | Path, component: str) -> list[Path]:
    """Return the files that define a component."""
    inside = Path(folder) / component
    if component == "tokenizer":
        return [inside / TOKENIZER_FILE]
    config = config_path(folder, component)
    if not config.is_file():
        read_config(folder, component)  # raises, saying how to get it
    return [config] if component == "scheduler" else [config, *weight_files(inside)]


def _joined(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16]


def write_component(
    folder: str | Path,
    component: str,
    config: Mapping[str, Any],
    state_dict: "Mapping[str, torch.Tensor]",
) -> None:
    """Write configuration and weights of a component, and enter it in `model_index.json`."""
    inside = Path(folder) / component
    inside.mkdir(parents=True, exist_ok=True)
    for old in (*inside.glob("*.safetensors"), *inside.glob("*.safetensors.index.json")):
        old.unlink()
    write_sharded(inside, WEIGHT_STEMS.get(component, USUAL_STEM), state_dict)
    write_config(folder, component, config)


def write_config(folder: str | Path, component: str, config: Mapping[str, Any]) -> None:
    """Write the configuration of a component with the class names that diffusers looks for."""
    library, name = COMPONENTS[component]
    private = {"_class_name": name} if library == "diffusers" else {"architectures": [name]}
    path = config_path(folder, component)
    write_json(path, {**private, **config})
    _enter(Path(folder), component)


def write_file(folder: str | Path, name: str, data: bytes) -> None:
    """Write any other file of a model, such as "tokenizer/spiece.model"."""
    write_bytes(Path(folder) / name, data)
    component = name.partition("/")[0]
    if component in COMPONENTS:
        _enter(Path(folder), component)


def copy_components(source: str | Path, target: str | Path, *, skip: tuple[str, ...] = ()) -> None:
    """Copy the components of one model folder into another, and what `read_about` says of it."""
    source, target = Path(source), Path(target)
    for component in COMPONENTS:
        if component in skip or not (source / component).is_dir():
            continue
        (target / component).mkdir(parents=True, exist_ok=True)
        for file in sorted((source / component).iterdir()):
            if file.is_file():
                shutil.copyfile(file, target / component / file.name)
        _enter(target, component)
    if (source / HEADER_NAME).is_file():
        about = read_about(source)
        about.pop("hashes", None)  # they are of the model as a whole, which the copy need not be
        write_about(target, about)


def copy_files(source: str | Path, target: str | Path, component: str) -> None:
    """Copy every file of a component as it is, and enter it in `model_index.json`."""
    inside = Path(target) / component
    inside.mkdir(parents=True, exist_ok=True)
    for file in sorted((Path(source) / component).iterdir()):
        if file.is_file() and not file.name.startswith("."):
            shutil.copyfile(file, inside / file.name)
    _enter(Path(target), component)


def read_about(folder: str | Path) -> dict[str, Any]:
    """Return what ttv noted about a model that it wrote; {} for a model from elsewhere."""
    if not (Path(folder) / HEADER_NAME).is_file():
        return {}
    return dict(read_header(folder).get("settings", {}))


def write_about(
    folder: str | Path, about: Mapping[str, Any], made_from: Mapping[str, Any] | None = None
) -> None:
    """Note facts about a model that the diffusers layout has no place for."""
    write_json(Path(folder) / HEADER_NAME, header("model", about, made_from))


def seal(folder: str | Path) -> dict[str, str]:
    """Note the hash of every component in the folder, for `broken_components` to check later."""
    hashes = {name: _read_hash(folder, name) for name in COMPONENTS if _is_there(folder, name)}
    write_about(folder, {**read_about(folder), "hashes": hashes})
    return hashes


def broken_components(folder: str | Path) -> list[str]:
    """Return the components that differ from what the folder was sealed with; reads every byte."""
    hashes = read_about(folder).get("hashes", {})
    return [
        name
        for name, expected in hashes.items()
        if not _is_there(folder, name) or _read_hash(folder, name) != expected
    ]


def _read_hash(folder: str | Path, component: str) -> str:
    """Like `component_hash`, of the bytes as they are now: remembered ones may have gone bad."""
    return _joined(file_hashes.read_digest(path) for path in component_files(folder, component))


def _is_there(folder: str | Path, component: str) -> bool:
    try:
        return all(path.is_file() for path in component_files(folder, component))
    except ArtifactError:
        return False


def _enter(folder: Path, component: str) -> None:
    path = folder / "model_index.json"
    index: dict[str, Any] = {"_class_name": "CogVideoXPipeline"}
    if path.is_file():
        index = json.loads(path.read_text(encoding="utf-8"))
    index[component] = list(COMPONENTS[component])
    write_json(path, {name: index[name] for name in sorted(index)})
