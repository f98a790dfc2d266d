"""How long a response stays fresh and how old it is (RFC 9111 §4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aeros.http.fields import OWS, first_value, parse_delta_seconds, parse_http_date

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aeros.http.cache_control import ResponseDirectives


def explicit_lifetime(
    headers: Sequence[tuple[bytes, bytes]], directives: ResponseDirectives, now: float
) -> float | None:
    """Returns the seconds that the response may be used for, as a shared cache reads them.

    The first that is stated counts: s-maxage, max-age, Expires less Date (``now``, POSIX seconds,
    where Date is absent or invalid). An Expires that is no date, such as ``0``, or that differs
    between its lines, means already stale: 0.0. None where nothing is stated; never negative
    (RFC 9111 §4.2.1, §5.3).
    """
    if directives.s_maxage is not None:
        return float(directives.s_maxage)
    if directives.max_age is not None:
        return float(directives.max_age)
    stated = {value for name, value in headers if name == b"expires"}
    if not stated:
        return None
    expires = parse_http_date(stated.pop().decode("latin-1"), now)
    if stated or expires is None:
        return 0.0
    date = _date(headers, now)
    return max(0.0, expires - (now if date is None else date))


def initial_age(headers: Sequence[tuple[bytes, bytes]], now: float) -> float:
    """Returns how many seconds old the response was when it arrived at ``now`` (POSIX seconds).

    This is the larger of Age and ``now`` less Date. Of several Age values the first counts; values
    that are not valid are ignored, a Date in the future counts as ``now`` (RFC 9111 §4.2.3, §5.1).
    """
    date = _date(headers, now)
    apparent_age = 0.0 if date is None else now - date
    return max(0.0, apparent_age, float(_age(headers)))


def _age(headers: Sequence[tuple[bytes, bytes]]) -> int:
    value = first_value(headers, b"age")
    if value is None:
        return 0
    first = value.decode("latin-1").partition(",")[0]
    return parse_delta_seconds(first.strip(OWS)) or 0


def _date(headers: Sequence[tuple[bytes, bytes]], now: float) -> float | None:
    value = first_value(headers, b"date")
    return None if value is None else parse_http_date(value.decode("latin-1"), now)
