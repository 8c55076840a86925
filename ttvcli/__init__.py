"""ttv: from a folder of raw videos to a text-to-video model."""

__version__ = "0.1.0"
