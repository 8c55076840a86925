"""What a request says, against what its model reads: tokens, scene marks, the tiny world."""

import dataclasses
from typing import TYPE_CHECKING, Any

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.storyboard import Storyboard, check_storyboard
from ttvcli.errors import ArtifactError

if TYPE_CHECKING:
    from ttvcli.core.models.text.tokenizer import SentencePieceTokenizer
    from ttvcli.workflows.sample_request import Request


def settle_texts(request: "Request") -> "Request":
    """Return the request with the scene marks that its model reads, and warnings about its texts.

    Raises:
        ArtifactError: a text over the token budget, or scene tokens that the encoder has no row
            for.
    """
    from ttvcli.workflows.components import load_tokenizer

    tokenizer = load_tokenizer(request.folder)
    board, marks = _marked(request, tokenizer)
    # A text that the model does not understand anyway is cut with a warning, not refused.
    strange = _world_warnings(board, request.about)
    where = str(request.config.storyboard or "the prompt")
    warnings = [*request.warnings, *strange, *marks]
    try:
        check_storyboard(
            board, count_tokens=tokenizer.count, max_tokens=request.tokens, where=where
        )
    except ArtifactError as error:
        if not strange:
            raise
        warnings.append(f"{error.what}: the rest is cut off")
    return dataclasses.replace(request, board=board, warnings=warnings)


def _marked(
    request: "Request", tokenizer: "SentencePieceTokenizer"
) -> tuple[Storyboard, list[str]]:
    """The storyboard as the model reads it: a model that never saw scene tokens gets none."""
    board = request.board
    if not any(segment.scene_start for segment in board.segments):
        return board, []
    if tokenizer.has_scene_pieces:
        return board, []
    if request.transformer.get("ssm", "none") == "none":
        plain = (dataclasses.replace(s, scene_start=False) for s in board.segments)
        return Storyboard(tuple(plain)), ["the model has no scene tokens: scene marks are left out"]
    rows = int(model_folder.read_config(request.folder, "text_encoder").get("vocab_size", 0))
    if tokenizer.vocab_size > rows:
        raise ArtifactError(
            f"the scene tokens need {tokenizer.vocab_size} rows of the text encoder, it has {rows}",
            where=str(request.folder / "text_encoder"),
            fix="leave scene_start out of the storyboard, or check the text encoder's config.json",
        )
    return board, []


def _world_warnings(board: Storyboard, about: dict[str, Any]) -> list[str]:
    """For a model of the tiny world: which texts say more than it knows."""
    if about.get("world") != "tiny":
        return []
    from ttvcli.core.world.grammar import parse, unknown_words
    from ttvcli.core.world.vocabulary import COLOURS, MOTIONS, SHAPES

    strange = [(i, s.text) for i, s in enumerate(board.segments, 1) if parse(s.text) is None]
    if not strange:
        return []
    number, text = strange[0]
    which = "this prompt" if len({s.text for s in board.segments}) == 1 else f"segment {number}"
    words = unknown_words(text)
    about_words = f" (unknown words: {', '.join(words)})" if words else ""
    return [
        f"{which} is outside the tiny world{about_words}; the video will not show it. "
        f"This model draws {', '.join(SHAPES)} in {', '.join(COLOURS)} with the motions "
        f'{", ".join(MOTIONS)}, such as "a blue star stays still on a black background". '
        "For anything else: --model path/to/CogVideoX-5b"
    ]
