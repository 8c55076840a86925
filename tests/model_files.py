"""A tiny random model folder for tests of whole steps."""

from pathlib import Path

import torch

from ttvcli.artifacts import model_folder
from ttvcli.core.models.text.t5 import T5Config, T5Encoder
from ttvcli.core.models.text.tokenizer import train_tokenizer
from ttvcli.core.models.vae.causal3d import CausalVAE
from ttvcli.core.models.vae.config import VAEConfig

SENTENCES = ["a red circle moves right", "a blue square is still", "two green stars bounce"] * 5


def write_vae(folder: Path, *, seed: int = 0, size: int = 16) -> Path:
    """Write a VAE with 8 channels a layer that says it is made for `size` x `size` pixels."""
    torch.manual_seed(seed)
    config = VAEConfig(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=4
    )
    vae = CausalVAE(config)
    vae.init_weights()
    values = {**config.to_dict(), "sample_width": size, "sample_height": size}
    model_folder.write_component(folder, "vae", values, vae.state_dict())
    return folder


def write_text_encoder(folder: Path, *, seed: int = 0, tokens: int = 24) -> Path:
    """Write a T5 of two layers, a tokenizer, and a transformer config that names the length."""
    config = T5Config(vocab_size=512, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    encoder = T5Encoder(config)
    encoder.init_weights(torch.Generator().manual_seed(seed))
    model_folder.write_component(folder, "text_encoder", config.to_dict(), encoder.state_dict())
    (folder / "tokenizer").mkdir(exist_ok=True)
    train_tokenizer(SENTENCES, folder / "tokenizer" / "spiece.model", 200)
    model_folder.write_config(folder, "transformer", {"max_text_seq_length": tokens})
    return folder
