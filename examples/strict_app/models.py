"""What the service is about: books, and what can be wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

MOST_CHARACTERS: Final = 200


class Table(MappedAsDataclass, DeclarativeBase):
    """The base of what is kept in the database."""


class Book(Table, kw_only=True):
    """A book of the catalogue."""

    __tablename__ = "book"
    __table_args__ = (UniqueConstraint("title", "author"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    author: Mapped[str]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a client says of a book."""

    title: str
    author: str

    @classmethod
    def parse(cls, body: object) -> Draft:
        """Returns the draft in a JSON body.

        Raises:
            InvalidBookError: There is none.
        """
        match body:
            case {"title": str(title), "author": str(author)}:
                return cls(title=_checked("title", title), author=_checked("author", author))
            case _:
                raise InvalidBookError("send a JSON object with the texts 'title' and 'author'")


def _checked(name: str, text: str) -> str:
    text = text.strip()
    if not 0 < len(text) <= MOST_CHARACTERS:
        raise InvalidBookError(f"{name!r} must have 1 to {MOST_CHARACTERS} characters")
    return text


class LibraryError(Exception):
    """The root of what the service refuses; the text is for the client."""


class InvalidBookError(LibraryError):
    """A client's book is no book."""


class NoSuchBookError(LibraryError):
    """The catalogue has no book of this id."""


class DuplicateBookError(LibraryError):
    """The catalogue has this book already."""
