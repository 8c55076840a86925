"""Write captions with a vision-language model of transformers, from a folder on this machine.

Nothing is downloaded and no code of the model's folder is run.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ttvcli.core.captions.instruction import instruction
from ttvcli.core.video.segment_frames import FrameChoice
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows.caption_model import FAILED, CaptionConfig, NoCaption, View, read_instruction

_DEFAULT_TOKENS = 320


class TransformersCaptioner:
    """Writes captions with an image-text-to-text model; answers are the most probable ones.

    Raises:
        UsageError: transformers is not installed, or there is no such device.
        ArtifactError: the folder has no such model.
    """

    concurrency = 1  # the device is busy with one segment

    def __init__(self, config: CaptionConfig) -> None:
        folder = Path(config.captioner)
        self.config = config
        self.own = read_instruction(config)
        self.choice = FrameChoice(count=config.view_frames, longest=config.view_size)
        self.source = f"transformers:{folder.resolve().name}"
        self.settings: dict[str, object] = {
            "captioner": "transformers",
            "model": _identity(folder),
            "instruction": instruction(config.style, config.view_frames, 3, self.own),
            "frames": config.view_frames,
            "size": config.view_size,
            "max_tokens": config.max_tokens,
        }
        self.processor, self.model = _load(folder, config.device)

    def __call__(self, view: View) -> str:
        """Return what the model says."""
        import torch
        from PIL import Image

        text = instruction(self.config.style, len(view.frames), view.seconds, self.own)
        content: list[dict[str, Any]] = [
            {"type": "image", "image": Image.fromarray(frame)} for frame in view.frames
        ]
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
        try:
            inputs = self.processor.apply_chat_template(
                messages,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            ).to(self.model.device, dtype=self.model.dtype)
        except ValueError as error:  # more pictures than it takes, or no chat template
            raise NoCaption(FAILED, str(error)) from error
        with torch.inference_mode():
            tokens = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=self.config.max_tokens or _DEFAULT_TOKENS,
            )
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return str(self.processor.batch_decode(new, skip_special_tokens=True)[0])

    def stop(self) -> None:
        """Nothing to do: it is asked for one segment at a time."""


def _load(folder: Path, device: str) -> tuple[Any, Any]:
    if find_spec("transformers") is None:
        raise UsageError(
            "a captioner in a folder needs transformers", fix="pip install 'ttv[caption]'"
        )
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    from ttvcli.workflows.components import existing_device

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    place = existing_device(device)
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(folder, **local)
        model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto", **local)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ArtifactError(
            f"transformers cannot load it: {error}",
            where=str(folder),
            fix="give the folder of an image-text-to-text model as downloaded",
        ) from error
    if not hasattr(processor, "apply_chat_template"):
        raise ArtifactError("the model has no processor for pictures", where=str(folder))
    return processor, model.to(place).eval()


def _identity(folder: Path) -> list[list[object]]:
    """Names and sizes of the files: enough to notice another model, and read in no time."""
    return [[p.name, p.stat().st_size] for p in sorted(folder.iterdir()) if p.is_file()]
