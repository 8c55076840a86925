"""High dynamic range (PQ, HLG; BT.2020 colours) to the range and colours of an ordinary screen.

Curves: SMPTE ST 2084 (PQ) and ITU-R BT.2100 (HLG). Light above half of the reference white of
203 cd/m2 is compressed by the brightest channel, which keeps hues; colours outside BT.709 are
clipped.
"""

import numpy as np

PQ, HLG = 16, 18  # ITU-T H.273 transfer characteristics

_REFERENCE_WHITE = 203.0  # cd/m2, ITU-R BT.2408
_HLG_PEAK = 1000.0  # cd/m2, nominal
_PEAK = 1000.0 / _REFERENCE_WHITE  # what is mapped to full white
# ITU-R BT.2087: linear BT.2020 to linear BT.709.
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)


def hdr_to_sdr(picture: np.ndarray, transfer: int) -> np.ndarray:
    """Map uint16 RGB `[H, W, 3]` with a PQ (16) or HLG (18) curve to uint8 sRGB `[H, W, 3]`."""
    if picture.dtype != np.uint16 or picture.ndim != 3:
        raise ValueError(f"expected uint16 [H, W, 3], got {picture.dtype} {picture.shape}")
    if transfer not in (PQ, HLG):
        raise ValueError(f"transfer must be {PQ} (PQ) or {HLG} (HLG), got {transfer}")
    signal = picture.astype(np.float32) / 65535.0
    light = _pq_light(signal) if transfer == PQ else _hlg_light(signal)
    light /= _REFERENCE_WHITE
    brightest = np.maximum(light.max(axis=2, keepdims=True), 1e-6)
    light *= _compress(brightest) / brightest
    light = np.clip(light @ _TO_BT709.T, 0.0, 1.0)
    curve = 1.055 * np.power(light, 1 / 2.4, dtype=np.float32) - 0.055
    encoded = np.where(light <= 0.0031308, 12.92 * light, curve)
    return np.round(encoded * 255.0).astype(np.uint8)


def _pq_light(signal: np.ndarray) -> np.ndarray:
    """PQ signal in [0, 1] to cd/m2."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    root = np.power(signal, 1 / m2)
    return 10000.0 * np.power(np.maximum(root - c1, 0.0) / (c2 - c3 * root), 1 / m1)


def _hlg_light(signal: np.ndarray) -> np.ndarray:
    """HLG signal in [0, 1] to cd/m2 on a screen of 1000 cd/m2 (system gamma 1.2)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], dtype=scene.dtype)
    gain = np.power(np.maximum(luminance, 1e-6), 0.2)[..., None]
    return _HLG_PEAK * scene * gain


def _compress(light: np.ndarray) -> np.ndarray:
    """Identity up to half of white, then a smooth shoulder that reaches 1 at the peak."""
    knee = 0.5
    over = np.maximum(light - knee, 0.0) / (_PEAK - knee)
    slope = (_PEAK - knee) / (1 - knee)  # keeps the curve's slope continuous at the knee
    shoulder = over * slope / (1 + over * (slope - 1))
    return np.where(light <= knee, light, np.minimum(knee + (1 - knee) * shoulder, 1.0))
