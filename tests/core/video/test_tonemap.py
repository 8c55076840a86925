"""High dynamic range to ordinary range."""

import numpy as np
import pytest

from ttvcli.core.video.tonemap import HLG, PQ, hdr_to_sdr


def grey(signal: float) -> np.ndarray:
    return np.full((1, 1, 3), round(signal * 65535), np.uint16)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_black_stays_black_and_grey_stays_grey(transfer: int) -> None:
    assert hdr_to_sdr(grey(0.0), transfer).max() == 0
    for signal in (0.2, 0.4, 0.6, 0.9):
        shade = hdr_to_sdr(grey(signal), transfer)[0, 0]
        assert np.ptp(shade) <= 1  # the rows of the colour matrix sum to 1 within 1e-4


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_brightness_keeps_its_order(transfer: int) -> None:
    shades = [int(hdr_to_sdr(grey(s), transfer)[0, 0, 0]) for s in np.linspace(0, 0.75, 40)]
    assert shades == sorted(shades)
    assert len(set(shades)) > 30


def test_reference_white_is_bright_but_leaves_room_for_highlights() -> None:
    # ITU-R BT.2408: 203 cd/m2 is 58 % of the PQ signal and 75 % of the HLG signal
    for transfer, signal in ((PQ, 0.58), (HLG, 0.75)):
        assert 200 <= hdr_to_sdr(grey(signal), transfer)[0, 0, 0] <= 240
    assert hdr_to_sdr(grey(1.0), PQ).min() >= 254


def test_a_pure_colour_keeps_its_hue() -> None:
    red = np.array([[[40000, 8000, 8000]]], np.uint16)
    r, g, b = hdr_to_sdr(red, PQ)[0, 0].astype(int)
    assert r > 100
    assert max(g, b) < r / 3


def test_other_input_is_refused() -> None:
    with pytest.raises(ValueError, match="uint16"):
        hdr_to_sdr(np.zeros((1, 1, 3), np.uint8), PQ)
    with pytest.raises(ValueError, match="transfer"):
        hdr_to_sdr(grey(0.5), 1)
