"""Pages that hold everything themselves."""

import re
from pathlib import Path

import pytest

from ttvcli.artifacts.html_page import HtmlPage


@pytest.mark.parametrize(("limit", "grows"), [(0.0, "right"), (10.0, "left")])
def test_the_name_of_a_limit_stays_within_the_chart(
    tmp_path: Path, limit: float, grows: str
) -> None:
    page = HtmlPage("t")
    page.histogram([1, 2], 0.0, 10.0, [("max", limit)])
    page.write(tmp_path / "t.html")
    text = (tmp_path / "t.html").read_text()
    width = float(re.findall(r'<svg width="([0-9.]+)"', text)[0])
    ((x, rest),) = re.findall(r'<text x="([-0-9.]+)" ([^>]*)>max', text)
    assert 0 <= float(x) <= width
    assert ("left" if 'text-anchor="end"' in rest else "right") == grows
