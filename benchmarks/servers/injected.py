"""Views with three injected values, and without, in each framework that is measured.

FastAPI and Litestar are imported by name: the tests' environment, which checks the types, lacks them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from importlib import import_module
from typing import Any

from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from dependency_injector.wiring import inject as wired
from quart import Quart

from aeros import Container, WebServer, inject
from aeros.containers import RequestScoped


class Settings:
    """Made once."""

    unit: str = "EUR"


class Session:
    """Made for each request."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings


class Repository:
    """Made for each request, on a session."""

    def __init__(self, session: Session) -> None:
        self.session = session


async def open_session(settings: Settings) -> AsyncGenerator[Session]:
    """Opens and closes a session, as a database's would be."""
    yield Session(settings)


def answer(settings: Settings, session: Session, repository: Repository) -> dict[str, str]:
    """Uses all three."""
    return {"unit": settings.unit, "kind": type(session).__name__, "of": type(repository.session).__name__}


SETTINGS = Settings()
PLAIN = {"unit": "EUR", "kind": "Session", "of": "Session"}


class PlainContainer(Container):
    """Factories, as in the other frameworks."""

    options = providers.Singleton(Settings)
    session = providers.Factory(Session, options)
    repository = providers.Factory(Repository, session)


class ScopedContainer(Container):
    """The session is one for the request, and closed after it."""

    options = providers.Singleton(Settings)
    session = RequestScoped(open_session, options)
    repository = providers.Factory(Repository, session)


class WiredContainer(containers.DeclarativeContainer):
    """The same without aeros."""

    options = providers.Singleton(Settings)
    session = providers.Factory(Session, options)
    repository = providers.Factory(Repository, session)


def with_inject() -> Any:
    """``inject()`` with factories."""
    app = WebServer(__name__, container=PlainContainer(), compression=False)

    @app.route("/plain")
    async def plain() -> dict[str, str]:
        return PLAIN

    @app.route("/injected")
    async def injected(
        settings: Settings = inject(PlainContainer.options),
        session: Session = inject(PlainContainer.session),
        repository: Repository = inject(PlainContainer.repository),
    ) -> dict[str, str]:
        return answer(settings, session, repository)

    return app


def with_request_scope() -> Any:
    """``inject()`` with a session that is opened and closed."""
    app = WebServer(__name__, container=ScopedContainer(), compression=False)

    @app.route("/plain")
    async def plain() -> dict[str, str]:
        return PLAIN

    @app.route("/injected")
    async def injected(
        settings: Settings = inject(ScopedContainer.options),
        session: Session = inject(ScopedContainer.session),
        repository: Repository = inject(ScopedContainer.repository),
    ) -> dict[str, str]:
        return answer(settings, session, repository)

    return app


def with_wiring() -> Any:
    """dependency-injector's own ``@inject`` on Quart."""
    app = Quart(__name__)

    async def plain() -> dict[str, str]:
        return PLAIN

    @wired
    async def injected(
        settings: Settings = Provide[WiredContainer.options],
        session: Session = Provide[WiredContainer.session],
        repository: Repository = Provide[WiredContainer.repository],
    ) -> dict[str, str]:
        return answer(settings, session, repository)

    app.add_url_rule("/plain", view_func=plain)
    app.add_url_rule("/injected", view_func=injected)
    container = WiredContainer()
    container.wire(modules=[__name__])
    app.extensions["container"] = container
    return app


def with_depends() -> Any:
    """FastAPI's ``Depends``, with async functions, which run without a thread."""
    fastapi: Any = import_module("fastapi")
    depends = fastapi.Depends

    async def settings_of() -> Settings:
        return SETTINGS

    async def session_of(settings: Settings = depends(settings_of)) -> Session:
        return Session(settings)

    async def repository_of(session: Session = depends(session_of)) -> Repository:
        return Repository(session)

    app = fastapi.FastAPI()

    async def plain() -> dict[str, str]:
        return PLAIN

    async def injected(
        settings: Settings = depends(settings_of),
        session: Session = depends(session_of),
        repository: Repository = depends(repository_of),
    ) -> dict[str, str]:
        return answer(settings, session, repository)

    app.get("/plain")(plain)
    app.get("/injected")(injected)
    return app


def with_provide() -> Any:
    """Litestar's ``Provide``."""
    litestar: Any = import_module("litestar")
    provided = import_module("litestar.di").Provide

    async def settings_of() -> Settings:
        return SETTINGS

    async def session_of(settings: Settings) -> Session:
        return Session(settings)

    async def repository_of(session: Session) -> Repository:
        return Repository(session)

    async def plain() -> dict[str, str]:
        return PLAIN

    async def injected(settings: Settings, session: Session, repository: Repository) -> dict[str, str]:
        return answer(settings, session, repository)

    needed = {"settings": settings_of, "session": session_of, "repository": repository_of}
    dependencies = {name: provided(give) for name, give in needed.items()}
    return litestar.Litestar(
        [litestar.get("/plain")(plain), litestar.get("/injected", dependencies=dependencies)(injected)]
    )
