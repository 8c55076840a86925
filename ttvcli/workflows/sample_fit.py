"""Whether a model can make the video that was asked for: size, frames and image, before loading."""

from typing import TYPE_CHECKING, Any

from ttvcli.core.models.cogvideox.published import generation
from ttvcli.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from ttvcli.workflows.sample_request import Request

# CogVideoX-1.5 names 300x300 latents, a limit of its position tables and not a picture size.
_NO_SIZE = (300, 300)
_MOST_STRETCH = 1.02  # of an image, before it is worth a warning


def compression(vae: dict[str, Any]) -> tuple[int, int]:
    """Pixels per latent of a VAE's configuration: (frames, height and width)."""
    return int(vae.get("temporal_compression_ratio", 4)), 2 ** (len(vae["block_out_channels"]) - 1)


def takes_image(transformer: dict[str, Any], vae: dict[str, Any]) -> bool:
    """Whether a transformer reads the latents of a first frame behind the noisy ones."""
    return int(transformer.get("in_channels", 16)) == 2 * int(vae["latent_channels"])


def settle_size(size: str | None, transformer: dict[str, Any], space: int) -> tuple[int, int]:
    """Width and height in pixels, as asked for or as the model was trained.

    Raises:
        UsageError: not WIDTHxHEIGHT, or sides that do not divide into patches.
    """
    if size is None:
        return _trained_size(transformer, space)
    step = space * int(transformer.get("patch_size", 2))
    try:
        width, height = (int(part) for part in size.lower().replace("×", "x").split("x"))
    except ValueError:
        raise UsageError(f"--size must be WIDTHxHEIGHT, got {size!r}", fix="--size 64x64") from None
    if width < step or height < step or width % step or height % step:
        raise UsageError(
            f"--size {size}: both sides must be multiples of {step}",
            fix=f"--size {max(step, width // step * step)}x{max(step, height // step * step)}",
        )
    return width, height


def _trained_size(transformer: dict[str, Any], space: int) -> tuple[int, int]:
    latents = (transformer.get("sample_width", 90), transformer.get("sample_height", 60))
    if latents == _NO_SIZE:
        known = generation(transformer)
        return known.width, known.height
    return latents[0] * space, latents[1] * space


def check_fit(request: "Request") -> None:
    """Refuse what the network would refuse, before its weights are read."""
    _check_channels(request)
    _check_image(request)
    if request.transformer.get("use_learned_positional_embeddings"):
        _check_table(request)


def _check_channels(request: "Request") -> None:
    channels = int(request.vae["latent_channels"])
    wanted = int(request.transformer.get("in_channels", 16))
    if wanted not in (channels, 2 * channels):
        raise ArtifactError(
            f"the transformer reads {wanted} channels, the VAE makes {channels}: "
            "parts of two models",
            where=str(request.folder / "transformer"),
            fix="take all parts of a model from the same download",
        )


def _check_image(request: "Request") -> None:
    image, where = request.config.image, str(request.folder)
    if not takes_image(request.transformer, request.vae):
        if image is not None:
            raise UsageError(
                "--image goes with an image-to-video model, and this one is text-to-video",
                where=where,
                fix="leave --image out, or name a model such as CogVideoX-5b-I2V with --model",
            )
        return
    if image is None:
        raise UsageError(
            "this is an image-to-video model, and there is no --image for its first frame",
            where=where,
            fix="--image first.png, or name a text-to-video model with --model",
        )
    if len(request.board.segments) > 1:
        raise UsageError(
            f"an image-to-video model makes one clip, not {len(request.board.segments)} segments",
            where=where,
            fix="give one prompt, without --seconds",
        )


def _check_table(request: "Request") -> None:
    """A learned table of positions has entries for one size and length only."""
    transformer = request.transformer
    space = compression(request.vae)[1]
    size = _trained_size(transformer, space)
    trained = int(transformer.get("sample_frames", 49))
    tokens = int(transformer.get("max_text_seq_length", 226))
    if (request.width, request.height, request.frames) != (*size, trained):
        raise UsageError(
            "this model knows one size and length only (it has a learned table of positions), "
            f"not {request.width}x{request.height} with {request.frames} frames",
            where=str(request.folder / "transformer"),
            fix=f"--size {size[0]}x{size[1]} --frames {trained}",
        )
    if request.tokens != tokens:
        raise UsageError(
            f"this model knows texts of {tokens} tokens only, not {request.tokens}",
            where=str(request.folder / "transformer"),
            fix="leave text_tokens out",
        )


def fit_warnings(request: "Request", image_size: tuple[int, int] | None) -> list[str]:
    """What the model can be asked for, and will do badly."""
    warnings = []
    transformer = request.transformer
    size = _trained_size(transformer, compression(request.vae)[1])
    first_generation = transformer.get("patch_size_t") is None
    if request.is_clip and first_generation and (request.width, request.height) != size:
        warnings.append(
            f"this model was trained at {size[0]}x{size[1]} only; other sizes often look garbled"
        )
    if image_size is not None:
        stretch = (image_size[0] / image_size[1]) / (request.width / request.height)
        if max(stretch, 1 / stretch) > _MOST_STRETCH:
            warnings.append(
                f"the image of {image_size[0]}x{image_size[1]} is stretched to "
                f"{request.width}x{request.height}; crop it to that shape, or choose a --size"
            )
    return warnings
