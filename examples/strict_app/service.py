"""What the service does, without a word of HTTP or SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .models import Book, Draft, NoSuchBookError
from .repository import Books


class Transaction(Protocol):
    """What makes that which was saved last. SQLAlchemy's ``AsyncSession`` is one."""

    async def commit(self) -> None:
        """Makes it last."""
        ...


class Library:
    """The catalogue, as one request uses it.

    Whatever writes commits before it returns. The session of a request is closed after its
    response was sent: a commit that failed then could be told to nobody, and a client that reads
    what it has just written could be faster.

    Args:
        books: Where books are kept.
        transaction: What makes that which was saved last.
        page_size: How many books a page has.
    """

    def __init__(self, books: Books, transaction: Transaction, page_size: int) -> None:
        self._books = books
        self._transaction = transaction
        self._page_size = page_size

    async def book(self, book_id: str) -> Book:
        """Returns a book.

        Raises:
            NoSuchBookError: There is none of this id.
        """
        book = await self._books.get(book_id)
        if book is None:
            raise NoSuchBookError("no such book")
        return book

    async def page(self, number: int) -> tuple[Sequence[Book], bool]:
        """Returns the books of a page, counted from 1, and whether there are more."""
        size = self._page_size
        found = await self._books.some(skip=(number - 1) * size, most=size + 1)
        return found[:size], len(found) > size

    async def authors(self) -> dict[str, int]:
        """Returns how many books there are of each author."""
        return await self._books.authors()

    async def add(self, book_id: str, draft: Draft) -> Book:
        """Adds a book.

        Raises:
            DuplicateBookError: It is in the catalogue already.
        """
        book = Book(id=book_id, title=draft.title, author=draft.author)
        await self._books.save(book)
        await self._transaction.commit()
        return book

    async def change(self, book_id: str, draft: Draft) -> Book:
        """Changes a book.

        Raises:
            NoSuchBookError: There is none of this id.
            DuplicateBookError: Another one has its title and author.
        """
        book = await self.book(book_id)
        book.title, book.author = draft.title, draft.author
        await self._books.save(book)
        await self._transaction.commit()
        return book
