"""Files of the same bytes: the first in the order of the sources is kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ttvcli.core.filters.filter import Candidate, Copy, Filter


@dataclass(frozen=True, kw_only=True)
class ExactDuplicateLimits:
    """Thresholds."""

    copies: int = field(default=1, metadata={"help": "files of the same bytes that are kept"})


def find_exact(candidates: Sequence[Candidate], limits: Any) -> Iterator[Copy]:
    """Yield all but the first `limits.copies` of each group of equal files."""
    kept: dict[str, list[str]] = {}
    for candidate in candidates:
        group = kept.setdefault(candidate.sha256, [])
        if len(group) < max(limits.copies, 1):
            group.append(candidate.name)
        else:
            yield Copy(candidate.name, group[0], "the same bytes")


FILTER = Filter(
    name="exact_duplicate",
    about="the same file again",
    limits=ExactDuplicateLimits,
    compare=find_exact,
)
