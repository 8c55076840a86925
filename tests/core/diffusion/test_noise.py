"""Noise depends on the seed and on nothing else."""

import pytest
import torch

from ttvcli.core.diffusion.noise import draw_noise, get_state, set_state


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_a_sample_has_the_same_noise_in_any_batch() -> None:
    batch = draw_noise((3, 4, 5), seeded(1, 2, 3))
    alone = draw_noise((1, 4, 5), seeded(2))
    assert torch.equal(batch[1:2], alone)
    assert not torch.equal(batch[0], batch[1])


def test_one_generator_draws_the_whole_tensor_at_once() -> None:
    (generator, again) = seeded(5, 5)
    assert torch.equal(draw_noise((2, 30), generator), torch.randn(2, 30, generator=again))


def test_the_number_of_generators_has_to_match_the_batch() -> None:
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        draw_noise((3, 4), seeded(1, 2))


def test_saved_state_gives_the_same_noise_again() -> None:
    generators = seeded(1, 2)
    state = get_state(generators)
    first = draw_noise((2, 20), generators)
    set_state(generators, state)
    assert torch.equal(draw_noise((2, 20), generators), first)


def test_a_state_of_other_generators_is_refused() -> None:
    with pytest.raises(ValueError, match="3 generators for 2"):
        set_state(seeded(1, 2, 3), get_state(seeded(1, 2)))
    with pytest.raises(ValueError, match="goes with"):
        set_state(None, get_state(seeded(1)))
