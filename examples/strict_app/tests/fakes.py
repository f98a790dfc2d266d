"""What stands in the place of the database: plain classes, so that the type checker compares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from ..database import Database
from ..models import Book, DuplicateBookError


class FakeDatabase(Database):
    """A database that nobody opens, and that answers or not as a test wants it."""

    def __init__(self) -> None:
        super().__init__(create_async_engine("sqlite+aiosqlite://"))
        self.is_away = False

    async def ping(self) -> None:
        """Raises an error if the database is away."""
        if self.is_away:
            raise ConnectionError("the database is away")


class FakeBooks:
    """Books in a dictionary; it counts how often it was read."""

    def __init__(self, *books: Book) -> None:
        self.by_id = {book.id: book for book in books}
        self.reads = 0

    async def get(self, book_id: str) -> Book | None:
        """Returns a book, or None."""
        self.reads += 1
        return self.by_id.get(book_id)

    async def some(self, *, skip: int, most: int) -> Sequence[Book]:
        """Returns at most this many books in the order of their titles."""
        self.reads += 1
        return sorted(self.by_id.values(), key=lambda book: book.title)[skip : skip + most]

    async def authors(self) -> dict[str, int]:
        """Returns how many books there are of each author."""
        self.reads += 1
        return Counter(book.author for book in self.by_id.values())

    async def save(self, book: Book) -> None:
        """Keeps a book."""
        others = [other for other in self.by_id.values() if other is not book]
        if any((other.title, other.author) == (book.title, book.author) for other in others):
            raise DuplicateBookError("this book is in the catalogue already")
        self.by_id[book.id] = book


class FakeSession(AsyncSession):
    """A session without a database; it counts its commits."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0

    async def commit(self) -> None:
        """Takes note."""
        self.commits += 1
