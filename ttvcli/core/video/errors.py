"""Why a video cannot be used, as one typed error with a short reason code."""

REASONS = {
    "not_a_file": "not a regular file",
    "permission": "may not be read",
    "empty": "the file is empty",
    "not_a_video": "not a video file",
    "refused_format": "a playlist or another format that names other files",
    "no_video_stream": "there is no video in it",
    "truncated": "the file ends early",
    "corrupt": "the video is damaged",
    "too_large": "the frames are larger than the limit",
    "too_short": "shorter than one clip",
    "too_small": "smaller than the size asked for",
    "crashed": "the decoder died of it",
    "timeout": "the decoder got stuck in it",
    "changed": "the file changed while it was read",
}


class UnreadableVideo(Exception):
    """A video that cannot be used: `reason_code` is a key of REASONS, `detail` what was seen."""

    def __init__(self, reason_code: str, detail: str = "") -> None:
        if reason_code not in REASONS:
            raise ValueError(f"unknown reason {reason_code!r}; known: {', '.join(REASONS)}")
        meaning = REASONS[reason_code]
        super().__init__(f"{meaning}: {detail}" if detail else meaning)
        self.reason_code = reason_code
        self.detail = detail or meaning
