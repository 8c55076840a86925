"""A complete model of random weights, small enough to train and sample in seconds, and its data.

The fixture `tiny_data` makes it once a session.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from model_files import write_vae

from ttvcli.artifacts import model_folder
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.text.t5 import T5Config, T5Encoder
from ttvcli.core.models.text.tokenizer import train_tokenizer
from ttvcli.core.world.labels import caption_labels
from ttvcli.workflows import embed_text, encode, synth

SIZE = 16
TOKENS = 19  # with 13 frames of one token each: 32 tokens a segment, two mini-batches
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
}


class TinyData(NamedTuple):
    """Folders made by the workflows, from each other, in this order."""

    model: Path
    clips: Path
    latents: Path
    text: Path


def write_model(
    folder: Path, *, ssm: str = "ttt_linear", seed: int = 0, world: str = "tiny"
) -> Path:
    """Write all components; the transformer has 2 layers of one head, all weights random."""
    write_vae(folder, seed=seed, size=SIZE)
    captions = [caption_labels(np.random.default_rng(i))[0] for i in range(300)]
    (folder / "tokenizer").mkdir(exist_ok=True)
    train_tokenizer(captions, folder / "tokenizer" / "spiece.model", 240)
    text = T5Config(vocab_size=512, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    encoder = T5Encoder(text)
    encoder.init_weights(torch.Generator().manual_seed(seed))
    model_folder.write_component(folder, "text_encoder", text.to_dict(), encoder.state_dict())
    transformer = CogVideoXTransformer(transformer_config(ssm))
    randomise(transformer, seed)
    values = transformer.config.to_dict()
    model_folder.write_component(folder, "transformer", values, transformer.state_dict())
    model_folder.write_config(folder, "scheduler", SCHEDULER)
    model_folder.write_about(folder, {"null_text": "empty", "world": world, "fps": 16})
    return folder


def transformer_config(ssm: str = "ttt_linear") -> CogVideoXConfig:
    return CogVideoXConfig(
        num_attention_heads=1,
        attention_head_dim=64,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=16,
        num_layers=2,
        sample_width=SIZE // 8,
        sample_height=SIZE // 8,
        max_text_seq_length=TOKENS,
        use_rotary_positional_embeddings=True,
        ssm=ssm,
        ttt_mini_batch=16,
        ttt_chunk_tokens=24,
    )


def randomise(network: torch.nn.Module, seed: int) -> None:
    """Initial weights, with noise on those that start at zero: every input then matters."""
    generator = torch.Generator().manual_seed(seed)
    network.init_weights(generator)  # type: ignore[operator]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def make_data(root: Path) -> TinyData:
    """Write a model, render six clips of one object, encode them and embed their captions."""
    clips, latents, text = root / "clips", root / "latents", root / "text"
    model = write_model(root / "model")
    synth.run(synth.SynthConfig(out=clips, clips=6, size=SIZE, objects=1))
    shared: dict[str, Any] = {"model": str(model), "device": "cpu"}
    encode.run(encode.EncodeConfig(source=str(clips), out=latents, **shared))
    embed_text.run(embed_text.EmbedTextConfig(source=str(latents), out=text, **shared))
    return TinyData(model, clips, latents, text)
