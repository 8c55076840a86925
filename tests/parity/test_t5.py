"""The T5 encoder and its tokenizer against transformers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ttvcli.core.models.text.t5 import T5Config, T5Encoder
from ttvcli.core.models.text.tokenizer import (
    END_SCENE,
    START_SCENE,
    SentencePieceTokenizer,
    train_tokenizer,
)

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

SMALL = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text_encoder folder written by transformers, every weight random."""
    folder = tmp_path_factory.mktemp("text_encoder")
    theirs = transformers.T5EncoderModel(transformers.T5Config(**SMALL.to_dict()))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weight in sorted(theirs.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.2 * noise if weight.ndim == 1 else noise / weight[0].numel() ** 0.5)
    theirs.save_pretrained(folder)
    return folder


def ours(folder: Path) -> T5Encoder:
    encoder = T5Encoder(T5Config.from_dict(json.loads((folder / "config.json").read_text())))
    encoder.load_state_dict(load_file(folder / "model.safetensors"))
    return encoder


def hidden(folder: Path, dtype: torch.dtype, ids: torch.Tensor) -> torch.Tensor:
    theirs = transformers.T5EncoderModel.from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        return theirs(ids)[0]


def token_ids(length: int) -> torch.Tensor:
    ids = torch.randint(2, 64, (2, length), generator=torch.Generator().manual_seed(1))
    ids[0, length // 2 :] = 0  # padding that nothing masks
    return ids


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm().detach() / b.double().norm())


@pytest.mark.parametrize("length", [1, 10, 226])
@pytest.mark.parametrize(
    # float64 shows that the maths is the same (measured 5e-16); what is left in float32 is the
    # rounding of two attention kernels (2e-7 to 5e-6, and as much from the float64 result)
    ("dtype", "tolerance"),
    [(torch.float64, 1e-13), (torch.float32, 1e-5)],
)
def test_hidden_states_equal(
    folder: Path, dtype: torch.dtype, tolerance: float, length: int
) -> None:
    ids = token_ids(length)
    with torch.no_grad():  # autograd would pick another attention kernel
        got = ours(folder).to(dtype)(ids)
    assert got.dtype == dtype
    assert distance(got, hidden(folder, dtype, ids)) < tolerance


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_as_close_to_exact_as_theirs(folder: Path, dtype: torch.dtype) -> None:
    ids = token_ids(50)
    exact = hidden(folder, torch.float64, ids)
    theirs, mine = hidden(folder, dtype, ids), ours(folder).cast(dtype)(ids)
    assert mine.dtype == theirs.dtype == dtype
    assert distance(mine, exact) < 1.1 * distance(theirs, exact)


def test_transformers_loads_what_we_write(folder: Path) -> None:
    encoder = T5Encoder(SMALL)
    encoder.init_weights(torch.Generator().manual_seed(3))
    theirs = transformers.T5EncoderModel(transformers.T5Config(**SMALL.to_dict())).eval()
    missing, unexpected = theirs.load_state_dict(encoder.state_dict(), strict=False)
    assert unexpected == []
    assert missing == ["encoder.embed_tokens.weight"]  # tied to shared.weight
    ids = token_ids(20)
    with torch.no_grad():
        expected = theirs(ids)[0]
    assert distance(encoder(ids), expected) < 1e-5


SENTENCES = [
    f"A {colour} {shape} moves {way}, over a {ground} background!"
    for colour in ("red", "green", "blue")
    for shape in ("circle", "square", "star")
    for way in ("left", "right")
    for ground in ("dark", "plain")
]
TEXTS = [
    "",
    "a red circle",
    "A RED circle,  moves   left!",
    " zebra-crossing (at 5 o'clock): 100% blue ",
    "full-width ＡＢＣ and ligature ﬁ",
    "line\nbreak\tand tab",
]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("google.protobuf", reason="transformers reads spiece.model with protobuf")
    path = tmp_path_factory.mktemp("tokenizer") / "spiece.model"
    train_tokenizer(SENTENCES, path, 256)
    return path


@pytest.mark.parametrize("text", TEXTS)
def test_token_ids_equal(model_path: Path, text: str) -> None:
    theirs = transformers.T5Tokenizer.from_pretrained(model_path.parent, extra_ids=0)
    mine = SentencePieceTokenizer(model_path)
    budget = mine.count(text) + 3
    expected = theirs(text, padding="max_length", max_length=budget, truncation=True)["input_ids"]
    assert mine.encode(text, budget) == expected
    cut = theirs(text, padding="max_length", max_length=3, truncation=True)["input_ids"]
    assert mine.encode(text, 3) == cut


def test_added_scene_tokens_equal(tmp_path: Path) -> None:
    pytest.importorskip("google.protobuf", reason="transformers reads spiece.model with protobuf")
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=60,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    theirs = transformers.T5Tokenizer.from_pretrained(tmp_path)  # with its 100 sentinels
    theirs.add_tokens([START_SCENE, END_SCENE], special_tokens=True)
    mine = SentencePieceTokenizer(tmp_path / "spiece.model")
    text = f"{START_SCENE} A red circle moves left {END_SCENE}"
    assert mine.encode(text, mine.count(text)) == theirs(text)["input_ids"]
    assert mine.vocab_size == len(theirs)
