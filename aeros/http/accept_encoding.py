"""The Accept-Encoding field and the choice of a content coding (RFC 9110 §12.5.3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aeros.http.fields import OWS, is_token, split_list

if TYPE_CHECKING:
    from collections.abc import Sequence

_QVALUE = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")

# Names that a recipient takes for another (RFC 9110 §8.4.1.1, §8.4.1.3).
_ALIASES = {"x-gzip": "gzip", "x-compress": "compress"}


def parse_accept_encoding(value: str) -> dict[str, float]:
    """Returns the qvalue, from 0.0 to 1.0, of each coding that ``value`` lists.

    The names are in lower case, ``*`` and ``identity`` among them; ``x-gzip`` is ``gzip`` and
    ``x-compress`` is ``compress``. A name without a weight has 1.0; of a name that is given twice
    the lowest counts, so a refusal stands. What does not fit the grammar is ignored as if it was
    not sent; no text raises (RFC 9110 §12.4.2, §12.5.3).
    """
    weights: dict[str, float] = {}
    for element in split_list(value):
        name, semicolon, parameter = element.partition(";")
        name = name.rstrip(OWS)
        weight = _weight(parameter.lstrip(OWS)) if semicolon else 1.0
        if weight is None or not is_token(name):
            continue
        coding = _canonical(name)
        weights[coding] = min(weight, weights.get(coding, 1.0))
    return weights


def negotiate(value: str | None, offered: Sequence[str]) -> str | None:
    """Returns the member of ``offered`` to encode the content with, or None for identity.

    The highest qvalue wins; among equals the first in ``offered``, which is the server's order of
    preference, and any coding before identity. ``*`` stands for the offered codings that are not
    listed. Identity wins over a coding only where it is listed with a higher qvalue. It is also
    the answer where nothing offered is acceptable, and where the field is absent (None) or empty:
    a client that refuses even identity gets it rather than an error (RFC 9110 §12.5.3).
    """
    if not value:
        return None
    weights = parse_accept_encoding(value)
    others = weights.get("*", 0.0)
    best: str | None = None
    best_weight = 0.0
    for coding in offered:
        name = _canonical(coding)
        weight = weights.get(name, others)
        if weight > best_weight and name != "identity":
            best, best_weight = coding, weight
    return best if best_weight >= weights.get("identity", 0.0) else None


def _weight(parameter: str) -> float | None:
    if parameter[:2] not in {"q=", "Q="} or _QVALUE.fullmatch(parameter, 2) is None:
        return None
    return float(parameter[2:])


def _canonical(name: str) -> str:
    lowered = name.lower()
    return _ALIASES.get(lowered, lowered)
