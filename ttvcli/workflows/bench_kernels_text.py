"""Rows of `ttv bench kernels` to read: a line for each, and the tables for a page."""

from typing import Any

GIB = 2**30
ROW_KEYS = {"video_seconds", "op"}  # of each row one of these
VIDEO_CELLS = {
    "tflops": "{:.3g}",
    "gb_s": "{:.3g}",
    "bound_share": "{:.0%}",
    "times_public": "{:.2f}x",
    "times_compiled": "{:.2f}x",
    "local_attention_ratio": "{:.2f}",
    "training_ratio": "{:.2f}",
    "estimate_rtx_4090_seconds": "{:.4g}",
}
PASS_NAMES = {"forward": "no gradient", "training forward": "forward", "backward": "backward"}


def title(row: dict[str, Any]) -> str:
    """What a row measured."""
    if row["sizes"] == "video":
        return f"{row['row']} {row['side']} {row['pass']} {row['video_seconds']} s"
    return f"{subject(row)}, {row['side']}, {row['pass']}"


def subject(row: dict[str, Any]) -> str:
    """Operation and size of a row at a published size."""
    name = f"{row['op']} layer" if row["row"] == "layer" else row["op"]
    return f"{name}, {row['heads']} heads, {row['tokens']} tokens, mini-batch {row['mini_batch']}"


def readable(row: dict[str, Any]) -> str:
    """Its result."""
    if "seconds" not in row:
        return f"not run: {row['not_run']}"
    parts = [f"{row['seconds']:.4g} s"]
    if "tflops" in row:
        parts += [
            f"{row['tflops']:.3g} TFLOP/s",
            f"{row['gb_s']:.3g} GB/s",
            f"{row['bound_share']:.0%} of what {row['bound']} allows",
        ]
    if row.get("peak_bytes") is not None:
        parts.append(f"{row['peak_bytes'] / GIB:.2f} GiB")
    if "times_public" in row:
        parts.append(f"{row['times_public']:.2f}x the public operation")
    if "times_compiled" in row:
        parts.append(f"{row['times_compiled']:.2f}x the compiled scan")
    if "local_attention_ratio" in row:
        parts.append(f"{row['local_attention_ratio']:.2f} of local attention")
    if "training_ratio" in row:
        parts.append(f"{row['training_ratio']:.2f} with forward")
    if "estimate_rtx_4090_seconds" in row:
        parts.append(f"estimate for an RTX 4090: {row['estimate_rtx_4090_seconds']:.4g} s")
    return ", ".join(parts)


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as tables: first those at published sizes, then those of video lengths.

    Raises:
        ValueError: a row is none of `ttv bench kernels`.
    """
    for row in rows:
        if not ({"row", "side", "pass", "tokens", "heads"} < set(row) and ROW_KEYS & set(row)):
            raise ValueError(f"no row of `ttv bench kernels`: {str(row)[:60]}")
    video = [row for row in rows if "video_seconds" in row]
    published = [row for row in rows if "video_seconds" not in row]
    tables = [_published(published)] if published else []
    return "\n".join([*tables, *([_video(video)] if video else [])])


def _published(rows: list[dict[str, Any]]) -> str:
    """Both sides in one line, CPU seconds and memory."""
    sides = {(subject(row), row["pass"], row["side"]): row for row in rows if "seconds" in row}
    lines = [
        "| what | pass | public, CPU s | scan, CPU s | quicker | public, GiB | scan, GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for what, which in dict.fromkeys((subject(row), row["pass"]) for row in rows):
        public, ours = (sides.get((what, which, side), {}) for side in ("public", "scan"))
        ratio = f"{ours['times_public']:.1f}x" if "times_public" in ours else "–"
        cells = [what, PASS_NAMES[which], _seconds(public), _seconds(ours), ratio]
        lines.append(f"| {' | '.join([*cells, _memory(public), _memory(ours)])} |")
    return "\n".join(lines) + "\n"


def _video(rows: list[dict[str, Any]]) -> str:
    """A line for each row; of one that was not measured, the reason in place of its seconds."""
    lines = [
        "| what | pass | video | s | GiB | TFLOP/s | GB/s | of the bound | of public "
        "| of compiled | of local attention | with forward | RTX 4090, estimated s |",
        "|---" * 13 + "|",
    ]
    for row in rows:
        sizes = f"{row['video_seconds']} s, {row['heads']} heads"
        taken = f"{row['seconds']:.4g}" if "seconds" in row else row["not_run"]
        cells = [f"{row['row']}, {row['side']}", row["pass"], sizes, taken, _memory(row)]
        cells += [form.format(row[key]) if key in row else "–" for key, form in VIDEO_CELLS.items()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _seconds(row: dict[str, Any]) -> str:
    return f"{row['cpu_seconds']:.2f}" if row else "–"


def _memory(row: dict[str, Any]) -> str:
    return f"{row['peak_bytes'] / GIB:.2f}" if row.get("peak_bytes") is not None else "–"
