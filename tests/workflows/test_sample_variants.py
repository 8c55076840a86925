"""`ttv sample` with public CogVideoX folders: lengths, sizes, first frames, and what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Ran, run_ttv
from PIL import Image
from variant_folders import FRAMES, SIZE, VARIANTS, takes_image, write_variant

from ttvcli.artifacts.model_folder import config_path
from ttvcli.artifacts.video import read_sidecar
from ttvcli.core.video.decode import probe, read_frames
from ttvcli.workflows.first_frame import load_pixels
from ttvcli.workflows.sample import SampleConfig
from ttvcli.workflows.sample_request import Request, check

pytest.importorskip("diffusers")

PROMPT = "a red circle moves right"
FPS = {"2b": 8, "5b": 8, "5b-i2v": 8, "1.5": 16, "1.5-i2v": 16}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each variant, and `first.png` of another shape in their parent; read-only."""
    root = tmp_path_factory.mktemp("variants")
    noise = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "first.png")
    return {variant: write_variant(root / variant, variant) for variant in VARIANTS}


def words(folders: dict[str, Path], variant: str, *more: str | Path) -> list[str | Path]:
    image = ["--image", folders[variant].parent / "first.png"] if takes_image(variant) else []
    return [PROMPT, "--model", folders[variant], "--device", "cpu", *image, *more]


def sample(folders: dict[str, Path], variant: str, *more: str | Path) -> Ran:
    return run_ttv("sample", *words(folders, variant, "--steps", "2", *more))


def request(folder: Path, **settings: Any) -> Request:
    return check(SampleConfig(prompt=PROMPT, model=str(folder), **settings))


def copy_with(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a model with other settings in its transformer's config."""
    shutil.copytree(folder, target)
    path = config_path(target, "transformer")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return target


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_makes_a_clip_of_its_own_length_and_rate_and_makes_it_again(
    variant: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "clip.mp4"
    size = ("--size", "96x64") if variant.startswith("1.5") else ()
    ran = sample(folders, variant, "-o", out, *size)
    assert ran.code == 0, ran.stderr
    assert ("is stretched" in ran.stderr) == takes_image(variant)
    about = probe(out)
    assert (about.width, about.height, float(about.fps)) == (*SIZE, FPS[variant])
    assert len(list(read_frames(out))) == FRAMES
    again = tmp_path / "again.mp4"
    ran = run_ttv("sample", "--config", out.with_suffix(".json"), "-o", again)
    assert ran.code == 0, ran.stderr
    assert again.read_bytes() == out.read_bytes()


def test_the_first_frame_decides_the_video_and_another_file_in_its_place_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    image = tmp_path / "first.png"
    Image.new("RGB", SIZE, "red").save(image)
    out = tmp_path / "red.mp4"
    change = ("--image", image)
    assert sample(folders, "5b-i2v", "-o", out, *change).code == 0
    Image.new("RGB", SIZE, "blue").save(image)
    sidecar = out.with_suffix(".json")
    ran = run_ttv("sample", "--config", sidecar, "-o", tmp_path / "again.mp4")
    assert (ran.code, "not the one that the video was made from" in ran.stderr) == (3, True)
    other = tmp_path / "blue.mp4"
    words = ("--set", "image_hash=", "-o", other)
    assert run_ttv("sample", "--config", sidecar, *words).code == 0
    assert other.read_bytes() != out.read_bytes()
    assert read_sidecar(other)["settings"]["image"] != read_sidecar(out)["settings"]["image"]


def test_an_image_is_turned_as_its_camera_says_and_loses_its_transparency(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (4, 2), (255, 0, 0, 128))
    picture.putpixel((0, 0), (0, 0, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    picture.save(tmp_path / "a.png", exif=exif)
    pixels = load_pixels(tmp_path / "a.png", 2, 4)
    assert pixels.shape == (3, 4, 2)
    assert pixels.dtype == np.float32
    assert pixels[:, 0, 1].tolist() == [-1, -1, 1]
    assert pixels[:, 3, 0].tolist() == [1, -1, -1]


LENGTHS = [
    ("5b", {}, 9, 8),
    ("5b", {"frames": 49}, 49, 8),
    ("5b", {"seconds": 6}, 49, 8),
    ("5b", {"seconds": 3, "fps": 16}, 49, 16),
    ("5b", {"frames": 17, "seconds": 2}, 17, 8),
    ("5b", {"frames": 1}, 1, 8),
    ("1.5", {"frames": 81}, 81, 16),
    ("1.5", {"seconds": 10}, 161, 16),
]


@pytest.mark.parametrize(("variant", "settings", "frames", "fps"), LENGTHS)
def test_length_is_given_in_frames_or_seconds(
    variant: str, settings: dict[str, Any], frames: int, fps: int, folders: dict[str, Path]
) -> None:
    made = request(folders[variant], **settings)
    assert (made.frames, made.fps) == (frames, fps)
    assert made.latent_shape[0] == (frames - 1) // 4 + 1


def test_patches_of_two_frames_are_filled_with_a_frame_in_front(folders: dict[str, Path]) -> None:
    assert [request(folders["1.5"], frames=f).front_frames for f in (1, 9, 81, 161)] == [1] * 4
    assert request(folders["5b"], frames=49).front_frames == 0


def test_a_config_that_names_a_limit_and_no_size_gets_the_size_of_the_second_generation(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    limit = {"sample_width": 300, "sample_height": 300, "sample_frames": 85}
    made = request(copy_with(folders["1.5"], tmp_path / "model", **limit))
    assert (made.width, made.height, made.frames) == (1360, 768, 81)
    assert made.warnings == []


def test_what_a_clip_model_was_not_trained_for_is_warned_about(folders: dict[str, Path]) -> None:
    longer = request(folders["5b"], frames=49, size="64x96").warnings
    assert [warning.partition(";")[0] for warning in longer] == [
        "this model was trained for 9 frames at most, not 49",
        "this model was trained at 96x64 only",
    ]
    assert request(folders["1.5"], frames=161, size="64x96").warnings == []
    assert len(request(folders["1.5"], frames=169).warnings) == 1


NEWER = ("ofs_embed_dim", "patch_bias", "patch_size_t", "use_learned_positional_embeddings")


@pytest.mark.parametrize(
    ("variant", "lacks"), [("2b", (*NEWER, "use_rotary_positional_embeddings")), ("5b", NEWER)]
)
def test_old_configs_without_the_newer_keys_make_the_same_video(
    variant: str, lacks: tuple[str, ...], folders: dict[str, Path], tmp_path: Path
) -> None:
    model = shutil.copytree(folders[variant], tmp_path / "model")
    path = config_path(model, "transformer")
    values = json.loads(path.read_text())
    path.write_text(json.dumps({key: values[key] for key in values if key not in lacks}))
    words = (PROMPT, "--steps", "1", "--device", "cpu")
    for folder, name in ((folders[variant], "new.mp4"), (model, "old.mp4")):
        ran = run_ttv("sample", *words, "--model", folder, "-o", tmp_path / name)
        assert ran.code == 0, ran.stderr
    assert (tmp_path / "old.mp4").read_bytes() == (tmp_path / "new.mp4").read_bytes()


WITHOUT = """
import sys

class Absent:
    names = ("google", "tiktoken", "tokenizers", "transformers", "diffusers")

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from ttvcli.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_download_is_sampled_where_nothing_reads_its_tokenizer_but_sentencepiece(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Protobuf and tiktoken are what other programs ask for; the folder holds spiece.model only."""
    model, out = folders["5b"], tmp_path / "o.mp4"
    assert [path.name for path in (model / "tokenizer").iterdir()] == ["spiece.model"]
    command = ["sample", PROMPT, "--model", model, "-o", out, "--steps", "1", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, command)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert probe(out).width == SIZE[0]


IMAGE = "first.png"
BAD: list[tuple[str, list[str], int, str]] = [
    ("5b-i2v", [], 2, "there is no --image"),
    ("1.5-i2v", ["--size", "96x64"], 2, "there is no --image"),
    ("5b", ["--image", IMAGE], 2, "this one is text-to-video"),
    ("5b-i2v", ["--image", "none.png"], 3, "there is no such image"),
    ("5b-i2v", ["--image", "broken.png"], 3, "the image cannot be read"),
    ("5b-i2v", ["--image", "."], 3, "the image cannot be read"),
    ("5b-i2v", ["--image", IMAGE, "--size", "64x96"], 2, "knows one size and length only"),
    ("5b-i2v", ["--image", IMAGE, "--frames", "17"], 2, "--size 96x64 --frames 9"),
    ("5b-i2v", ["--image", IMAGE, "--set", "text_tokens=20"], 2, "texts of 24 tokens only"),
    ("5b", ["--frames", "48"], 2, "--frames 49"),
    ("5b", ["--frames", "0"], 2, "fix:   --frames 1;"),
    ("5b", ["--frames", "1000009"], 2, "must be at most 4801"),
    (
        "5b",
        ["--seconds", "3", "--frames", "49"],
        2,
        "--seconds 3 at 8 frames per second are 25 frames",
    ),
    ("5b", ["--seconds", "2.5"], 2, "--seconds 3, or --frames 25"),
    ("5b", ["--seconds", "nan"], 2, "must be more than 0"),
    ("5b", ["--seconds", "700"], 2, "must be at most 600"),
    ("5b", ["--set", "fps=0"], 2, "fps must be 1 or more"),
    ("5b", ["--set", "text_tokens=0"], 2, "text_tokens must be 1 or more"),
    ("5b", ["--set", "text_tokens=4"], 3, "segment 1: its text has"),
    ("5b", ["--set", "null_text=nil"], 2, "null_text expects one of"),
    ("5b", ["--storyboard", "story.txt"], 2, "one clip from one text (it has no TTT layers)"),
    ("5b", ["--size", "90x64"], 2, "multiples of 16"),
]


@pytest.mark.parametrize(("variant", "options", "code", "says"), BAD)
def test_what_the_model_cannot_make_is_one_clear_error(
    variant: str,
    options: list[str],
    code: int,
    says: str,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(folders[variant].parent / "first.png", IMAGE)
    Path("broken.png").write_bytes(Path(IMAGE).read_bytes()[:300])
    Path("story.txt").write_text("one\ntwo\n")
    prompt = [] if "--storyboard" in options else [PROMPT]
    ran = run_ttv("sample", *prompt, "--model", folders[variant], *options, "--dry-run")
    assert ran.code == code, ran.stderr
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_killed_run_with_a_first_frame_goes_on_to_the_same_bytes(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the image draws from the generator before the noise, and the sampler's steps after it
    from ttvcli.workflows import generate

    change = ("--size", "96x64", "--sampler", "dpm++2m-sde", "--set", "checkpoint_every=1")
    whole, out = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    assert sample(folders, "1.5-i2v", "-o", whole, *change).code == 0
    velocity = generate.velocity
    calls: list[int] = []

    def killed(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return velocity(*args)

    monkeypatch.setattr(generate, "velocity", killed)
    assert sample(folders, "1.5-i2v", "-o", out, *change).code == 130
    assert sample(folders, "1.5-i2v", "-o", out, *change).code == 0
    assert len(calls) == 3
    assert out.read_bytes() == whole.read_bytes()


def test_a_dry_run_says_what_clip_is_made(folders: dict[str, Path], tmp_path: Path) -> None:
    ran = sample(
        folders, "1.5-i2v", "--frames", "81", "--dry-run", "--json", "-o", tmp_path / "o.mp4"
    )
    items = ran.json["plan"]["items"]
    assert items["video"] == "160x160, 81 frames"
    assert (items["frames per second"], items["seconds"]) == (16, 5.0)
    assert items["latents"] == "[21, 4, 20, 20]"
    assert items["first frame"].endswith("first.png")
    assert items["run VAE encoder"] == "all weights resident"
    sizes = ran.json["plan"]["bytes"]
    assert sizes["VAE encoder weights"] == sizes["VAE weights"]
    assert 0 < sizes["VAE encoder activations"] < sizes["VAE activations"]
