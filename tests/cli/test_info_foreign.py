"""`ttv info` on the files of other programs: what they are, and which command reads them."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_ttv
from torch import Tensor

from ttvcli.artifacts.atomic import write_json
from ttvcli.artifacts.distributed_checkpoint import write_distributed
from ttvcli.artifacts.schema import header
from ttvcli.artifacts.torch_layout import read_dcp, read_pt
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.cogvideox.weights import to_public


def public(ssm: str) -> dict[str, Tensor]:
    """Tensors of a TTT-Video checkpoint of two layers with two heads of 16."""
    config = CogVideoXConfig(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, text_embed_dim=8, ssm=ssm
    )
    network = CogVideoXTransformer(config).to(torch.bfloat16)
    return dict(to_public(network.state_dict(), "dit."))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("foreign")
    tensors = public("ttt_mlp")
    moments = {"optimizer.state.dit.x.exp_avg": torch.zeros(3)}
    saved = {f"model.{name}": tensor for name, tensor in tensors.items()}
    for name, content in (("converted", tensors), ("step-500", {**saved, **moments})):
        (root / name).mkdir()
        write_distributed(root / name, content)
    torch.save({"model": public("none")}, root / "public.pt")
    fused = "model.diffusion_model.transformer.layers.0.attention.query_key_value.weight"
    sat = root / "sat" / "transformer" / "1" / "mp_rank_00_model_states.pt"
    sat.parent.mkdir(parents=True)
    torch.save({"module": {fused: torch.nn.Parameter(torch.zeros(6, 2))}}, sat)
    torch.save({"state_dict": {"encoder.down.0.weight": torch.zeros(5)}}, root / "3d-vae.pt")
    torch.save(torch.zeros(13, 32, 4, 4, dtype=torch.bfloat16), root / "clip.pt")
    torch.save(torch.zeros(498, 8, dtype=torch.float16), root / "text.pt")
    torch.save({"w": torch.zeros(2, 3, dtype=torch.uint16)}, root / "plain.pt")
    line = json.dumps({"vid_emb": "clip.pt", "text_chunk_emb": ["text.pt"]})
    (root / "dataset.jsonl").write_text(f"{line}\n{line}\n")
    return root


SIZES = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
COUNT = sum(tensor.numel() for tensor in public("ttt_mlp").values())


@pytest.mark.parametrize(
    ("name", "kind", "facts"),
    [
        (
            "converted",
            "TTT-Video checkpoint",
            {**SIZES, "ssm": "ttt_mlp", "parameters": COUNT, "dtypes": ["BF16"]},
        ),
        ("converted/__0_0.distcp", "TTT-Video checkpoint", {"parameters": COUNT}),
        (
            "step-500",
            "TTT-Video checkpoint",
            {**SIZES, "parameters": COUNT, "besides": "1 other tensors, such as an optimizer's"},
        ),
        ("public.pt", "TTT-Video checkpoint", {**SIZES, "ssm": "none"}),
        ("sat", "SAT checkpoint", {}),
        ("3d-vae.pt", "SAT checkpoint", {"part": "vae", "parameters": 5}),
        ("clip.pt", "TTT-Video latents", {"dtype": "BF16", "shape": [13, 32, 4, 4]}),
        ("text.pt", "TTT-Video text embedding", {"dtype": "F16", "shape": [498, 8]}),
        ("dataset.jsonl", "TTT-Video dataset", {"clips": 2}),
        ("plain.pt", "weights", {"tensors": {"w": {"dtype": "U16", "shape": [2, 3]}}}),
    ],
)
def test_a_foreign_file_is_named_with_its_sizes_and_what_reads_it(
    foreign: Path, name: str, kind: str, facts: dict[str, Any]
) -> None:
    told = run_ttv("info", foreign / name, "--json").json
    assert told["kind"] == kind
    assert {key: told[key] for key in facts} == facts
    if kind != "weights":
        assert told["to use it"].startswith("ttv export ")


def test_what_is_written_for_ttt_video_is_described_with_its_header(tmp_path: Path) -> None:
    write_distributed(tmp_path, public("ttt_linear"))
    write_json(tmp_path / "ttv.json", header("export", {"format": "ttt-video"}))
    told = run_ttv("info", tmp_path, "--json").json
    assert (told["kind"], told["ssm"]) == ("export", "ttt_linear")


def test_names_shapes_and_dtypes_are_those_that_pytorch_reads(foreign: Path) -> None:
    tensors = torch.load(foreign / "public.pt")["model"]
    described = read_pt(foreign / "public.pt")
    assert isinstance(described, dict)
    assert {name: x.shape for name, x in described.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    dcp = read_dcp(foreign / "converted")
    assert {name: x.elements for name, x in dcp.items()} == {
        name: tensor.numel() for name, tensor in public("ttt_mlp").items()
    }


def test_foreign_files_are_described_without_torch(foreign: Path) -> None:
    code = (
        "import sys\n"
        "from ttvcli.cli.main import main\n"
        "assert all(main(['info', name]) == 0 for name in sys.argv[1:])\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    names = ("converted", "public.pt", "sat", "clip.pt", "dataset.jsonl")
    subprocess.run(
        [sys.executable, "-c", code, *(str(foreign / name) for name in names)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


class Evil:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_nothing_in_a_foreign_file_is_run_to_describe_it(tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    torch.save({"model": {"w": torch.zeros(1)}, "extra": Evil(mark)}, tmp_path / "x.pt")
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(Evil(mark)))
    for name in ("x.pt", "dcp"):
        ran = run_ttv("info", tmp_path / name)
        assert ran.code == 3
        assert "cannot be read: it asks for" in ran.stderr
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "says"), [(b"\x80\x02\x8a\x0a", "before 1.6"), (b"no", "not a file of PyTorch")]
)
def test_a_pt_file_that_does_not_tell_is_one_error(
    content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    ran = run_ttv("info", tmp_path / "x.pt")
    assert ran.code == 3
    assert says in ran.stderr


def test_a_folder_that_names_no_tensors_is_one_error(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(pickle.dumps({}))
    ran = run_ttv("info", tmp_path)
    assert ran.code == 3
    assert "it names no tensors" in ran.stderr
