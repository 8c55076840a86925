"""Samplers: from noise to a clean sample in a few calls of a denoiser.

All have one signature. `denoise(x, timestep, step)` returns the clean-sample prediction in
float32 (see `parameterization.denoiser`); the sample stays in float32 between steps. Scalars are
float64, with the half log-SNR `lam = log(sqrt(a / (1-a)))`, minus infinity at the noisy end and
infinity at the clean end; each formula below is finite in these limits.

After each step `callback` gets a dict: `step`, `timestep`, `x` (after the step), `denoised` and
`state`, a `SamplerState`. Passed as `state` to the same sampler in another process, it takes the
place of the noise, and the run ends with the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ttvcli.core.diffusion.noise import Generators, draw_noise, get_state, set_state
from ttvcli.core.diffusion.parameterization import Prediction
from ttvcli.core.diffusion.schedules import CLEAN, Move, NoiseSchedule, Previous

Callback = Callable[[dict[str, Any]], None]
# (x, denoised, old_denoised, move) -> next x
_Update = Callable[[Tensor, Tensor, Tensor | None, Move], Tensor]


@dataclass(frozen=True)
class SamplerState:
    """A run between two steps: all that the steps to come depend on, besides the denoiser.

    `x` is the sample after step `next_step - 1` and `old_denoised` the prediction of that step;
    `generator` is the state of the generators as bytes [G, N] (see `noise.get_state`), or None
    without any.
    """

    next_step: int
    x: Tensor
    old_denoised: Tensor | None = None
    generator: Tensor | None = None


def ddim(
    denoise: Prediction,
    x: Tensor,
    schedule: NoiseSchedule,
    steps: int,
    *,
    generator: Generators | None = None,
    start_step: int = 0,
    state: SamplerState | None = None,
    callback: Callback | None = None,
    previous: Previous = "grid",
) -> Tensor:
    """Deterministic first-order sampling (arXiv 2010.02502 with eta 0); draws no noise.

    `start_step` skips the steps before it (for a sample noised to that level); `state`, from a
    callback, resumes an interrupted run, with `x` giving shape and device only. `previous` is
    explained at `NoiseSchedule.moves`.
    """

    def update(x: Tensor, denoised: Tensor, old: Tensor | None, move: Move) -> Tensor:
        alpha, alpha_next = schedule.alpha(move.timestep), schedule.alpha(move.target)
        keep = ((1 - alpha_next) / (1 - alpha)).sqrt()
        add = alpha_next.sqrt() - alpha.sqrt() * keep
        return float(keep) * x + float(add) * denoised

    moves = schedule.moves(steps, previous)
    return _run(update, denoise, x, moves, generator, start_step, state, callback)


def dpm_pp_2m_sde(
    denoise: Prediction,
    x: Tensor,
    schedule: NoiseSchedule,
    steps: int,
    *,
    generator: Generators | None = None,
    start_step: int = 0,
    state: SamplerState | None = None,
    callback: Callback | None = None,
    previous: Previous = "grid",
) -> Tensor:
    """Stochastic second-order multistep sampling (SDE-DPM-Solver++ 2M, arXiv 2211.01095).

    The noise is drawn as the public CogVideoX scheduler draws it, so that a seed gives the same
    video: one tensor on a first-order step, and two on every second-order step, of which the
    first is thrown away. Arguments as for `ddim`; a generator is required.
    """
    if generator is None:
        raise ValueError("dpm++2m-sde adds noise at every step and needs a generator")

    def update(x: Tensor, denoised: Tensor, old: Tensor | None, move: Move) -> Tensor:
        alpha, alpha_next = schedule.alpha(move.timestep), schedule.alpha(move.target)
        h = _half_log_snr(alpha_next) - _half_log_snr(alpha)
        keep = ((1 - alpha_next) / (1 - alpha)).sqrt() * (-h).exp()
        add = -(-2 * h).expm1() * alpha_next.sqrt()
        std = (1 - alpha_next).sqrt() * (1 - (-2 * h).exp()).sqrt()
        noise = draw_noise(x.shape, generator, device=x.device, dtype=x.dtype)
        if old is not None and move.target != CLEAN:
            # the draw above is the discarded one
            noise = draw_noise(x.shape, generator, device=x.device, dtype=x.dtype)
            denoised = _extrapolate(denoised, old, h, schedule, move)
        return float(keep) * x + float(add) * denoised + float(std) * noise

    moves = schedule.moves(steps, previous)
    return _run(update, denoise, x, moves, generator, start_step, state, callback)


def dpm_pp_2m(
    denoise: Prediction,
    x: Tensor,
    schedule: NoiseSchedule,
    steps: int,
    *,
    generator: Generators | None = None,
    start_step: int = 0,
    state: SamplerState | None = None,
    callback: Callback | None = None,
    previous: Previous = "grid",
) -> Tensor:
    """Deterministic second-order multistep sampling (DPM-Solver++ 2M, arXiv 2211.01095).

    Follows the same curve as `ddim` with a smaller error per step. Arguments as for `ddim`.
    """

    def update(x: Tensor, denoised: Tensor, old: Tensor | None, move: Move) -> Tensor:
        alpha, alpha_next = schedule.alpha(move.timestep), schedule.alpha(move.target)
        h = _half_log_snr(alpha_next) - _half_log_snr(alpha)
        keep = ((1 - alpha_next) / (1 - alpha)).sqrt()
        add = -(-h).expm1() * alpha_next.sqrt()
        if old is not None and move.target != CLEAN:
            denoised = _extrapolate(denoised, old, h, schedule, move)
        return float(keep) * x + float(add) * denoised

    moves = schedule.moves(steps, previous)
    return _run(update, denoise, x, moves, generator, start_step, state, callback)


def _run(
    update: _Update,
    denoise: Prediction,
    x: Tensor,
    moves: list[Move],
    generator: Generators | None,
    start_step: int,
    state: SamplerState | None,
    callback: Callback | None,
) -> Tensor:
    """Walk over `moves`; keeps the previous prediction for the multistep updates."""
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"sampling runs in float32, the sample is {x.dtype}")
    old: Tensor | None = None
    if state is not None:
        x, old = _resumed(state, x, start_step)
        start_step = state.next_step
        set_state(generator, state.generator)
    if not 0 <= start_step <= len(moves):
        raise ValueError(f"start_step is {start_step}, has to be between 0 and {len(moves)}")
    for step in range(start_step, len(moves)):
        move = moves[step]
        denoised = denoise(x, move.timestep, step)
        if denoised.shape != x.shape:
            raise ValueError(
                f"denoise returned shape {tuple(denoised.shape)} for a sample of {tuple(x.shape)}"
            )
        x = update(x, denoised, old, move)
        old = denoised
        if callback is not None:
            callback(
                {
                    "step": step,
                    "timestep": move.timestep,
                    "x": x,
                    "denoised": denoised,
                    "state": SamplerState(step + 1, x, old, get_state(generator)),
                }
            )
    return x


def _resumed(state: SamplerState, x: Tensor, start_step: int) -> tuple[Tensor, Tensor | None]:
    """Sample and last prediction of `state`, where the noise `x` lies; checks that they fit."""
    if start_step not in (0, state.next_step):
        raise ValueError(
            f"start_step is {start_step}, the saved state continues at {state.next_step}"
        )
    if state.x.shape != x.shape or state.x.dtype != x.dtype:
        raise ValueError(
            f"the saved sample is {tuple(state.x.shape)} {state.x.dtype}, "
            f"this run's is {tuple(x.shape)} {x.dtype}"
        )
    old = state.old_denoised
    return state.x.to(x.device), None if old is None else old.to(x.device)


def _half_log_snr(alpha: Tensor) -> Tensor:
    return (alpha / (1 - alpha)).sqrt().log()


def _extrapolate(
    denoised: Tensor, old: Tensor, h: Tensor, schedule: NoiseSchedule, move: Move
) -> Tensor:
    """Extend the line through the last two predictions to the middle of the coming step."""
    assert move.origin is not None
    h_last = _half_log_snr(schedule.alpha(move.timestep)) - _half_log_snr(
        schedule.alpha(move.origin)
    )
    half = float(1 / (2 * (h_last / h)))
    return (1 + half) * denoised - half * old
