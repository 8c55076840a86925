"""PDQ: equal to the public implementation bit for bit, and stable where copies differ."""

import numpy as np
import pytest

from ttvcli.core.filters.perceptual_hash import distances, from_hex, pdq, pdq_alone, to_hex

# What pdqhash 0.2.8 (the public C++ code) gives for `drawn` at these sizes.
PUBLIC = {
    (64, 64): "5380565fa4b0a9c7cab8d367b2dc14a0b54fa5d8a8912db7ada76d2c696c6d28",
    (90, 160): "c0370fff7e80f00081ff0fff3f807800f03fe07fe3ffc5f0c3d0cf808780c700",
    (97, 211): "7ffef000000907ffffefff00f000805701ff0fff17f53fd05e0076007e10fc20",
    (272, 640): "0fffffef80973ffff40000c71fef7f54fc00e016c1ff83dc06b80fa006004d00",
}


def drawn(height: int, width: int) -> np.ndarray:
    """A picture made with integers only, so that it is the same everywhere."""
    y, x = np.mgrid[:height, :width]
    return ((x * x * 3 + y * y * 5 + x * y * 2) // 997 * 37 % 256).astype(np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    waves = np.sin(7 * x + 3 * y) + np.cos(11 * y - 4 * x * x) + np.sin(19 * x * y + 2)
    return (128 + 40 * waves).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", PUBLIC, ids=str)
def test_hashes_are_those_of_the_public_implementation(size: tuple[int, int]) -> None:
    words, quality = pdq(drawn(*size))
    assert to_hex(words) == PUBLIC[size]
    assert quality == 100


@pytest.mark.parametrize("size", PUBLIC, ids=str)
def test_a_hash_without_its_quality_is_the_same(size: tuple[int, int]) -> None:
    picture = drawn(*size)
    assert np.array_equal(pdq_alone(picture), pdq(picture)[0])


def test_noise_brightness_and_scale_leave_most_bits_alone() -> None:
    picture = smooth(180, 320)
    noisy = picture + np.random.default_rng(0).normal(0, 6, picture.shape)
    words, _ = pdq(picture)
    for other in (noisy, picture * 0.8 + 20, smooth(90, 160), smooth(270, 480)):
        changed, _ = pdq(other.clip(0, 255).astype(np.uint8))
        assert distances(words, changed) <= 20


def test_another_picture_differs_in_about_half_of_the_bits() -> None:
    one, _ = pdq(smooth(90, 160))
    other, _ = pdq(smooth(90, 160)[:, ::-1])
    assert 90 < distances(one, other) < 166


def test_a_plain_picture_has_no_quality() -> None:
    assert pdq(np.full((90, 160), 80, np.uint8))[1] == 0


def test_hexadecimal_digits_come_back_as_the_same_hashes() -> None:
    words = np.random.default_rng(0).integers(0, 2**64, (5, 4), np.uint64)
    assert np.array_equal(from_hex(to_hex(words)), words)


def test_damaged_digits_and_wrong_planes_are_refused() -> None:
    with pytest.raises(ValueError, match="64 digits, got 62"):
        from_hex("ab" * 31)
    with pytest.raises(ValueError, match=r"\(90, 160, 3\)"):
        pdq(np.zeros((90, 160, 3), np.uint8))
