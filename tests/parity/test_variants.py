"""Whole videos of every variant against diffusers' pipelines, from the same folder and seed.

Ours is what `ttv sample` runs: folder, tokenizer, text encoder, image, transformer, sampler, VAE.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from variant_folders import FRAMES, SIZE, VARIANTS, takes_image, write_variant

from ttvcli.workflows.generate import decode_frames, generate_latents
from ttvcli.workflows.sample import SampleConfig
from ttvcli.workflows.sample_request import Request, check
from ttvcli.workflows.step import SILENT

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("google.protobuf", reason="transformers reads spiece.model with protobuf")
pytestmark = pytest.mark.parity

PROMPT = "a red circle moves right"
TOKENS = 24
STEPS = 5
SCHEDULERS = {"ddim": "CogVideoXDDIMScheduler", "dpm++2m-sde": "CogVideoXDPMScheduler"}
DYNAMIC = {"constant": False, "legacy": True}
# Relative L2 error of the latents in float32; the two text encoders and attentions sum in another
# order, a step amplifies that by the guidance.
TOLERANCE = 1e-5


class Model(NamedTuple):
    """A folder, the public pipeline that reads it, and a first frame where it takes one."""

    folder: Path
    pipeline: Any
    image: Path | None

    def theirs(self, sampler: str, **options: Any) -> Tensor:
        """Latents [1, T, C, H, W], scaled, with the frames in front that 1.5 drops later."""
        kind = getattr(diffusers, SCHEDULERS[sampler])
        self.pipeline.scheduler = kind.from_config(self.pipeline.scheduler.config)
        if self.image is not None:
            options["image"] = Image.open(self.image).convert("RGB")
        settings = {
            "prompt": PROMPT,
            "width": SIZE[0],
            "height": SIZE[1],
            "num_frames": FRAMES,
            "num_inference_steps": STEPS,
            "guidance_scale": 6.0,
            "max_sequence_length": TOKENS,
            "generator": torch.Generator().manual_seed(42),
            "output_type": "latent",
        }
        return self.pipeline(**{**settings, **options}).frames

    def request(self, sampler: str = "ddim", **settings: Any) -> Request:
        usual = {"steps": STEPS, "size": f"{SIZE[0]}x{SIZE[1]}", "device": "cpu"}
        return check(
            SampleConfig(
                prompt=PROMPT,
                model=str(self.folder),
                image=self.image,
                sampler=sampler,
                **{**usual, **settings},
            )
        )

    def ours(self, request: Request) -> Tensor:
        """Latents in the form of `theirs`, without the frames in front."""
        latents = generate_latents([request], SILENT) * self.pipeline.vae.config.scaling_factor
        return latents.transpose(1, 2)


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(request.param, tmp_path_factory.mktemp("variant"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model("5b", tmp_path_factory.mktemp("plain"))


def open_model(variant: str, root: Path) -> Model:
    folder = write_variant(root / variant, variant)
    kind = "CogVideoXImageToVideoPipeline" if takes_image(variant) else "CogVideoXPipeline"
    pipeline = getattr(diffusers, kind).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    image = None
    if takes_image(variant):
        image = root / "first.png"  # of another size and shape than the video
        noise = np.random.default_rng(0).integers(0, 256, (70, 110, 3), dtype=np.uint8)
        Image.fromarray(noise).save(image)
    return Model(folder, pipeline, image)


def distance(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


@torch.inference_mode()
@pytest.mark.parametrize("mode", DYNAMIC)
@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_latents_and_frames_are_those_of_diffusers(model: Model, sampler: str, mode: str) -> None:
    request = model.request(sampler, guidance_mode=mode)
    theirs = model.theirs(sampler, use_dynamic_cfg=DYNAMIC[mode])[:, request.front_frames :]
    ours = model.ours(request)
    assert distance(ours, theirs) <= TOLERANCE
    unscaled = ours[0].transpose(0, 1) / model.pipeline.vae.config.scaling_factor
    frames = np.stack(list(decode_frames(request, unscaled, SILENT)))
    video = model.pipeline.decode_latents(theirs)
    expected = model.pipeline.video_processor.postprocess_video(video, "np")[0]
    assert frames.shape == expected.shape == (FRAMES, SIZE[1], SIZE[0], 3)
    assert np.abs(frames - (expected * 255).round()).max() <= 1


@torch.inference_mode()
def test_the_two_ways_to_guide_give_different_videos(plain: Model) -> None:
    constant = model_latents(plain, guidance_mode="constant")
    assert distance(model_latents(plain, guidance_mode="legacy"), constant) > 0.01
    assert distance(model_latents(plain, guidance_mode="ramp"), constant) > 0.01


@torch.inference_mode()
def test_zeros_and_the_empty_prompt_are_two_null_texts(plain: Model) -> None:
    empty = plain.theirs("ddim")
    encoded = plain.pipeline.encode_prompt(
        PROMPT, num_videos_per_prompt=1, max_sequence_length=TOKENS
    )
    zeros = plain.theirs(
        "ddim",
        prompt=None,
        prompt_embeds=encoded[0],
        negative_prompt_embeds=torch.zeros_like(encoded[0]),
    )
    assert distance(model_latents(plain), empty) <= TOLERANCE
    assert distance(model_latents(plain, null_text="empty"), empty) <= TOLERANCE
    assert distance(model_latents(plain, null_text="zero"), zeros) <= TOLERANCE
    assert distance(zeros, empty) > 0.01


@torch.inference_mode()
@pytest.mark.parametrize("steps", [6, 7])
def test_steps_that_do_not_divide_1000_end_clean_here_and_with_noise_there(
    plain: Model, steps: int
) -> None:
    theirs = plain.theirs("dpm++2m-sde", num_inference_steps=steps)
    settings = {"sampler": "dpm++2m-sde", "steps": steps}
    assert distance(model_latents(plain, step_rule="diffusers", **settings), theirs) <= TOLERANCE
    assert distance(model_latents(plain, **settings), theirs) > 0.01


@torch.inference_mode()
def test_the_number_of_text_tokens_is_that_of_the_config_and_part_of_the_video(
    plain: Model,
) -> None:
    assert plain.request().tokens == TOKENS
    other = model_latents(plain, text_tokens=TOKENS - 2)
    theirs = plain.theirs("ddim", max_sequence_length=TOKENS - 2)
    assert distance(other, theirs) <= TOLERANCE
    assert distance(other, plain.theirs("ddim")) > 1e-3


def model_latents(model: Model, sampler: str = "ddim", **settings: Any) -> Tensor:
    return model.ours(model.request(sampler, **settings))
