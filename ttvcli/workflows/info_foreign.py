"""What `ttv info` says of the files of other programs: from names and shapes, without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttvcli.artifacts.torch_layout import Described, read_dcp, read_pt
from ttvcli.core.models.cogvideox.layouts import (
    PUBLIC_PREFIX,
    is_public,
    is_sat,
    is_sat_vae,
    public_sizes,
)
from ttvcli.core.models.cogvideox.published import family

Facts = dict[str, Any]
BASE = "--base path/to/CogVideoX-5b"
SAT_FILES = {"transformer": "mp_rank_00_model_states.pt", "vae": "3d-vae.pt"}
SAT_DEPTH = 4  # folders in which they are looked for
_FEW = 8


def dcp_folder(path: Path) -> tuple[str, Facts]:
    """A folder of `torch.distributed.checkpoint`."""
    size = sum(file.stat().st_size for file in path.glob("*.distcp"))
    return _named(read_dcp(path), path, size)


def pt_file(path: Path) -> tuple[str, Facts]:
    """A `.pt` file: a checkpoint, or one tensor of a TTT-Video dataset."""
    found = read_pt(path)
    size = path.stat().st_size
    if not isinstance(found, Described):
        return _named(found, path, size)
    kinds = {4: "TTT-Video latents", 2: "TTT-Video text embedding"}
    facts: Facts = {"dtype": found.dtype, "shape": list(found.shape), "bytes": size}
    if len(found.shape) not in kinds:
        return "tensor", facts
    return kinds[len(found.shape)], {
        **facts,
        "to use it": f"ttv export path/to/dataset.jsonl {BASE} --out data/",
    }


def sat_folder(path: Path) -> tuple[str, Facts] | None:
    """The folder of a SAT release; None if it is none."""
    facts: Facts = {}
    for part, name in SAT_FILES.items():
        for file in (file for depth in range(SAT_DEPTH) for file in path.glob("*/" * depth + name)):
            facts[part] = {"file": str(file.relative_to(path)), **_counted(_tensors(file))}
    return ("SAT checkpoint", {**facts, "to use it": _export(path)}) if facts else None


def dataset_file(path: Path, lines: list[str]) -> tuple[str, Facts]:
    """The JSONL of a TTT-Video dataset."""
    return "TTT-Video dataset", {
        "clips": sum(1 for line in lines if line.strip()),
        "to use it": f"ttv export {path} {BASE} --out data/",
    }


def _named(tensors: Mapping[str, Described], path: Path, size: int) -> tuple[str, Facts]:
    if is_public(tensors):
        bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        ours = {name: x for name, x in bare.items() if name.startswith(PUBLIC_PREFIX)} or bare
        sizes = public_sizes({name: tensor.shape for name, tensor in ours.items()})
        called = family({**sizes, "use_rotary_positional_embeddings": True}, {})
        facts = {"family": called, **_counted(ours), "bytes": size, **sizes}
        if len(ours) < len(tensors):
            facts["besides"] = f"{len(tensors) - len(ours)} other tensors, such as an optimizer's"
        return "TTT-Video checkpoint", {**facts, "to use it": _export(path)}
    facts = {**_counted(tensors), "bytes": size}
    if is_sat(tensors) or is_sat_vae(tensors):
        part = "transformer" if is_sat(tensors) else "vae"
        return "SAT checkpoint", {"part": part, **facts, "to use it": _export(path)}
    if len(tensors) <= _FEW:
        shown = {name: {"dtype": x.dtype, "shape": list(x.shape)} for name, x in tensors.items()}
        facts["tensors"] = shown
    return "weights", facts


def _tensors(path: Path) -> Mapping[str, Described]:
    found = read_pt(path)
    return {"": found} if isinstance(found, Described) else found


def _counted(tensors: Mapping[str, Described]) -> Facts:
    return {
        "parameters": sum(tensor.elements for tensor in tensors.values()),
        "dtypes": sorted({tensor.dtype for tensor in tensors.values()}),
    }


def _export(path: Path) -> str:
    return f"ttv export {path} {BASE} --out model/"
