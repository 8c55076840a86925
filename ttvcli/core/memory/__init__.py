"""Run large networks in little memory, and say beforehand how much that is."""
