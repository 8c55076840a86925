"""Judge the captions of a library: which segments need another one, and why."""

from ttvcli.artifacts.manifest import read_manifest
from ttvcli.core.captions.check import (
    UNDETERMINED,
    Verdict,
    check_caption,
    normal,
    repeated_texts,
)
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.workflows.caption_fill_in import Gap
from ttvcli.workflows.caption_frames import lengths
from ttvcli.workflows.caption_model import TINY_WORLD, CaptionConfig
from ttvcli.workflows.caption_sources import (
    Library,
    Span,
    cut_into_segments,
    put_waiting,
    stated_duration,
)
from ttvcli.workflows.step import SILENT, Progress

BY_HAND = "hand"
WANTED = "replaced"  # the problem of a good caption that --force replaces
# Who may say the same of many videos: people and models that looked at each.
_TRUSTED = (BY_HAND, "synth", TINY_WORLD, "endpoint", "transformers")


class Judged:
    """The captions of a library, judged."""

    def __init__(self, config: CaptionConfig, library: Library) -> None:
        self.config = config
        self.library = library
        self.rules = config.rules()
        self.everything = config.force and bool(config.captioner)
        self.unsure = 0
        self.unreadable: dict[int, UnreadableVideo] = {}
        texts = (
            [span["caption"] for span in clip.spans if _may_repeat(span)]
            for clip in library.clips.values()
        )
        self.repeated = repeated_texts(texts, self.rules)

    def gaps(self, progress: Progress = SILENT) -> list[Gap]:
        """Judge every caption, note its language, and return the segments that need another.

        Videos that have no segments get some, for which those of unknown length are opened.
        """
        judged, whole = {}, []
        for number, clip in self.library.clips.items():
            judged[number] = [self._judge(span) for span in clip.spans]
            wanting = self.everything or any(verdict.problem for verdict in judged[number])
            if clip.whole and (wanting or clip.waiting):
                whole.append(number)
        self._cut(whole, progress)
        found = []
        for number, verdicts in judged.items():
            clip = self.library.clips[number]
            if clip.waiting and not clip.uncut:
                put_waiting(clip)
                verdicts = [self._judge(span) for span in clip.spans]
            elif len(verdicts) < len(clip.spans):
                verdicts = [verdicts[0]] * len(clip.spans)
            for place, (span, verdict) in enumerate(zip(clip.spans, verdicts, strict=True)):
                _note(span, verdict)
                self.unsure += verdict.unsure
                problem = verdict.problem or (WANTED if self.everything else "")
                if problem:
                    found.append(Gap(number, place, problem))
        return found

    def _cut(self, numbers: list[int], progress: Progress) -> None:
        """Give clips their segments of 3 s; those whose length cannot be told are unreadable."""
        stated = {number: stated_duration(self.library.clips[number]) for number in numbers}
        unknown = [number for number, duration in stated.items() if duration is None]
        paths = [self.library.clips[number].path for number in unknown]
        measured = dict(zip(unknown, lengths(paths, self.config, progress), strict=True))
        for number, duration in (stated | measured).items():
            if isinstance(duration, UnreadableVideo):
                self.unreadable[number] = duration
                self.library.clips[number].uncut = True
            elif duration is not None:
                cut_into_segments(self.library.clips[number], duration)

    def _judge(self, span: Span) -> Verdict:
        declared = str(span.get("language") or "")
        verdict = check_caption(span["caption"], self.rules, declared=declared)
        if not verdict.problem and _may_repeat(span) and normal(span["caption"]) in self.repeated:
            return Verdict("repeated", verdict.language, verdict.confidence)
        return verdict


def take_from_output(library: Library, gaps: list[Gap]) -> list[Gap]:
    """Take what an earlier run wrote into another folder, as the source does not have it.

    Returns the gaps for which it has nothing.
    """
    manifest = library.manifest
    if library.in_place or not gaps or not manifest.is_file():
        return gaps
    earlier = {str(record.get("path")): record for record in read_manifest(manifest)}
    lines = library.finished()
    left = []
    for gap in gaps:
        spans = earlier.get(str(lines[gap.clip]["path"]), {}).get("segments") or []
        now = library.clips[gap.clip].spans[gap.span]
        old = spans[gap.span] if gap.span < len(spans) else {}
        same = (old.get("start"), old.get("end")) == (now.get("start"), now.get("end"))
        replaced = (old.get("replaced") or [{}])[-1].get("caption", "")
        usable = old.get("caption") and not old.get("caption_problem")
        if same and usable and replaced == now["caption"]:
            now.update(old)
        else:
            left.append(gap)
    return left


def _may_repeat(span: Span) -> bool:
    source = str(span.get("caption_source") or "")
    return bool(span["caption"]) and source.partition(":")[0] not in _TRUSTED


def _note(span: Span, verdict: Verdict) -> None:
    """Record what a caption was found to be."""
    if not span["caption"]:
        span.pop("caption_source", None)
        span.pop("language", None)
    elif verdict.language not in ("", UNDETERMINED) or not span.get("language"):
        span["language"] = verdict.language or UNDETERMINED
    if verdict.problem and span["caption"]:
        span["caption_problem"] = verdict.problem
    else:
        span.pop("caption_problem", None)
