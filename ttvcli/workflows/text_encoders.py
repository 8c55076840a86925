"""Load what turns texts into embeddings: the model's T5, or a CLIP from a folder of transformers.

Whatever batch a text is in, its embeddings have the bytes they have alone. All texts are padded to
one length, so a batch changes only the number of rows of each matrix product; whether the order of
its sums depends on that is seen by comparing random texts, at every place of a batch, bit by bit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ttvcli.workflows import clip_text, components
from ttvcli.workflows.embed_job import Job

CLASSES = {"t5": "T5EncoderModel", "clip": "CLIPTextModel"}
GPU_BATCH = 16  # a text of 226 tokens fills most of a GPU by itself

# Texts to (embeddings [L, D], tokens needed before cutting) of each.
Encoder = Callable[[Sequence[str]], list[tuple[Tensor, int]]]
Forward = Callable[[Tensor], Tensor]  # token ids [B, L] to hidden states [B, L, D]


def load(job: Job) -> Encoder:
    """Load the encoder and its tokenizer, and find out how many texts it may take at once."""
    if job.config.threads:
        torch.set_num_threads(job.config.threads)
    device = components.existing_device(job.config.device)
    tokens, forward, vocabulary = (_clip if job.config.encoder == "clip" else _t5)(job, device)
    size = largest_batch(forward, most_at_once(job), job.max_tokens, vocabulary, device)

    def encode(texts: Sequence[str]) -> list[tuple[Tensor, int]]:
        found: list[tuple[Tensor, int]] = []
        for first in range(0, len(texts), size):
            some = texts[first : first + size]
            rows, counts = zip(*(tokens(text) for text in some), strict=True)
            # Always whole batches: only this number of rows was compared.
            rows += (rows[-1],) * (size - len(rows))
            with torch.inference_mode():
                hidden = forward(torch.tensor(rows, device=device))
            stored = hidden.to("cpu", torch.bfloat16)
            found += [(stored[i].clone(), count) for i, count in enumerate(counts)]
        return found

    return encode


def most_at_once(job: Job) -> int:
    """Return how many texts to encode before the first of their clips is written."""
    on_cpu = job.config.device == "cpu" or not torch.cuda.is_available()
    return job.config.batch or (1 if on_cpu else GPU_BATCH)


def largest_batch(
    forward: Forward, wanted: int, length: int, vocabulary: int, device: torch.device
) -> int:
    """Return how many texts, `wanted` at most, can share a batch without changing a bit of any."""
    generator = torch.Generator("cpu").manual_seed(0)
    size = wanted
    while size > 1:
        ids = torch.randint(vocabulary, (size, length), generator=generator).to(device)
        with torch.inference_mode():
            together = forward(ids)
            same = all(torch.equal(forward(ids[i : i + 1])[0], together[i]) for i in range(size))
        if same:
            break
        size //= 2
    return max(size, 1)


Tokens = Callable[[str], tuple[list[int], int]]


def _t5(job: Job, device: torch.device) -> tuple[Tokens, Forward, int]:
    tokenizer = components.load_tokenizer(job.model)
    encoder: Any = components.load(job.model, "text_encoder", dtype=job.config.dtype, device=device)

    def tokens(text: str) -> tuple[list[int], int]:
        return tokenizer.encode(text, job.max_tokens), tokenizer.count(text)

    return tokens, encoder, encoder.config.vocab_size


def _clip(job: Job, device: torch.device) -> tuple[Tokens, Forward, int]:
    return clip_text.load(job.model, job.max_tokens, job.config.dtype, device)
