"""What the application is made of. A test puts something else in the place of any of it."""

from __future__ import annotations

from uuid import uuid4

from aeros import Container
from aeros.containers import RequestScoped
from dependency_injector import providers
from sqlalchemy.ext.asyncio import AsyncSession

from .database import Database, open_database, open_session
from .repository import Books, SqlBooks
from .service import Library


def _new_id() -> str:
    return uuid4().hex


class AppContainer(Container):
    """The providers of the catalogue, beside those of every ``WebServer``.

    Attributes:
        database_url: Where the database is, as SQLAlchemy writes it.
        page_size: How many books a page has.
        database: The open database: one for each process, from start-up to shutdown.
        session: One for each request that asks for it, closed after the response.
        books: Where books are kept.
        library: What the views use.
        new_id: Another id at each call.
    """

    database_url: providers.Provider[str] = Container.config.library.database_url.as_(str)
    page_size: providers.Provider[int] = Container.config.library.page_size.as_int()
    database: providers.Provider[Database] = providers.Resource(open_database, database_url)
    session: providers.Provider[AsyncSession] = RequestScoped(open_session, database)
    books: providers.Provider[Books] = providers.Factory(SqlBooks, session)
    library: providers.Provider[Library] = providers.Factory(Library, books, session, page_size)
    new_id: providers.Provider[str] = providers.Callable(_new_id)


def container_from_environment() -> AppContainer:
    """Returns a new container with the settings that the environment states."""
    container = AppContainer()
    settings = container.config.library
    settings.database_url.from_env("LIBRARY_DATABASE_URL", "sqlite+aiosqlite:///library.db")
    settings.page_size.from_env("LIBRARY_PAGE_SIZE", 20, as_=int)
    return container
