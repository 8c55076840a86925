"""A launch that cannot keep in registers what it holds; for `compile_child.py`."""

from dataclasses import replace

from ttv_kernels.launch import Launch
from ttv_kernels.ttt_linear.autograd import planned_launches


def launches(head_width: int) -> list[Launch]:
    """TTT-Linear forward with the whole state in the registers of one warp."""
    forward, _ = planned_launches(head_width=head_width, mini_batch=16)
    return [replace(forward, num_warps=1, num_stages=1)]
