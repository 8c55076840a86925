"""Compile kernels for cards that are not here; run as a script, prints JSON.

    python compile_child.py ttv_kernels.ttt_linear.autograd:planned_launches '[[89, {...}], ...]'

The first argument names a function that takes the keywords of a case and returns launches. In a
process of its own because the tests around it run kernels in Triton's interpreter.
"""

import json
import sys
from dataclasses import asdict
from importlib import import_module

from ttv_kernels.ahead_of_time import compile_for

if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    launches = getattr(import_module(module), name)
    rows = []
    for capability, case in json.loads(sys.argv[2]):
        compiled = [compile_for(capability, launch) for launch in launches(**case)]
        rows.append([{**asdict(kernel), "fits": kernel.fits} for kernel in compiled])
    json.dump(rows, sys.stdout)
