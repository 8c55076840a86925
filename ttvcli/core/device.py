"""The one place that asks about accelerators and dtypes."""

import torch
from ttv_kernels import dispatch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:N` or `mps` into a device that exists here.

    Raises:
        ValueError: the name is unknown or the device is absent.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: auto, cpu, cuda, cuda:N or mps") from error
    absent = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if absent:
        raise ValueError(f"device {name!r} is not available on this machine")
    return device


def release_unused(device: torch.device) -> None:
    """Give back GPU memory that PyTorch keeps of networks that are gone.

    It is cut in pieces of their sizes, of which those of the next network leave parts unused.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()


def check_ttt_backend(device: torch.device) -> None:
    """Before any work: can the TTT backend that the environment names run on a device?

    Raises:
        ValueError: there is no such backend, or it cannot.
    """
    if dispatch.requested() != "triton":
        return
    reason = dispatch.why_no_triton_on(device)
    if reason is not None:
        raise ValueError(f"{dispatch.VARIABLE} is 'triton', which cannot run: {reason}")
