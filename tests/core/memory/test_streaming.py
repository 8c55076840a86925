"""Streamed networks: the same bits as resident ones, in two blocks' worth of memory."""

import threading
import weakref
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ttvcli.artifacts.tensor_file import Weights, write_sharded
from ttvcli.core.memory import plan, streaming
from ttvcli.core.memory.streaming import Ring, StreamedBlock, ToDevice, borrowed, pack, place
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.text.t5 import T5Config, T5Encoder

CPU = torch.device("cpu")


def transformer(ssm: str, dtype: torch.dtype, layers: int = 5) -> CogVideoXTransformer:
    config = CogVideoXConfig(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        time_embed_dim=8,
        text_embed_dim=8,
        sample_height=8,
        sample_width=8,
        use_rotary_positional_embeddings=True,
        ssm=ssm,
        ttt_mini_batch=16,
        ttt_chunk_tokens=40,
    )
    network = CogVideoXTransformer(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network.to(dtype).eval()


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 7, 4, 8, 8, generator=generator).to(dtype)
    text = torch.randn(2, 3, 5, 8, generator=generator).to(dtype)
    return latents, text, torch.tensor([900, 900])


@pytest.fixture
def stored(tmp_path: Path) -> Any:
    """Write a network's weights and give what reads one of them into a tensor."""

    def store(network: nn.Module, **how: Any) -> Any:
        paths = write_sharded(tmp_path, "w", network.state_dict(), **how)
        return Weights([path for path in paths if path.suffix == ".safetensors"]).read_into

    return store


def empty_copy(network: Any) -> Any:
    dtype = next(network.parameters()).dtype
    with torch.device("meta"):
        return type(network)(network.config).to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ssm", ["none", "ttt_linear", "ttt_mlp", "ttt_large_chunk"])
def test_a_streamed_transformer_gives_the_bits_of_the_resident_one(
    stored: Any, ssm: str, dtype: torch.dtype
) -> None:
    network = transformer(ssm, dtype)
    reader = stored(network, shard_bytes=20_000)  # shards do not end where blocks do
    latents, text, timestep = inputs(dtype)
    with torch.inference_mode():
        expected = network(latents, text, timestep)
    for resident in (0, 2, 4, 5):
        copy = empty_copy(network)
        ring = place(
            copy,
            copy.transformer_blocks,
            "transformer_blocks.",
            reader,
            device=CPU,
            resident=resident,
            from_disk=True,
        )
        with torch.inference_mode():
            for _ in range(2):
                assert torch.equal(copy(latents, text, timestep), expected)
        assert (ring is None) == (resident == 5)
        if ring:
            ring.close()


def test_a_streamed_text_encoder_reads_each_text_as_if_it_were_alone(stored: Any) -> None:
    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=4, num_heads=2)
    encoder = T5Encoder(config).eval()
    encoder.init_weights(torch.Generator().manual_seed(0))
    copy = empty_copy(encoder)
    ring = place(
        copy,
        copy.encoder.block,
        "encoder.block.",
        stored(encoder),
        device=CPU,
        resident=1,
        from_disk=True,
        cyclic=False,
        by_row=True,
    )
    ids = torch.randint(0, 64, (3, 7))
    with torch.inference_mode():
        alone = torch.cat([encoder(row) for row in ids.split(1)])
        assert torch.equal(copy(ids), alone)
    assert ring is not None
    ring.close()
    first = weakref.ref(copy.encoder.block[0])
    del copy
    assert first() is None  # at once, without a collection of garbage


class Counter:
    """A source that remembers what it was asked for, and how much memory it filled."""

    def __init__(self, slots: list[nn.Linear]) -> None:
        self.slots, self.filled, self.lent = slots, [], None
        self.threads: set[str] = set()

    def mark(self) -> None:
        pass

    def fill(self, index: int, slot: int, mark: None) -> None:
        assert slot != self.lent, "a slot was overwritten while it was in use"
        self.threads.add(threading.current_thread().name)
        self.filled.append(index)
        with torch.no_grad():
            self.slots[slot].weight.fill_(index)

    def close(self) -> None:
        pass


def test_the_ring_lends_the_right_block_also_after_a_pass_was_broken_off() -> None:
    slots = [nn.Linear(2, 2), nn.Linear(2, 2)]
    source = Counter(slots)
    ring = Ring(slots, source, [3, 4, 5, 6, 7])
    for index in (3, 4, 5, 3, 4, 5, 6, 7, 3, 4):  # broken off after 5, then a whole pass
        with ring.block(index) as block:
            source.lent = slots.index(block)
            assert block.weight[0, 0].item() == index
            source.lent = None
    ring.close()
    assert threading.main_thread().name not in source.threads


def test_the_next_block_is_read_while_one_computes_and_the_one_after_it_is_not() -> None:
    network = transformer("none", torch.float32)
    with torch.device("meta"):
        copy = CogVideoXTransformer(network.config)
    state = network.state_dict()
    begun = {number: threading.Event() for number in range(5)}

    def read(name: str, target: Tensor) -> None:
        target.copy_(state[name])
        if name.startswith("transformer_blocks."):
            begun[int(name.split(".")[1])].set()

    blocks = copy.transformer_blocks
    where: dict[str, Any] = {"device": CPU, "resident": 0, "from_disk": True}
    ring = place(copy, blocks, "transformer_blocks.", read, **where)
    with borrowed(blocks[0]):
        assert begun[1].wait(timeout=30)
        assert not begun[2].wait(timeout=0.1)
    assert ring is not None
    ring.close()
    assert plan.RING == streaming.RING  # what is counted, and what there is


def test_a_single_pass_reads_each_block_once() -> None:
    slots = [nn.Linear(2, 2), nn.Linear(2, 2)]
    source = Counter(slots)
    ring = Ring(slots, source, [0, 1, 2, 3], cyclic=False)
    for index in range(4):
        with ring.block(index):
            pass
    ring.close()
    assert source.filled == [0, 1, 2, 3]


def test_what_reading_raises_is_raised_where_the_block_is_used() -> None:
    class Broken(Counter):
        def fill(self, index: int, slot: int, mark: None) -> None:
            raise OSError("the disk is gone")

    slots = [nn.Linear(2, 2), nn.Linear(2, 2)]
    block = StreamedBlock(Ring(slots, Broken(slots), [0, 1, 2]), 0)
    with pytest.raises(OSError, match="the disk is gone"):
        block(torch.ones(1, 2))
    block.ring.close()


class Card:
    """Stands for a GPU and its driver; "copies" stay in the memory of the CPU.

    Attributes:
        pinned: addresses that are pinned now.
        pending: a refusal that the next kernel would report.
        events: what the copy stream was told, in order.
    """

    device = CPU
    cudaError = SimpleNamespace(success=0)

    def __init__(self, refuses: bool) -> None:
        self.refuses, self.pending = refuses, False
        self.pinned: set[int] = set()
        self.events: list[str] = []

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        self.pending = self.refuses
        if not self.refuses:
            self.pinned.add(address)
        return int(self.refuses)

    def cudaHostUnregister(self, address: int) -> None:
        self.pinned.remove(address)

    def launch(self, *args: Any, **options: Any) -> None:
        pending, self.pending = self.pending, False
        if pending:
            raise RuntimeError("CUDA error: operation not supported")

    def record_event(self) -> str:
        return "free"

    def wait_event(self, mark: str) -> None:
        self.events.append(mark)

    def synchronize(self) -> None:
        self.events.append("there")


@pytest.mark.parametrize("refuses", [False, True], ids=["pinned", "pinning-refused"])
@pytest.mark.parametrize("from_disk", [False, True], ids=["from-host", "from-disk"])
def test_blocks_reach_a_gpu_once_their_slot_is_free(
    stored: Any, from_disk: bool, refuses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(refuses)
    for name in ("cudart", "current_stream", "Stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: card)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    network = transformer("ttt_mlp", torch.bfloat16)
    blocks = empty_copy(network).transformer_blocks
    slots = [deepcopy(blocks[0]), deepcopy(blocks[0])]
    memory = [pack(slot, CPU) for slot in slots]
    with monkeypatch.context() as during:
        during.setattr(torch, "ones", card.launch)
        source = ToDevice(
            blocks,
            range(5),
            memory,
            "transformer_blocks.",
            stored(network),
            from_disk=from_disk,
        )
    assert not card.pending
    assert len(card.pinned) == (0 if refuses else 1 if from_disk else 5)
    ring = Ring(slots, source, range(5), cyclic=False)
    for index, expected in enumerate(network.transformer_blocks):
        with ring.block(index) as block:
            for ours, theirs in zip(block.parameters(), expected.parameters(), strict=True):
                assert torch.equal(ours, theirs)
    ring.close()
    assert card.events == ["free", "there"] * 5
    assert not card.pinned


def test_a_packed_block_is_one_piece_of_memory_and_computes_the_same() -> None:
    block = transformer("ttt_mlp", torch.bfloat16, layers=1).transformer_blocks[0]
    before = {name: parameter.clone() for name, parameter in block.named_parameters()}
    memory = pack(block, CPU)
    start, end = memory.data_ptr(), memory.data_ptr() + memory.numel()
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.copy_(before[name])
            assert start <= parameter.data_ptr() < end
        for name, parameter in block.named_parameters():
            assert torch.equal(parameter, before[name])  # no two overlap
    needed = sum(p.numel() * p.element_size() for p in before.values())
    assert memory.numel() - needed < 256 * len(before)
