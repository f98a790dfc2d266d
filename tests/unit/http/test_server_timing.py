"""The Server-Timing field."""

from __future__ import annotations

import http_sf
import pytest

from aeros.http.server_timing import ServerTiming


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        (ServerTiming(0.0012), b"total;dur=1.200"),
        (ServerTiming(0.0000004), b"total;dur=0.000"),
        (ServerTiming(12.5, 12.25, "stored"), b"total;dur=12500.000, app;dur=12250.000, cache;desc=stored"),
        (ServerTiming(0.001, cache="uri-miss"), b"total;dur=1.000, cache;desc=uri-miss"),
    ],
)
def test_durations_are_in_milliseconds(timing: ServerTiming, expected: bytes) -> None:
    """As the W3C has them, in a form that parsers of structured fields read too."""
    assert timing.render() == expected
    http_sf.parse(expected, tltype="list")
