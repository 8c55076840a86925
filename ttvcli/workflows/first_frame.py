"""The image that an image-to-video clip starts from: checked, and as pixels of the clip's size."""

from pathlib import Path
from typing import TYPE_CHECKING

from ttvcli.artifacts.atomic import sha256_file
from ttvcli.errors import ArtifactError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


def check_image(path: Path, expected: str) -> tuple[int, int]:
    """Return width and height of an image as shown.

    Raises:
        ArtifactError: missing, no image, damaged, or of another content than `expected`, a
            sha256, says ("" takes any).
    """
    image = _open(path)
    if expected and sha256_file(path) != expected:
        raise ArtifactError(
            "stale: the image is not the one that the video was made from",
            where=str(path),
            fix='restore it, or take this one with --set image_hash=""',
        )
    return image.size


def load_pixels(path: Path, width: int, height: int) -> "np.ndarray":
    """Return pixels [3, height, width] float32 in [-1, 1], as the public pipelines read an image.

    It is stretched to the size, not cropped, with a Lanczos filter.
    """
    import numpy as np
    from PIL.Image import Resampling

    image = _open(path).resize((width, height), Resampling.LANCZOS)
    pixels = np.asarray(image).astype(np.float32) / 255.0
    return np.ascontiguousarray((2.0 * pixels - 1.0).transpose(2, 0, 1))


def _open(path: Path) -> "Image":
    """The image turned as its camera says, in RGB; reads all of it."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise ArtifactError("there is no such image", where=str(path)) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ArtifactError(
            f"the image cannot be read: {error}", where=str(path), fix="give a PNG or JPEG"
        ) from error
    except Image.DecompressionBombError as error:
        raise ArtifactError(
            f"the image is too large: {error}", where=str(path), fix="make it smaller"
        ) from error
