"""Sessions beyond what CI does: other interpreters, and Quart's own test suite.

``nox -s tests`` runs the tests on every supported interpreter that is installed;
``nox -s quart_suite -- PATH`` needs a checkout of Quart and proves that ``WebServer`` passes what
Quart passes.
"""

import nox

nox.options.sessions = ["tests", "lint"]
nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """The tests, on one interpreter."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Lint, types and layers."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("pyright")
    session.run("lint-imports")


@nox.session
def quart_suite(session: nox.Session) -> None:
    """Quart's own test suite, on Quart and on ``WebServer`` in its place."""
    session.install("-e", ".[dev]")
    session.run("python", "tests/drop_in/suite.py", *session.posargs)


@nox.session
def peer_suites(session: nox.Session) -> None:
    """A peer's tests of compression, on the peer and on ours in its place."""
    session.install(
        "-e", ".[zstd]", "pytest", "flask", "flask-caching", "starlette", "httpx2", "anyio", "trio"
    )
    session.run("python", "tests/peer_suites/suite.py", *session.posargs)
