"""Small random model folders of every published CogVideoX variant, written by diffusers itself.

The sizes are toy ones; the switches are those of the published `transformer/config.json`. Every
weight is random, norms and biases included: default norms (1 and 0) would hide a missing affine.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ttvcli.core.models.text.tokenizer import train_tokenizer

ROTARY: dict[str, Any] = {"use_rotary_positional_embeddings": True}
SECOND: dict[str, Any] = {
    **ROTARY,
    "patch_size_t": 2,
    "patch_bias": False,
    "sample_width": 20,
    "sample_height": 20,
}
# what sets the variant apart in its transformer config
VARIANTS: dict[str, dict[str, Any]] = {
    "2b": {},
    "5b": ROTARY,
    "5b-i2v": {**ROTARY, "use_learned_positional_embeddings": True, "in_channels": 8},
    "1.5": SECOND,
    "1.5-i2v": {**SECOND, "in_channels": 8, "ofs_embed_dim": 24},
}
TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 24,
    "text_embed_dim": 32,
    "num_layers": 2,
    "sample_width": 12,
    "sample_height": 8,
    "sample_frames": 9,
    "max_text_seq_length": 24,
}
VAE: dict[str, Any] = {
    "block_out_channels": (8, 16, 16, 32),
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "timestep_spacing": "trailing",
}
TEXT: dict[str, Any] = {
    "vocab_size": 512,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
SENTENCES = ["a red circle moves right", "a blue square is still", "two green stars bounce"] * 5
# (width, height) of the clips that the tests make
SIZE = (96, 64)
FRAMES = 9


def takes_image(variant: str) -> bool:
    return variant.endswith("i2v")


def randomise(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Fill every parameter and stored buffer, in the order of their names; gains stay near 1."""
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("pos_embedding"):
                tensor.copy_(0.1 * noise)
            elif tensor.ndim > 1:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            else:
                tensor.copy_(1 + 0.2 * noise if name.endswith("weight") else 0.1 * noise)
    return model.eval()


def write_variant(folder: Path, variant: str, *, seed: int = 0) -> Path:
    """Write a whole pipeline folder; the same variant and seed give the same bytes."""
    import diffusers
    import transformers

    generator = torch.Generator().manual_seed(seed)
    second = variant.startswith("1.5")
    network = diffusers.CogVideoXTransformer3DModel(**{**TRANSFORMER, **VARIANTS[variant]})
    vae = diffusers.AutoencoderKLCogVideoX(
        **VAE,
        scaling_factor=1.15258426 if variant == "2b" else 0.7,
        invert_scale_latents=second,
    )
    encoder = transformers.T5EncoderModel(transformers.T5Config(**TEXT))
    scheduler = diffusers.CogVideoXDDIMScheduler(
        **SCHEDULER, snr_shift_scale=3.0 if variant == "2b" else 1.0
    )
    randomise(network, generator).save_pretrained(folder / "transformer")
    randomise(vae, generator).save_pretrained(folder / "vae")
    randomise(encoder, generator).save_pretrained(folder / "text_encoder")
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir()
    train_tokenizer(SENTENCES, folder / "tokenizer" / "spiece.model", 200)
    pipeline = "CogVideoXImageToVideoPipeline" if takes_image(variant) else "CogVideoXPipeline"
    index = {
        "_class_name": pipeline,
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder
