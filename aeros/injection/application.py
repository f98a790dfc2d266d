"""A Quart application that injects: what ``WebServer`` is to this room."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any, ParamSpec, TypeVar, cast, overload

from dependency_injector import containers
from flask.sansio.blueprints import Blueprint
from flask.sansio.scaffold import T_after_request, T_before_request, T_teardown
from flask.typing import ErrorHandlerCallable
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from quart import Quart
from quart.typing import (
    AfterServingCallable,
    AfterWebsocketCallable,
    BeforeServingCallable,
    BeforeWebsocketCallable,
    ResponseReturnValue,
    ResponseTypes,
    TeardownCallable,
    TemplateContextProcessorCallable,
    WhileServingCallable,
)
from quart.wrappers import Websocket
from werkzeug.exceptions import HTTPException

from aeros.exchange import Exchange, exchange_of
from aeros.injection.injector import Injector
from aeros.injection.request_scope import RequestScope, current_request_scope, leave, set_current
from aeros.injection.resources import Resources

P = ParamSpec("P")
T = TypeVar("T")
AfterServingT = TypeVar("AfterServingT", bound=AfterServingCallable)
AfterWebsocketT = TypeVar("AfterWebsocketT", bound=AfterWebsocketCallable)
ContextProcessorT = TypeVar("ContextProcessorT", bound=TemplateContextProcessorCallable)
BeforeServingT = TypeVar("BeforeServingT", bound=BeforeServingCallable)
BeforeWebsocketT = TypeVar("BeforeWebsocketT", bound=BeforeWebsocketCallable)
TeardownT = TypeVar("TeardownT", bound=TeardownCallable)
ViewT = TypeVar("ViewT", bound=Callable[..., Any])
WhileServingT = TypeVar("WhileServingT", bound=WhileServingCallable)


class InjectingApplication(Quart):
    """Calls its functions with what they have injected.

    Quart calls functions through ``ensure_async()``. Each is read when it is registered, so that a
    provider which does not exist is an error then.
    """

    _injector: Injector
    _resources: Resources

    def _inject_from(self, container: containers.Container) -> None:
        """Tells where values come from; before Quart's own ``__init__``, which registers views."""
        self._injector = Injector(container)
        self._resources = Resources(container)

    @asynccontextmanager
    async def request_scope(self) -> AsyncGenerator[None]:
        """Opens what lives as long as a request, for a job, a script or a test.

        >>> async with app.request_scope():
        ...     await import_books(app.container.books())
        """
        scope = RequestScope()
        token = set_current(scope)
        try:
            yield
        except BaseException as error:
            # A session commits at its end unless it is told of an error. A job that is cancelled, or stopped
            # with CTRL+C, has not done its work either, and neither of the two is an Exception.
            scope.error = error
            raise
        finally:
            try:
                await scope.close()
            finally:
                leave(token)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handles one ASGI connection, and closes after it what it has opened."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        await self.call_in_scope(scope, receive, send, exchange_of(cast("Mapping[str, object]", scope)))

    async def call_in_scope(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable, exchange: Exchange | None
    ) -> None:
        """Handles a request or a websocket, and closes after it what was opened for it."""
        request_scope = RequestScope()
        token = set_current(request_scope)
        try:
            await self.asgi_app(scope, receive, send)
            if exchange is not None and not exchange.is_answered and request_scope.error is None:
                # Whoever ended it keeps to himself how: a client that left, a timeout.
                request_scope.error = CancelledError("the response broke off")
        except BaseException as error:
            # As in request_scope(): a client that leaves cancels its request, and what that request has
            # begun in a session must not be committed.
            request_scope.error = error
            raise
        finally:
            try:
                await request_scope.close()
            finally:
                leave(token)

    @overload
    def ensure_async(self, func: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]: ...
    @overload
    def ensure_async(self, func: Callable[P, T]) -> Callable[P, Awaitable[T]]: ...
    def ensure_async(self, func: Callable[P, Awaitable[T]] | Callable[P, T]) -> Callable[P, Awaitable[T]]:
        """Returns an async function that runs ``func`` with what it has injected."""
        run = cast("Callable[P, Awaitable[T]]", super().ensure_async(func))
        return cast("Callable[P, Awaitable[T]]", self._injector.injecting(func, run))

    def injected_names(self, function: object) -> tuple[str, ...]:
        """Returns the parameters of a function that are injected."""
        return self._injector.names(function)

    def with_injected(self, function: Callable[P, T | Awaitable[T]]) -> Callable[P, T | Awaitable[T]]:
        """Returns a function that is called at once, with what it has injected."""

        async def run(*args: P.args, **kwargs: P.kwargs) -> T:
            result: object = function(*args, **kwargs)
            return cast(T, await result if isawaitable(result) else result)

        injecting = self._injector.injecting(function, run)
        return function if injecting is run else cast("Callable[P, Awaitable[T]]", injecting)

    def add_background_task(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Runs ``func`` beside the requests, with a scope of its own for what it has injected."""
        self._injector.check(func)

        async def in_scope_of_its_own() -> None:
            async with self.request_scope():
                await self.ensure_async(func)(*args, **kwargs)

        super().add_background_task(in_scope_of_its_own)  # pyright: ignore[reportUnknownMemberType]  # a bare Callable

    # Errors that become a response are what a session has to know before it commits

    async def handle_user_exception(self, error: Exception) -> HTTPException | ResponseReturnValue:
        """Answers an error of a view or a hook."""
        _note(error)
        return await super().handle_user_exception(error)

    async def handle_exception(self, error: Exception) -> ResponseTypes:
        """Answers an error that nobody handles."""
        _note(error)
        return await super().handle_exception(error)

    async def handle_websocket_exception(self, error: Exception) -> ResponseTypes | None:
        """Answers an error of a websocket that nobody handles."""
        _note(error)
        return await super().handle_websocket_exception(error)

    async def handle_websocket(self, websocket: Websocket) -> ResponseTypes | None:
        """Handles a websocket; Quart keeps to itself that its client has left."""
        try:
            return await super().handle_websocket(websocket)
        except BaseException as error:
            # A client that leaves cancels the handler, and Quart's connection then ends as after a success.
            # Here alone the websocket's sessions can be told, before they would commit.
            _note(error)
            raise

    # The time that is served

    async def startup(self) -> None:
        """Opens the container's resources, then runs what is to run before serving."""
        await self._resources.open()
        try:
            await super().startup()
        except BaseException:  # a start that is cancelled has no shutdown that would close them
            await self._resources.close()
            raise

    async def shutdown(self) -> None:
        """Runs what is to run after serving, then closes what ``startup()`` has opened."""
        try:
            await super().shutdown()
        finally:
            await self._resources.close()

    async def check_health(self) -> dict[str, str | None]:
        """Asks each resource of the container that can be asked whether it works.

        A resource says how: ``providers.Resource`` whose value has a method ``ping()``, sync or async.

        Returns:
            By the provider's name, what is wrong; None where nothing is.
        """
        return await self._resources.check()

    async def check_resources(self, deadline_seconds: float) -> dict[str, str | None]:
        """Asks all resources at once, as ``check_health()`` does, and minds those that are not open.

        Args:
            deadline_seconds: How long they may take.
        """
        return await self._resources.check_all(deadline_seconds)

    # Registering

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """Registers a view, once what it has injected is known to exist."""
        self._injector.check(view_func)
        super().add_url_rule(rule, endpoint, view_func, provide_automatic_options, **options)

    def before_request(self, f: T_before_request) -> T_before_request:
        """Registers a function to run before each request."""
        self._injector.check(f)
        return super().before_request(f)

    def after_request(self, f: T_after_request) -> T_after_request:
        """Registers a function to run on each response."""
        self._injector.check(f)
        return super().after_request(f)

    def teardown_request(self, f: T_teardown) -> T_teardown:
        """Registers a function to run when a request context ends."""
        self._injector.check(f)
        return super().teardown_request(f)

    def teardown_appcontext(self, f: T_teardown) -> T_teardown:
        """Registers a function to run when an application context ends."""
        self._injector.check(f)
        return super().teardown_appcontext(f)

    def before_websocket(self, func: BeforeWebsocketT) -> BeforeWebsocketT:
        """Registers a function to run before each websocket."""
        self._injector.check(func)
        return super().before_websocket(func)

    def after_websocket(self, func: AfterWebsocketT) -> AfterWebsocketT:
        """Registers a function to run after each websocket."""
        self._injector.check(func)
        return super().after_websocket(func)

    def teardown_websocket(self, func: TeardownT) -> TeardownT:
        """Registers a function to run when a websocket context ends."""
        self._injector.check(func)
        return super().teardown_websocket(func)

    def before_serving(self, func: BeforeServingT) -> BeforeServingT:
        """Registers a function to run before anything is served."""
        self._injector.check(func)
        return super().before_serving(func)

    def after_serving(self, func: AfterServingT) -> AfterServingT:
        """Registers a function to run after everything was served."""
        self._injector.check(func)
        return super().after_serving(func)

    def while_serving(self, func: WhileServingT) -> WhileServingT:
        """Registers a generator around serving."""
        self._injector.check(func)

        async def generator() -> AsyncGenerator[None]:
            # Quart makes it now; what it has injected is asked for when it starts.
            async for _ in func(**await self._injector.values(func)):
                yield

        super().while_serving(generator)
        return func

    def register_error_handler(
        self, code_or_exception: type[Exception] | int, f: ErrorHandlerCallable
    ) -> None:
        """Registers a function to answer an error."""
        self._injector.check(f)
        super().register_error_handler(code_or_exception, f)

    def context_processor(self, f: ContextProcessorT) -> ContextProcessorT:
        """Registers a function that gives templates their variables."""
        self._injector.check(f)
        return super().context_processor(f)

    def endpoint(self, endpoint: str) -> Callable[[ViewT], ViewT]:
        """Registers a view for an endpoint whose rule is added on its own."""
        register = super().endpoint(endpoint)

        def checked(view: ViewT) -> ViewT:
            self._injector.check(view)
            return register(view)

        return checked

    def register_blueprint(self, blueprint: Blueprint, **options: Any) -> None:
        """Registers a blueprint, and those within it; then what all of them have injected is checked."""
        super().register_blueprint(blueprint, **options)
        for function in _registered(self):
            self._injector.check(function)


def _registered(app: Quart) -> Iterator[object]:
    """Yields the functions of an application that a blueprint may have put there by itself."""
    yield from app.view_functions.values()
    for name in (
        "before_request_funcs",
        "after_request_funcs",
        "teardown_request_funcs",
        "before_websocket_funcs",
        "after_websocket_funcs",
        "teardown_websocket_funcs",
        "template_context_processors",
    ):
        registry = cast("Mapping[str | None, list[object]]", getattr(app, name))
        for functions in registry.values():
            yield from functions
    for by_code in app.error_handler_spec.values():
        for by_class in by_code.values():
            yield from by_class.values()


def _note(error: BaseException) -> None:
    scope = current_request_scope()
    if scope is not None:
        scope.error = error
