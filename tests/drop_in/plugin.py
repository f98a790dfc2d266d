"""A pytest plugin that puts ``WebServer`` in Quart's place before Quart's own tests are collected.

Used by ``nox -s quart_suite``; see CONTRIBUTING.
"""

import quart
import quart.app

from aeros import WebServer

quart.Quart = quart.app.Quart = WebServer  # type: ignore[misc,assignment]  # on purpose
