"""What `ttv bench kernels` measures: shapes, sides, their correctness, bounds of the machine."""
