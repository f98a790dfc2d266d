"""Where books are kept: what the service asks for, and how the database gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from .models import Book, DuplicateBookError


class Books(Protocol):
    """The books that there are. A test has its own."""

    async def get(self, book_id: str) -> Book | None:
        """Returns a book, or None."""
        ...

    async def some(self, *, skip: int, most: int) -> Sequence[Book]:
        """Returns at most this many books in the order of their titles."""
        ...

    async def authors(self) -> dict[str, int]:
        """Returns how many books there are of each author."""
        ...

    async def save(self, book: Book) -> None:
        """Writes a new or a changed book.

        Raises:
            DuplicateBookError: Another one has its title and author.
        """
        ...


class SqlBooks:
    """The books in the database, as one session sees them."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, book_id: str) -> Book | None:
        """Returns a book, or None."""
        return await self._session.get(Book, book_id)

    async def some(self, *, skip: int, most: int) -> Sequence[Book]:
        """Returns at most this many books in the order of their titles."""
        in_order = select(Book).order_by(Book.title, Book.author).offset(skip).limit(most)
        return (await self._session.scalars(in_order)).all()

    async def authors(self) -> dict[str, int]:
        """Returns how many books there are of each author."""
        counted = await self._session.execute(select(Book.author, func.count()).group_by(Book.author))
        return dict(counted.all())

    async def save(self, book: Book) -> None:
        """Writes a new or a changed book."""
        self._session.add(book)
        try:
            await self._session.flush()
        except IntegrityError as error:
            raise DuplicateBookError("this book is in the catalogue already") from error
