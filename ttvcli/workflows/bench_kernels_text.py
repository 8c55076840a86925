"""Rows of `ttv bench kernels` to read: a line for each, and the table for a page."""

from typing import Any

GIB = 2**30
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
    """Rows at published sizes as a table: both sides in one line, CPU seconds and memory."""
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


def _seconds(row: dict[str, Any]) -> str:
    return f"{row['cpu_seconds']:.2f}" if row else "–"


def _memory(row: dict[str, Any]) -> str:
    return f"{row['peak_bytes'] / GIB:.2f}" if row.get("peak_bytes") is not None else "–"
