"""The catalogue over HTTP: books, their authors, and whether all is well."""

from __future__ import annotations

import json
import re
from typing import Final, TypeAlias

from aeros import WebServer, inject
from quart import request, url_for
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.wrappers import Response

from .container import AppContainer, container_from_environment
from .models import Book, Draft, DuplicateBookError, InvalidBookError, LibraryError, NoSuchBookError
from .service import Library

Json: TypeAlias = dict[str, object]

STATUSES: Final[dict[type[LibraryError], int]] = {
    InvalidBookError: 400,
    NoSuchBookError: 404,
    DuplicateBookError: 409,
}

app = WebServer("strict_app", container=container_from_environment())


@app.route("/books")
@app.cache(timeout=60, query_include="page", tags="books")
async def books(library: Library = inject(AppContainer.library)) -> Json:
    number = _page_number(request.args.get("page", "1"))
    found, has_more = await library.page(number)
    following = url_for("books", page=number + 1) if has_more else None
    return {"books": [_as_json(each) for each in found], "next": following}


@app.route("/books/<book_id>")
@app.cache(timeout=60)
async def book(book_id: str, library: Library = inject(AppContainer.library)) -> Json:
    return _as_json(await library.book(book_id))


@app.route("/authors")
@app.cache(timeout=60, tags="books")
async def authors(library: Library = inject(AppContainer.library)) -> dict[str, int]:
    return await library.authors()


@app.route("/books", methods=["POST"])
@app.invalidates(tags="books")
async def add(
    library: Library = inject(AppContainer.library), new_id: str = inject(AppContainer.new_id)
) -> tuple[Json, int, dict[str, str]]:
    added = await library.add(new_id, Draft.parse(await request.get_json()))
    return _as_json(added), 201, {"Location": url_for("book", book_id=added.id)}


@app.route("/books/<book_id>", methods=["PUT"])
@app.invalidates(tags="books")  # and, as any write that succeeds, what is cached for its own path
async def change(book_id: str, library: Library = inject(AppContainer.library)) -> Json:
    return _as_json(await library.change(book_id, Draft.parse(await request.get_json())))


@app.route("/health")
async def health() -> tuple[Json, int]:
    problems = {name: problem for name, problem in (await app.check_health()).items() if problem}
    return {"problems": problems}, 503 if problems else 200


@app.errorhandler(LibraryError)
async def refuse(error: LibraryError) -> tuple[Json, int]:
    return {"error": str(error)}, STATUSES[type(error)]


@app.errorhandler(HTTPException)
async def fail(error: HTTPException) -> Response:
    response = error.get_response()
    response.set_data(json.dumps({"error": error.description}))
    response.content_type = "application/json"
    return response


def _as_json(book: Book) -> Json:
    return {"id": book.id, "title": book.title, "author": book.author}


def _page_number(text: str) -> int:
    # More digits than these and the database could not count so far.
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise BadRequest("'page' must be a number from 1 on")
    return int(text)
