"""Bits for each pixel of each frame: how much of the picture the encoder can have kept."""

from dataclasses import dataclass, field

from ttvcli.core.filters.filter import AllMetrics, Clip, Filter, Metrics, Rule, rounded

# Newer codecs need about 0.6 of the bits of H.264 for the same picture.
_EFFICIENT = {"hevc", "vp9", "av1", "libdav1d", "libaom-av1", "vvc"}
_EFFICIENCY = 0.6
_STILL = 0.5  # motion below which few bits are no fault, per cent of the height a second


@dataclass(frozen=True, kw_only=True)
class BitrateLimits:
    """Thresholds in bits a pixel, as H.264 needs them."""

    min: float | None = field(
        default=0.010, metadata={"help": "bits a pixel in H.264 terms, at least"}
    )
    low: float | None = field(default=0.016, metadata={"help": "bits a pixel, flagged below"})


def measure_bitrate(clip: Clip) -> Metrics:
    """Return bits a pixel, as they are and as the H.264 they stand for."""
    pixels = clip.info.width * clip.info.height * clip.frames
    bits = 8 * clip.video_bytes / pixels
    factor = _EFFICIENCY if clip.info.codec in _EFFICIENT else 1.0
    return {"bits": rounded(bits, 5), "as_h264": rounded(bits / factor, 5)}


def hardly_moves(metrics: AllMetrics) -> bool:
    """Whether so little moves that few bits are enough."""
    speed = metrics.get("motion", {}).get("speed")
    return speed is not None and speed <= _STILL


FILTER = Filter(
    name="bitrate",
    about="too few bits for its pixels",
    limits=BitrateLimits,
    facts=measure_bitrate,
    rules=(
        Rule("as_h264", "below", "min", "low_bitrate", " bits a pixel", unless=hardly_moves),
        Rule("as_h264", "below", "low", "low_bitrate", drop=False, unless=hardly_moves),
    ),
)
