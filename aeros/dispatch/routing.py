"""Finding the rule of a request without an adapter where none is needed."""

from __future__ import annotations

from typing import Any, Final, cast

from quart.routing import QuartMap, QuartRule
from quart.wrappers import Request
from werkzeug.routing import BaseConverter, RuleFactory
from werkzeug.routing.converters import DEFAULT_CONVERTERS
from werkzeug.routing.exceptions import NoMatch, RoutingException

from aeros.dispatch.request import first_field

_MOST_HOSTS: Final = 1_000
_MOST_PATHS: Final = 1_000
_LONGEST_PATH: Final = 200
_PURE_CONVERTERS: Final = frozenset(DEFAULT_CONVERTERS.values())


def _is_pure(converter: BaseConverter) -> bool:
    return type(converter) in _PURE_CONVERTERS


class RouteMap(QuartMap):
    """Quart's map. A path that has matched once is found without being taken apart again.

    That goes for every rule without parameters, and for the paths that came last of those with parameters
    whose converters are werkzeug's own, which say the same of one text each time. An adapter is asked
    for all that is no plain match: redirects, errors, hosts and subdomains.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._found: dict[tuple[str, str], QuartRule] = {}
        self._taken_apart: dict[tuple[str, str], tuple[QuartRule, dict[str, Any]]] = {}
        self._good_hosts: set[str] = set()
        self.changes: int = 0
        super().__init__(*args, **kwargs)

    def add(self, rulefactory: RuleFactory) -> None:
        """Adds rules."""
        super().add(rulefactory)
        self._found.clear()
        self._taken_apart.clear()
        self.changes += 1

    def find(self, request: Request, server_name: str | None) -> tuple[QuartRule, dict[str, Any]] | None:
        """Returns the rule of a request and its arguments; None where an adapter has to be asked.

        Args:
            request: The request.
            server_name: ``SERVER_NAME``, on which the subdomain depends.

        Raises:
            BadHost: The request's ``Host`` is none, as for an adapter.
            SecurityError: It is not trusted.
        """
        if server_name is not None or self.host_matching or self.default_subdomain:
            return None
        if not self._is_good_host(request):
            return None
        method, path = request.method, request.path
        rule = self._found.get((method, path))
        if rule is not None:
            return rule, {}
        known = self._taken_apart.get((method, path))
        if known is not None:
            return known[0], known[1].copy()  # it is the view's, which may change it
        self.update()
        try:
            matched, arguments = self._matcher.match("", path, method, False)
        except (NoMatch, RoutingException):
            return None
        if matched.redirect_to is not None or (
            self.redirect_defaults and len(self._rules_by_endpoint[matched.endpoint]) > 1
        ):
            return None
        rule = cast("Any", matched)
        found = cast("dict[str, Any]", arguments)
        if rule.methods is not None:
            if not rule.arguments:
                self._found[method, path] = rule
            elif len(path) <= _LONGEST_PATH and all(map(_is_pure, rule._converters.values())):
                self._remember(method, path, (rule, found.copy()))
        return rule, found

    def _remember(self, method: str, path: str, found: tuple[QuartRule, dict[str, Any]]) -> None:
        while len(self._taken_apart) >= _MOST_PATHS:
            del self._taken_apart[next(iter(self._taken_apart))]
        self._taken_apart[method, path] = found

    def _is_good_host(self, request: Request) -> bool:
        """Tells whether the request has a host that an adapter could be made for."""
        if request.trusted_hosts is not None or request.scheme not in ("http", "https"):
            return False
        host = first_field(request, b"host")
        if host is None:
            return False
        if host in self._good_hosts:
            return True
        if not request.host:  # or it raises, as an adapter would
            return False
        if len(self._good_hosts) < _MOST_HOSTS:
            self._good_hosts.add(host)
        return True
