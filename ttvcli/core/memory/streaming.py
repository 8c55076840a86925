"""Run a network of which only a few blocks are in memory at a time.

Blocks that do not fit stay in pinned host memory or on disk, and take turns in a ring of two: while
one computes, the next is copied. The arithmetic is that of the network itself, so the result is the
same to the bit.

The network is built on the meta device; `place` gives it memory block by block. Weights come from a
function `read(name, tensor)`, which copies the weight of that name into a CPU tensor.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Read = Callable[[str, Tensor], None]
ALIGNMENT = 256  # bytes; what CUDA's own allocator gives
RING = 2


class Source(Protocol):
    """Where the weights of streamed blocks come from."""

    def mark(self) -> Any:
        """Called when a slot becomes free; the value is passed to `fill`."""

    def fill(self, index: int, slot: int, mark: Any) -> None:
        """Copy the weights of a block into a slot; called from a thread of its own."""

    def close(self) -> None:
        """Let go of memory and files."""


class Ring:
    """Two blocks' worth of memory that the streamed blocks take turns in.

    Args:
        slots: modules of equal shape, with memory.
        source: fills them.
        indices: the streamed blocks, in the order in which they run.
        cyclic: after the last one, fetch the first again: another pass follows.
    """

    def __init__(
        self,
        slots: Sequence[nn.Module],
        source: Source,
        indices: Sequence[int],
        *,
        cyclic: bool = True,
    ) -> None:
        self._slots = slots
        self._source = source
        self._indices = list(indices)
        self._cyclic = cyclic
        self._next = 0  # position in `indices` of the block to fetch next
        self._queue: deque[tuple[int, int, Future[None]]] = deque()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="weights")

    @contextmanager
    def block(self, index: int) -> Iterator[nn.Module]:
        """Lend the block of that index; the memory is another's as soon as the context ends."""
        if not self._queue or self._queue[0][0] != index:
            self._restart(index)
        _, slot, fetched = self._queue.popleft()
        fetched.result()  # raises what reading raised
        try:
            yield self._slots[slot]
        finally:
            self._request(slot)

    def close(self) -> None:
        """Stop fetching and let go of the memory."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._queue.clear()
        self._slots = []
        self._source.close()

    def _restart(self, index: int) -> None:
        """Fetch from `index` on, whatever was under way (a pass may have been broken off)."""
        for _, _, fetched in self._queue:
            fetched.exception()  # wait: a slot must not be written to twice at once
        self._queue.clear()
        self._next = self._indices.index(index)
        for slot in range(len(self._slots)):
            self._request(slot)

    def _request(self, slot: int) -> None:
        if self._next == len(self._indices):
            if not self._cyclic:
                return
            self._next = 0
        index = self._indices[self._next]
        self._next += 1
        fetched = self._worker.submit(self._source.fill, index, slot, self._source.mark())
        self._queue.append((index, slot, fetched))


class StreamedBlock(nn.Module):
    """Stands where a block would; borrows its weights from a ring for each call."""

    def __init__(self, ring: Ring, index: int) -> None:
        super().__init__()
        self.ring, self.index = ring, index

    def forward(self, *inputs: Any) -> Any:
        with self.ring.block(self.index) as block:
            return block(*inputs)


@contextmanager
def borrowed(block: nn.Module) -> Iterator[nn.Module]:
    """The block itself, with its weights in memory, wherever they are kept."""
    if isinstance(block, StreamedBlock):
        with block.ring.block(block.index) as module:
            yield module
    else:
        yield block


def place(
    network: nn.Module,
    blocks: nn.ModuleList,
    prefix: str,
    read: Read,
    *,
    device: torch.device,
    resident: int,
    from_disk: bool,
    cyclic: bool = True,
    by_row: bool = False,
) -> Ring | None:
    """Give a network on the meta device its weights; returns the ring, to be closed at the end.

    Args:
        network: with the wanted dtypes; changed in place.
        blocks: its blocks, all of one shape from number `resident` on.
        prefix: of the names of the blocks' weights, such as "transformer_blocks.".
        read: see the module's text.
        resident: so many blocks, the first ones, stay on the device.
        from_disk: read the others anew each time, instead of keeping them in host memory.
        cyclic: see `Ring`.
        by_row: every block takes the rows of its first argument one by one, which gives what a
            pass of each row alone gives, to the bit, and reads the weights once for all of them.
    """
    _place_rest(network, blocks, prefix, read, device)
    for index in range(min(resident, len(blocks))):
        pack(blocks[index], device)
        _read_block(blocks[index], f"{prefix}{index}.", read)
        if by_row:
            _take_rows_singly(blocks[index])
    streamed = range(resident, len(blocks))
    if not streamed:
        return None
    slots = [deepcopy(blocks[resident]) for _ in range(min(RING, len(streamed)))]
    memory = [pack(slot, device) for slot in slots]
    if by_row:
        for slot in slots:
            _take_rows_singly(slot)
    source: Source
    if device.type == "cuda":
        source = ToDevice(blocks, streamed, memory, prefix, read, from_disk=from_disk)
    else:
        source = FromDisk(slots, prefix, read)
    ring = Ring(slots, source, streamed, cyclic=cyclic)
    for index in streamed:
        blocks[index] = StreamedBlock(ring, index)
    return ring


def pack(block: nn.Module, device: torch.device) -> Tensor:
    """Give a block's parameters memory in one piece, so that one copy moves it all.

    Returns:
        The piece, bytes; its layout depends on the block's shapes and dtypes only.
    """
    parameters = dict(block.named_parameters())
    starts, end = {}, 0
    for name, parameter in parameters.items():
        starts[name] = end
        size = parameter.numel() * parameter.element_size()
        end += -(-size // ALIGNMENT) * ALIGNMENT
    memory = torch.empty(end, dtype=torch.uint8, device=device)
    for name, parameter in parameters.items():
        size = parameter.numel() * parameter.element_size()
        part = memory[starts[name] : starts[name] + size].view(parameter.dtype)
        owner, _, last = name.rpartition(".")
        setattr(
            block.get_submodule(owner),
            last,
            nn.Parameter(part.view(parameter.shape), requires_grad=False),
        )
    return memory


class _RowByRow:
    """Mixed into a block's class: rows of the first argument one by one."""

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        whole = super().forward  # type: ignore[misc]
        return torch.cat([whole(row, *others) for row in x.split(1)])


def _take_rows_singly(block: nn.Module) -> None:
    # A class rather than a new `forward` on the instance, which would be a cycle of references:
    # the weights have to go the moment the network does.
    block.__class__ = type("RowByRow", (_RowByRow, type(block)), {})


def _read_block(block: nn.Module, prefix: str, read: Read) -> None:
    for name, parameter in block.named_parameters():
        _read_to(parameter, prefix + name, read)


def _read_to(tensor: Tensor, name: str, read: Read) -> None:
    if tensor.device.type == "cpu":
        read(name, tensor.detach())
        return
    host = torch.empty(tensor.shape, dtype=tensor.dtype)
    read(name, host)
    tensor.detach().copy_(host)


def _place_rest(
    network: nn.Module, blocks: nn.ModuleList, prefix: str, read: Read, device: torch.device
) -> None:
    """Memory and weights for everything outside the blocks."""
    inside = set(blocks.modules())
    for module in network.modules():
        if module not in inside:
            module.to_empty(device=device, recurse=False)
    for name, tensor in network.state_dict().items():
        if not name.startswith(prefix):
            _read_to(tensor, name, read)


class FromDisk:
    """Reads blocks into the memory of a CPU, or of a device that does one thing after the other."""

    def __init__(self, slots: Sequence[nn.Module], prefix: str, read: Read) -> None:
        self._slots, self._prefix, self._read = slots, prefix, read

    def mark(self) -> None:
        """A block that has returned is done, or done before what is copied after it."""

    @torch.inference_mode()
    def fill(self, index: int, slot: int, mark: None) -> None:
        """Read every weight of a block."""
        _read_block(self._slots[slot], f"{self._prefix}{index}.", self._read)

    def close(self) -> None:
        """Let go of the memory."""
        self._slots = []


class ToDevice:
    """Copies blocks to a GPU on a stream of its own, beside the computation.

    They come from pinned host memory or, with `from_disk`, through one pinned block of it.
    """

    def __init__(
        self,
        blocks: nn.ModuleList,
        streamed: Sequence[int],
        memory: Sequence[Tensor],
        prefix: str,
        read: Read,
        *,
        from_disk: bool,
    ) -> None:
        self._memory, self._prefix, self._read = memory, prefix, read
        self._stream = torch.cuda.Stream(memory[0].device)
        self._pinned: list[Tensor] = []
        self._host: dict[int, Tensor] = {}
        self._staging: nn.Module | None = None
        if from_disk:
            self._staging = deepcopy(blocks[streamed[0]])
            self._staged = self._host_memory(self._staging)
            return
        for index in streamed:
            self._host[index] = self._host_memory(blocks[index])
            _read_block(blocks[index], f"{prefix}{index}.", read)

    def _host_memory(self, block: nn.Module) -> Tensor:
        """Memory for a block that the GPU can read from while the CPU does something else.

        Where the driver refuses to pin it, copies are merely slower.
        """
        memory = pack(block, torch.device("cpu"))
        if _pin(memory, self._stream.device):
            self._pinned.append(memory)
        return memory

    def mark(self) -> torch.cuda.Event:
        """The point in the GPU's work after which the slot is free."""
        return torch.cuda.current_stream(self._stream.device).record_event()

    @torch.inference_mode()
    def fill(self, index: int, slot: int, mark: torch.cuda.Event) -> None:
        """Copy a block and wait until it is there."""
        if self._staging is None:
            source = self._host[index]
        else:
            _read_block(self._staging, f"{self._prefix}{index}.", self._read)
            source = self._staged
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(mark)
            self._memory[slot].copy_(source, non_blocking=True)
        self._stream.synchronize()

    def close(self) -> None:
        """Give the pinned memory back."""
        for memory in self._pinned:
            torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())
        self._pinned.clear()
        self._host.clear()
        self._memory = []


def _pin(memory: Tensor, device: torch.device) -> bool:
    """Pin host memory for a GPU; tells whether its driver did, which WSL often does not.

    Pinned after allocation: PyTorch's own allocator of pinned memory rounds each piece up to a
    power of two.
    """
    cudart = torch.cuda.cudart()
    refused = cudart.cudaHostRegister(memory.data_ptr(), memory.numel(), 0)
    if refused == cudart.cudaError.success:
        return True
    # CUDA remembers the refusal and would report it as the error of the next kernel.
    with suppress(RuntimeError):
        torch.ones(1, device=device)
    return False
