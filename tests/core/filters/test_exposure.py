"""Black, white and flashing pictures."""

from collections.abc import Sequence

import numpy as np
import pytest
from filter_views import metrics_of

from ttvcli.core.filters.exposure import FILTER, ExposureLimits, ExposureMeter


def of_levels(levels: Sequence[int], fps: int = 24) -> dict[str, float]:
    return metrics_of(ExposureMeter(), [np.full((36, 64), v, np.uint8) for v in levels], fps)


def codes(found: dict[str, float]) -> list[str]:
    return [entry.code for entry in FILTER.findings({"exposure": found}, ExposureLimits())]


def test_black_and_white_frames_are_counted() -> None:
    found = of_levels([5] * 30 + [250] * 10 + [120] * 10)
    assert (found["black"], found["white"]) == (0.6, 0.2)
    assert codes(found) == ["black"]


@pytest.mark.parametrize(("period", "flashes"), [(2, 6), (6, 2)])
def test_flashes_are_pairs_of_opposite_changes_in_a_second(period: int, flashes: int) -> None:
    levels = [40 if (n // period) % 2 else 140 for n in range(48)]
    found = of_levels(levels)
    assert found["flashes"] == flashes
    assert ("flashing" in codes(found)) == (flashes > 3)


def test_fades_and_small_flicker_do_not_flash() -> None:
    assert of_levels(list(range(20, 220, 4)))["flashes"] == 0
    assert of_levels([100, 110] * 24)["flashes"] == 0


def test_a_bright_picture_that_gets_brighter_does_not_flash() -> None:
    assert of_levels([210, 250] * 24)["flashes"] == 0


def test_a_steady_picture_passes() -> None:
    assert codes(of_levels([120] * 48)) == []
