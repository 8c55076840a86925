"""A grid of frames with their times: a video at a glance, as one PNG."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_BACKGROUND, _TEXT = (24, 24, 24), (208, 208, 208)
_FONT_SIZE = 10
_LABEL_HEIGHT = 13


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return at most `count` frame numbers, first and last among them."""
    if total < 1 or count < 1:
        raise ValueError(f"need at least one frame and one tile, got {total} and {count}")
    if count == 1:
        return [0]
    if count >= total:
        return list(range(total))
    return [round(i * (total - 1) / (count - 1)) for i in range(count)]


def contact_sheet(
    frames: Sequence[np.ndarray],
    times: Sequence[float],
    *,
    columns: int = 8,
    padding: int = 4,
    scale: int = 1,
) -> bytes:
    """Draw frames in reading order, each with its time in seconds below it.

    Args:
        frames: uint8 RGB `[H, W, 3]`, all of one size.
        times: seconds, one a frame.
        columns: frames in a row.
        padding: pixels between frames.
        scale: whole factor that small frames are enlarged by.

    Returns:
        A PNG file.
    """
    if not frames or len(frames) != len(times):
        raise ValueError(f"need one time a frame, got {len(frames)} frames and {len(times)} times")
    if min(columns, scale) < 1 or padding < 0:
        raise ValueError(f"columns {columns} and scale {scale} start at 1, padding {padding} at 0")
    shape = frames[0].shape
    if any(frame.shape != shape for frame in frames):
        raise ValueError("frames must be of one size")
    height, width = shape[0] * scale, shape[1] * scale
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    step_x, step_y = width + padding, height + _LABEL_HEIGHT + padding
    sheet = Image.new("RGB", (columns * step_x + padding, rows * step_y + padding), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    for index, (frame, time) in enumerate(zip(frames, times, strict=True)):
        row, column = divmod(index, columns)
        x, y = padding + column * step_x, padding + row * step_y
        tile = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(tile, (x, y))
        draw.text((x + 1, y + height + 1), f"{time:.2f} s", fill=_TEXT, font=font)
    data = io.BytesIO()
    sheet.save(data, format="PNG", optimize=True)
    return data.getvalue()
