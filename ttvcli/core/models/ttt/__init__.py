"""Test-time-training layers and the order in which they read a video."""
