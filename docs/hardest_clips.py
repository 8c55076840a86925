"""Pick the clips of the drawn world that are learnt last: `python docs/hardest_clips.py FROM TO`.

FROM is a folder of latents of `ttv prep encode`. TO gets its clips of stars and of objects that
bounce or circle, and two of five of the others, as hard links, with a manifest of its own.
"""

import os
import random
import shutil
import sys
from pathlib import Path

from ttvcli.artifacts.manifest import MANIFEST_NAME, read_manifest

OTHERS = 0.4  # share of the clips that are not among the hardest
MOTIONS = ("bounce", "circle")


def is_hard(row: dict) -> bool:
    """Whether the only object of a clip is a star or moves in one of the hardest ways."""
    drawn = row["world"]["segments"][0]["objects"][0]
    return drawn["shape"] == "star" or drawn["motion"] in MOTIONS


def pick(source: Path, out: Path) -> int:
    """Fill the folder; returns how many clips it has."""
    chance = random.Random(0)
    lines = (source / MANIFEST_NAME).read_text(encoding="utf-8").splitlines(keepends=True)
    rows = list(read_manifest(source / MANIFEST_NAME))
    out.mkdir(parents=True)
    chosen = []
    for row, line in zip(rows, lines, strict=True):
        if is_hard(row) or chance.random() < OTHERS:
            os.link(source / row["path"], out / row["path"])
            chosen.append(line)
    for file in source.glob("*.json"):
        shutil.copy(file, out)
    (out / MANIFEST_NAME).write_text("".join(chosen), encoding="utf-8")
    return len(chosen)


if __name__ == "__main__":
    sys.stdout.write(f"{pick(Path(sys.argv[1]), Path(sys.argv[2]))} clips\n")
