"""Positions of video tokens: rotary angles (5B, 1.5) and the additive sine table (2B).

Shape legend: T latent frames, h w rows and columns of tokens, N = T*h*w tokens ordered frame, row,
column; D width, K head width.
"""

import torch
from torch import Tensor

from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.ttt.rotary import table

THETA = 10000.0


def rotary_table(
    config: CogVideoXConfig, frames: int, rows: int, columns: int, device: torch.device
) -> Tensor:
    """Rotations of all N video tokens, complex64 `[N, K/2]`.

    K/4 dimensions are for time, 3K/8 each for row and column.
    """
    if config.patch_size_t is None:
        row_at, column_at = fitted_grid(
            rows,
            columns,
            config.sample_height // config.patch_size,
            config.sample_width // config.patch_size,
            device,
        )
    else:
        row_at = torch.arange(rows, dtype=torch.float32, device=device)
        column_at = torch.arange(columns, dtype=torch.float32, device=device)
    time_at = torch.arange(frames, dtype=torch.float32, device=device)

    per_axis = 3 * (config.attention_head_dim // 8)
    size = (frames, rows, columns, -1)
    angles = torch.cat(
        [
            _angles(time_at, config.attention_head_dim // 4)[:, None, None].expand(size),
            _angles(row_at, per_axis)[None, :, None].expand(size),
            _angles(column_at, per_axis)[None, None, :].expand(size),
        ],
        dim=-1,
    ).flatten(0, 2)
    return table(angles)


def fitted_grid(
    rows: int, columns: int, base_rows: int, base_columns: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Row and column positions of a grid fitted, keeping its aspect, into the training grid.

    At the training size these are the integers. Otherwise the window is centred, and the last
    position lies at `end * (size - 1) / size`: with a start above 0 that is not the exclusive end
    of an even spacing, but it is what the published pipelines sample with.
    """
    if rows / columns > base_rows / base_columns:
        height, width = base_rows, round(base_rows / rows * columns)
    else:
        height, width = round(base_columns / columns * rows), base_columns
    top = round((base_rows - height) / 2.0)
    left = round((base_columns - width) / 2.0)

    def spaced(start: int, end: int, count: int) -> Tensor:
        return torch.linspace(
            start, end * (count - 1) / count, count, dtype=torch.float32, device=device
        )

    return spaced(top, top + height, rows), spaced(left, left + width, columns)


def _angles(position: Tensor, dimensions: int) -> Tensor:
    pair = torch.arange(0, dimensions, 2, dtype=torch.float32, device=position.device)
    return torch.outer(position, 1.0 / THETA ** (pair / dimensions))


def sine_table(
    config: CogVideoXConfig,
    frames: int,
    rows: int,
    columns: int,
    device: torch.device,
    first: int = 0,
) -> Tensor:
    """Additive table `[N, D]` in float64: a quarter of D for time, then x, then y.

    Note the order: columns before rows, unlike the rotary table. `first` is the number of the
    first frame.
    """
    scale = config.spatial_interpolation_scale
    time_at = (
        torch.arange(first, first + frames, device=device) / config.temporal_interpolation_scale
    )
    row_at = torch.arange(rows, dtype=torch.float32, device=device) / scale
    column_at = torch.arange(columns, dtype=torch.float32, device=device) / scale

    per_axis = 3 * config.width // 8
    size = (frames, rows, columns, -1)
    joint = torch.cat(
        [
            _sines(time_at, config.width // 4)[:, None, None].expand(size),
            _sines(column_at, per_axis)[None, None, :].expand(size),
            _sines(row_at, per_axis)[None, :, None].expand(size),
        ],
        dim=-1,
    )
    return joint.flatten(0, 2)


def _sines(position: Tensor, dimensions: int) -> Tensor:
    half = torch.arange(dimensions // 2, dtype=torch.float64, device=position.device)
    omega = 1.0 / THETA ** (half / (dimensions / 2.0))
    angle = torch.outer(position.to(torch.float64), omega)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
