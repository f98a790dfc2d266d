"""The database: opened when serving begins, with one session for each request."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.schema import CreateTable

from .models import Book, Table


class Database:
    """An open database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def migrate(self) -> None:
        """Makes the tables that are missing; workers that start together may all ask for it."""
        async with self._engine.begin() as connection:
            for table in Table.metadata.sorted_tables:
                await connection.execute(CreateTable(table, if_not_exists=True))

    async def ping(self) -> None:
        """Raises an error if the database does not answer; ``app.check_health()`` asks."""
        async with self._engine.connect() as connection:
            await connection.execute(select(Book.id).limit(1))


async def open_database(url: str) -> AsyncGenerator[Database]:
    """Yields the database while the application is served."""
    engine = create_async_engine(url)
    try:
        database = Database(engine)
        await database.migrate()
        yield database
    finally:
        await engine.dispose()


async def open_session(database: Database) -> AsyncGenerator[AsyncSession]:
    """Yields a session while a request lasts; what it has not committed then is rolled back."""
    async with database.sessions() as session:
        yield session
