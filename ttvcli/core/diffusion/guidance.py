"""Classifier-free guidance: how strong at which step, and how to evaluate the two branches.

`v = v_uncond + w (v_cond - v_uncond)`, in float32. A scale function returns w from the step index,
the raw timestep and the number of steps.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ttvcli.core.diffusion.parameterization import Prediction

# (step, timestep, steps) -> w
ScaleFn = Callable[[int, int, int], float]
# (x, timestep, text embeddings) -> v of x's shape
Model = Callable[[Tensor, int, Tensor], Tensor]


def constant(scale: float) -> ScaleFn:
    """Return w = `scale` at every step."""
    return lambda step, timestep, steps: scale


def ramp(scale: float) -> ScaleFn:
    """Return a w that rises with the step index from 1 towards 1 + `scale`.

    Half of the rise falls into the last eighth of the steps, so layout forms nearly unguided.
    """
    return lambda step, timestep, steps: _cosine(scale, step / steps)


def legacy(scale: float) -> ScaleFn:
    """Return the "dynamic" w of the public CogVideoX pipelines, to reproduce their videos.

    Their formula is that of `ramp` but puts `steps - timestep`, with timesteps up to 999, where
    the step index belongs, so w jumps about in [1, 1 + `scale`] without any trend.
    """
    return lambda step, timestep, steps: _cosine(scale, (steps - timestep) / steps)


def guide(
    model: Model,
    uncond: Tensor | None,
    cond: Tensor,
    scale: ScaleFn,
    steps: int,
    *,
    batched: bool = True,
) -> Prediction:
    """Return a guided v-prediction `(x, timestep, step) -> v` in float32.

    `uncond` and `cond` are text embeddings with equal shapes `[B, ...]`. `batched` evaluates
    [uncond, cond] in one call of batch 2B, else in two calls of batch B (half the activation
    memory). Where w is exactly 1 the unconditional branch is not evaluated; `uncond` may be None
    when w is 1 throughout.
    """
    if uncond is not None and uncond.shape != cond.shape:
        raise ValueError(
            f"unconditional text has shape {tuple(uncond.shape)}, "
            f"conditional {tuple(cond.shape)}; they have to be equal"
        )

    def predict(x: Tensor, timestep: int, step: int) -> Tensor:
        weight = scale(step, timestep, steps)
        if weight == 1.0:
            return _float(model(x, timestep, cond))
        if uncond is None:
            raise ValueError(f"guidance {weight} at step {step} needs unconditional text")
        if batched:
            pair = model(torch.cat([x, x]), timestep, torch.cat([uncond, cond]))
            without, along = _float(pair).chunk(2)
        else:
            without = _float(model(x, timestep, uncond))
            along = _float(model(x, timestep, cond))
        return without + weight * (along - without)

    return predict


def _cosine(scale: float, progress: float) -> float:
    return 1 + scale * (1 - math.cos(math.pi * progress**5)) / 2


def _float(prediction: Tensor) -> Tensor:
    return prediction.to(torch.promote_types(prediction.dtype, torch.float32))
