"""No step of the data pipeline writes where another process is at work."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_files import write_text_encoder, write_vae
from step_outputs import snapshot
from video_files import make_video

from ttvcli.artifacts.lock import only_writer
from ttvcli.errors import UsageError
from ttvcli.workflows import caption, embed_text, encode, filter, split, synth

RUNS: dict[str, Callable[[Path, Path], Any]] = {
    "prep synth": lambda source, out: synth.run(synth.SynthConfig(out=out, clips=1)),
    "prep filter": lambda source, out: filter.run(
        filter.FilterConfig(source=str(source), out=out, workers=1)
    ),
    "prep split": lambda source, out: split.run(split.SplitConfig(source=str(source), out=out)),
    "prep caption": lambda source, out: caption.run(
        caption.CaptionConfig(source=str(source), out=out)
    ),
    "prep encode": lambda source, out: encode.run(
        encode.EncodeConfig(
            source=str(source), out=out, model=str(write_vae(source / "m")), frames=17, device="cpu"
        )
    ),
    "embed-text": lambda source, out: embed_text.run(
        embed_text.EmbedTextConfig(
            source=str(source), out=out, model=str(write_text_encoder(source / "m")), device="cpu"
        )
    ),
}


@pytest.mark.parametrize("step", RUNS)
def test_a_step_refuses_a_folder_that_another_run_writes_to(tmp_path: Path, step: str) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    make_video(source / "v.mp4", frames=17, fps=16)
    line = {"id": "v", "path": "v.mp4", "segments": [{"caption": "a line moves"}]}
    (source / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    with only_writer(out), pytest.raises(UsageError, match="another process"):
        RUNS[step](source, out)
    assert snapshot(out) == {}
