"""``WebServer``: a Quart application that runs itself, caches, compresses, and can be taken apart."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
)

from flask.sansio.scaffold import Scaffold
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from quart import Blueprint
from quart.ctx import RequestContext as QuartRequestContext
from quart.globals import request_ctx
from quart.typing import ASGIHTTPProtocol
from quart.utils import MustReloadError, observe_changes, restart
from quart.wrappers import Request, Response

from aeros.caching.application import CachingApplication
from aeros.caching.entry import StoredResponse
from aeros.caching.policy import SAFE_METHODS
from aeros.caching.server import Cache, as_cache
from aeros.caching.stores import CachelibCache, SharedStore, Store
from aeros.caching.view import (
    AnyResponse,
    cached_route,
    raw_headers,
)
from aeros.compression import Base
from aeros.compression.response import ResponseCoder
from aeros.compression.static import StaticFiles
from aeros.compression.workshop import Workshop
from aeros.containers import (
    Container,
    as_compressor,
    check_container,
    configuration,
    configure,
    replace_provider,
    resolved,
    using_settings,
)
from aeros.dispatch.application import DispatchingApplication
from aeros.dispatch.connection import HTTPConnection
from aeros.dispatch.context import RequestContext, notice_cookies, template_context
from aeros.doors import Answer, Doors
from aeros.exchange import Exchange, WholeSend, attach_exchange, exchange_of
from aeros.injection.application import InjectingApplication
from aeros.injection.request_scope import RequestScope, leave, set_current
from aeros.operations.observer import Observer
from aeros.operations.sending import ObservedOutgoing, ObservedSend
from aeros.outgoing import Outgoing, PlainResponses
from aeros.serving.instance import factory_path, instance_path
from aeros.serving.limits import Admission
from aeros.serving.options import (
    DevelopmentOptions,
    ThreadOptions,
    UvicornOptions,
    needs_import,
    run_settings,
)
from aeros.serving.runner import (
    RunningServer,
    ThreadedServing,
    serve,
    serve_in_thread,
    serve_on_loop,
    starting,
)
from aeros.serving.shutdown import Event, ShutdownEvents, until
from aeros.settings import UNSET, ServerSettings, Unset, given, given_or_none

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from typing_extensions import TypeVar as DefaultTypeVar

    ContainerT_co = DefaultTypeVar("ContainerT_co", bound=Container, default=Container, covariant=True)
else:
    ContainerT_co = TypeVar("ContainerT_co", bound=Container, covariant=True)

P = ParamSpec("P")
T = TypeVar("T")
ViewT = TypeVar("ViewT", bound=Callable[..., Any])


class RouteOptions(TypedDict, total=False):
    """The options of ``route()``, as werkzeug's ``Rule`` takes them."""

    methods: Iterable[str]
    endpoint: str
    defaults: Mapping[str, Any]
    host: str
    subdomain: str
    provide_automatic_options: bool
    strict_slashes: bool
    merge_slashes: bool
    build_only: bool
    redirect_to: str | Callable[..., str]
    alias: bool
    websocket: bool


# Quart declares its class of responses and of JSON where Flask's stand, which a checker holds against
# whoever names both; what users see is Quart's.
class WebServer(  # pyright: ignore[reportIncompatibleVariableOverride]
    InjectingApplication, CachingApplication, DispatchingApplication, Generic[ContainerT_co]
):
    """A ``quart.Quart`` that runs itself on uvicorn, caches and compresses responses.

    What is not passed comes from the container: from ``container.config``, the ``AEROS_*``
    environment variables as they are now, or the defaults of ``ServerSettings``. Making one opens
    no file, socket or thread, and configures no logging.

    Args:
        import_name: The name of the module or package, usually ``__name__``.
        host: Address to listen on.
        port: TCP port, 0 to 65535; 0 takes any free one.
        include_server_header: Whether responses carry ``server: uvicorn``.
        logging_level: Lowest level that is logged.
        cache: A ``Cache``, a store, or any cachelib cache object.
        compression: A compressor; False switches compression off.
        global_headers: Fields that every response carries unless the view set them.
        static_url_path: As for ``quart.Quart``, like all that follow but ``container``.
        static_folder: As for ``quart.Quart``.
        static_host: As for ``quart.Quart``.
        host_matching: As for ``quart.Quart``.
        subdomain_matching: As for ``quart.Quart``.
        template_folder: As for ``quart.Quart``.
        instance_path: As for ``quart.Quart``.
        instance_relative_config: As for ``quart.Quart``.
        root_path: As for ``quart.Quart``.
        etag: Whether responses that are no streams get an ``ETag``, so that a client which has one
            already is answered with 304.
        request_ids: Whether each request has an id (default: no): the client's ``X-Request-ID`` if it is
            well formed, else a new one. The response and the logs tell it, and ``current_request_id()``.
        server_timing: Whether responses say in ``Server-Timing`` how long they took (default: no).
        livez: A path that answers 200 while the event loop does, e.g. ``"/livez"`` (default: none).
        readyz: A path that answers 200 while requests can be served, else 503, e.g. ``"/readyz"``
            (default: none).
        metrics: A path with metrics for Prometheus, e.g. ``"/metrics"``; needs ``aeros[metrics]``
            (default: none).
        container: The application's own container; None: a new ``Container``.

    Raises:
        ConfigurationError: A value does not fit; the error names it.
    """

    # ASGI's own shapes, where Quart names Hypercorn's.
    asgi_http_class: type[ASGIHTTPProtocol] = cast("type[ASGIHTTPProtocol]", HTTPConnection)

    def __init__(
        self,
        import_name: str,
        host: str | None = None,
        port: int | None = None,
        include_server_header: bool | None = None,
        logging_level: int | str | None = None,
        cache: Cache | Store | SharedStore | CachelibCache | None = None,
        compression: Base | Literal[False] | None = None,
        global_headers: Mapping[str, str] | None = None,
        static_url_path: str | None = None,
        static_folder: str | None = "static",
        static_host: str | None = None,
        host_matching: bool = False,
        subdomain_matching: bool = False,
        template_folder: str | os.PathLike[str] | None = "templates",
        instance_path: str | None = None,
        instance_relative_config: bool = False,
        root_path: str | None = None,
        *,
        etag: bool | None = None,
        request_ids: bool | None = None,
        server_timing: bool | None = None,
        livez: str | None = None,
        readyz: str | None = None,
        metrics: str | None = None,
        container: ContainerT_co | None = None,
    ) -> None:
        if container is None:
            container = cast(ContainerT_co, Container())
        check_container(container)
        self.container: ContainerT_co = container
        arguments = given(
            host=host,
            port=port,
            include_server_header=include_server_header,
            log_level=logging_level,
            global_headers=global_headers,
            etag=etag,
            request_ids=request_ids,
            server_timing=server_timing,
            livez=livez,
            readyz=readyz,
            metrics=metrics,
        )
        configure(container, arguments)
        if cache is not None:
            replace_provider(container, "cache", as_cache(cache))
        if compression is not None:
            replace_provider(container, "compressor", as_compressor(compression))
        self._providers = container.providers
        self._inject_from(container)
        self._coder = ResponseCoder()
        self._static = StaticFiles(self._coder)
        self._noticing: dict[type[Request], type[Request]] = {}
        self._admission = Admission()
        self._plain: PlainResponses = {}
        self._doors = Doors(self, self._coder)
        self._shutdown_events = ShutdownEvents()
        self._observer = Observer(self)
        super().__init__(
            import_name,
            static_url_path,
            static_folder,
            static_host,
            host_matching,
            subdomain_matching,
            template_folder,
            instance_path,
            instance_relative_config,
            root_path,
        )
        self.template_context_processors[None] = [template_context]

    # What users call

    @property
    def logger(self) -> logging.Logger:
        """The application's logger, as the container gives it now."""
        return self.current_logger()

    @logger.setter
    def logger(self, logger: logging.Logger) -> None:
        replace_provider(self.container, "logger", logger)

    @property  # type: ignore[override]  # Quart's is an attribute: one for all loops
    def shutdown_event(self) -> Event:
        """The event that comes when the server begins to stop: ``await app.shutdown_event.wait()``.

        It is that of the running loop, so of the server that serves the request. Under aeros it comes
        at the signal, when requests in progress still have ``timeout_graceful_shutdown`` seconds; under
        another ASGI server when that ends the lifespan.

        Raises:
            RuntimeError: No event loop runs in this thread.
        """
        return self._shutdown_events.get()

    @shutdown_event.setter
    def shutdown_event(self, event: Event) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # as above
        self._shutdown_events.replace(event)

    @property
    def metrics_registry(self) -> CollectorRegistry:
        """The Prometheus registry of this application: what you register in it is on its page of metrics.

        >>> ORDERS = prometheus_client.Counter("orders", "Orders taken.", registry=app.metrics_registry)

        It belongs to this application alone. With ``run_server(workers=N)`` counters, histograms and
        summaries are summed over all workers, also those that have ended, and gauges over those that live.

        Raises:
            MissingExtraError: prometheus-client is not installed.
        """
        return self._observer.registry

    def until_shutdown(self, source: AsyncIterable[T]) -> AsyncGenerator[T]:
        r"""Yields what ``source`` yields until the server begins to stop, for streams without an end.

        >>> async for message in app.until_shutdown(messages()):
        ...     yield f"data: {message}\n\n"

        What ``source`` waits for then is cancelled.

        Args:
            source: An async iterable; each of its items is waited for in a task.
        """
        return until(self.shutdown_event, source)

    def route(self, rule: str, **options: Unpack[RouteOptions]) -> Callable[[ViewT], ViewT]:  # type: ignore[override]  # the same, but typed
        """Registers a view for a URL and returns it unchanged.

        Args:
            rule: The URL, beginning with a slash; ``<int:page>`` and the like are parameters.
            options: As for ``quart.Quart.route``.
        """
        return super().route(rule, **options)

    def run_server(
        self,
        host: str | None = None,
        port: int | None = None,
        log_level: int | str | None = None,
        access_log_file: str | os.PathLike[str] | None = None,
        access_log_to_std: bool | None = None,
        traceback: bool | None = None,
        soft_limit: int | Unset | None = UNSET,
        hard_limit: int | Unset | None = UNSET,
        *,
        log_format: Literal["text", "json"] | None = None,
        color: bool | None = None,
        error_log_file: str | os.PathLike[str] | None = None,
        access_log_exclude: Sequence[str] | None = None,
        workers: int | Literal["auto"] | None = None,
        request_ids: bool | None = None,
        server_timing: bool | None = None,
        livez: str | None = None,
        readyz: str | None = None,
        metrics: str | None = None,
        factory: Callable[[], object] | str | None = None,
        timeout_request_header: float | Unset | None = UNSET,
        timeout_request_body: float | Unset | None = UNSET,
        timeout_write: float | Unset | None = UNSET,
        timeout_handler: float | Unset | None = UNSET,
        max_header_bytes: int | None = None,
        max_header_fields: int | None = None,
        **uvicorn_options: Unpack[UvicornOptions],
    ) -> None:
        """Serves the application until it is stopped (CTRL+C, SIGTERM).

        What is not passed comes from the constructor, then from the container's configuration,
        then from ``AEROS_*`` variables. A signal ends it gracefully, within
        ``timeout_graceful_shutdown`` seconds (default: 15; None: no bound); a second one ends what is
        still open at once.

        Args:
            host: Address to listen on (default: every IPv4 interface).
            port: TCP port; 0 takes any free one (default: 80).
            log_level: Lowest level that is logged (default: INFO).
            access_log_file: File that gets one line per request (default: none).
            access_log_to_std: Whether those lines go to standard output (default: yes).
            traceback: Whether logged exceptions show their traceback (default: yes).
            soft_limit: Requests handled at once per worker; more wait. None: no limit (default: 32).
            hard_limit: Requests handled and waiting; past it 503. None: no limit (default: 42).
            log_format: ``"text"`` or ``"json"`` (default: text).
            color: Whether the console is coloured (default: on a terminal).
            error_log_file: File that gets what is logged, beside standard error (default: none).
            access_log_exclude: Paths whose requests get no line in the access log, e.g. ``["/livez"]``
                (default: none).
            workers: How many processes serve, ``"auto"``: as many as this one may use CPUs (default: 1).
            request_ids: Whether each request has an id, in ``X-Request-ID`` and in the logs (default: no).
            server_timing: Whether responses say in ``Server-Timing`` how long they took (default: no).
            livez: A path that answers 200 while the event loop does (default: none).
            readyz: A path that answers 200 while requests can be served, else 503 (default: none).
            metrics: A path with metrics for Prometheus (default: none).
            factory: The function that made this application, for applications that are no variable of
                a module: workers call it. It stands at the top level of a module and has no parameters;
                or its path, e.g. ``"shop:create_app"``.
            timeout_request_header: Seconds that a client has for the head of a request. None: no bound
                (default: 10).
            timeout_request_body: Seconds that it has for the body, and one more for each KiB that has
                come. None: no bound (default: 30).
            timeout_write: Seconds in which a client must have read something of what waits for it. None: no
                bound (default: 30).
            timeout_handler: Seconds that hooks and view have; then 504. None: no bound (default: None).
            max_header_bytes: Bytes in the head of a request; past it 431 (default: 65536).
            max_header_fields: Fields in it; past it 431 (default: 100).
            uvicorn_options: Any option of ``uvicorn.run()``.

        Raises:
            StartupError: The server could not start; uncaught it is one line and exit status 1.
            SystemExit: Something did not end when the server was stopped, and was cut off; the status is 1.
        """
        with starting():
            arguments = given(
                host=host,
                port=port,
                log_level=log_level,
                access_log_file=access_log_file,
                access_log_to_std=access_log_to_std,
                traceback=traceback,
                log_format=log_format,
                color=color,
                error_log_file=error_log_file,
                access_log_exclude=access_log_exclude,
                workers=workers,
                request_ids=request_ids,
                server_timing=server_timing,
                livez=livez,
                readyz=readyz,
                metrics=metrics,
                max_header_bytes=max_header_bytes,
                max_header_fields=max_header_fields,
            ) | given_or_none(
                soft_limit=soft_limit,
                hard_limit=hard_limit,
                timeout_request_header=timeout_request_header,
                timeout_request_body=timeout_request_body,
                timeout_write=timeout_write,
                timeout_handler=timeout_handler,
            )
            settings = run_settings(self.current_settings(), arguments, uvicorn_options, where="run_server()")
            path = factory_path(factory) if factory is not None else None
            if path is None and needs_import(settings):
                path = self._get_own_instance_path()
        serve(self, settings, build_server=self.container.server, path=path)

    def run(  # type: ignore[override]  # Quart's, with uvicorn's options instead of any
        self,
        host: str | None = None,
        port: int | None = None,
        debug: bool | None = None,
        use_reloader: bool = True,
        loop: asyncio.AbstractEventLoop | None = None,
        ca_certs: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        **options: Unpack[DevelopmentOptions],
    ) -> None:
        """Serves the application for development, with Quart's arguments, on the same engine.

        Args:
            host: Address to listen on. Not given here, to the constructor or in the configuration:
                ``SERVER_NAME``, else 127.0.0.1.
            port: TCP port, likewise; else 5000.
            debug: Switches debug mode on or off.
            use_reloader: Whether to start again when a source file changes.
            loop: The event loop to serve on; it stays open. None: a new one.
            ca_certs: Path of the CA certificates for clients' certificates; ``ssl_cert_reqs`` says
                whether a client must have one.
            certfile: Path of the certificate.
            keyfile: Path of its key.
            options: Settings as for ``run_server()``, and any option of ``uvicorn.run()`` for one
                process.

        Raises:
            StartupError: The server could not start.
        """
        if "QUART_DEBUG" in os.environ:
            self.debug = os.environ["QUART_DEBUG"].lower() not in ("0", "false", "no")
        if debug is not None:
            self.debug = debug
        with starting():
            tls = given(ssl_ca_certs=ca_certs, ssl_certfile=certfile, ssl_keyfile=keyfile)
            address = self._development_address(host, port)
            base = self.current_settings().replace({"workers": None})
            settings = run_settings(base, address, {**options, **tls}, where="run()")
        stop = asyncio.Event()
        watch = partial(observe_changes, asyncio.sleep, stop) if use_reloader else None
        try:
            serve_on_loop(
                self, settings, build_server=self.container.server, loop=loop, debug=self.debug, until=watch
            )
        except MustReloadError:
            restart()

    def run_in_thread(
        self, host: str = "127.0.0.1", port: int = 0, **options: Unpack[ThreadOptions]
    ) -> ThreadedServing:
        """Serves in a thread while the context lasts, on a real socket.

        >>> with app.run_in_thread() as server:
        ...     httpx.get(server.url)

        ``async with`` does the same and leaves the loop free while the server starts and stops.

        Args:
            host: Address to listen on.
            port: TCP port; 0 takes any free one.
            options: Settings as for ``run_server()``, and any option of ``uvicorn.run()`` for one
                process. There is no access log unless ``access_log_to_std=True`` asks for it.

        Raises:
            StartupError: The server could not start; when the context is entered.
        """

        def begin() -> AbstractContextManager[RunningServer]:
            with starting():
                base = self.current_settings().replace({"access_log_to_std": False, "workers": None})
                settings = run_settings(base, {"host": host, "port": port}, options, where="run_in_thread()")
            return serve_in_thread(self, settings, build_server=self.container.server)

        return ThreadedServing(begin)

    # What Quart calls

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handles one ASGI connection, under any ASGI server."""
        if scope["type"] != "http":
            handle = partial(super().__call__, scope, receive, send)
            if scope["type"] == "websocket" and self.current_settings().request_ids:
                await self._observer.identify(cast(Any, scope), handle)
            else:
                await handle()
            return
        is_observed = isinstance(cast(object, send), ObservedSend)
        doors = self._doors
        if doors.is_used:
            answer = doors.answer(cast(Any, scope), is_observed=is_observed)
            if answer is not None:
                await _send_whole(send, answer)
                return
        settings = self.current_settings()
        if settings.is_observed and not is_observed:
            answer_it = partial(WebServer.__call__, self, scope, receive)
            await self._observer.observe(cast(Any, scope), cast(Any, send), settings, answer_it)
            return
        compressor = self.current_compressor()
        exchange = Exchange(settings=settings)
        if settings.timeout_handler is not None:
            exchange.handler_seconds = settings.timeout_handler
        http_scope: Any = scope
        http_send: Any = send
        attach_exchange(http_scope, exchange)
        kind = ObservedOutgoing if settings.is_observed else Outgoing
        outgoing = kind(
            http_send,
            http_scope,
            exchange,
            self._coder,
            compressor,
            settings.raw_global_headers,
            settings.etag,
            self._plain,
        )
        sending: Any = outgoing
        opened = RequestScope()
        token = set_current(opened)
        try:
            try:
                await self.asgi_app(scope, receive, sending)
                if not exchange.is_answered and opened.error is None:
                    # Whoever ended it keeps to himself how: a client that left, a timeout.
                    opened.error = asyncio.CancelledError("the response broke off")
            except (
                BaseException
            ) as error:  # a cancelled request as well: what it began is not to be committed
                opened.error = error
                raise
            finally:
                try:
                    if opened.end():
                        await opened.close()
                finally:
                    leave(token)
        except (Exception, asyncio.CancelledError) as error:
            if not outgoing.started and not _is_cancelled(error):
                await outgoing.fail()
            raise
        finally:
            outgoing.close()
            exchange.release_slot()

    async def asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        """Handles one ASGI connection; a middleware may be put around it."""
        if self._doors.has_inner and scope["type"] == "http":
            answer = self._doors.inner_answer(scope)
            if answer is not None:
                await _send_whole(send, answer)
                return
        if scope["type"] == "http":
            await self.asgi_http_class(self, scope)(receive, send)
        else:
            await super().asgi_app(scope, receive, send)

    async def send_static_file(self, filename: str) -> Response:
        """Returns the response of a file in the static folder, in the coding that the client likes."""
        return await self._send_static(self, filename)

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """Registers a view; the static files of blueprints are sent as the application's own."""
        owner = getattr(view_func, "__self__", None)
        if (
            isinstance(owner, Blueprint)
            and getattr(view_func, "__func__", None) is Blueprint.send_static_file
        ):
            view_func = partial(self._send_static, owner)
        super().add_url_rule(rule, endpoint, view_func, provide_automatic_options, **options)

    async def full_dispatch_request(self, request_context: QuartRequestContext | None = None) -> AnyResponse:
        """Dispatches a request once it is admitted; cached views are admitted when they run."""
        request = (request_context or request_ctx).request
        exchange = exchange_of(request.scope)
        if exchange is not None and not self.is_admitted(request, exchange):
            refusal = await self.admit(exchange)
            if refusal is not None:
                return refusal
        return await super().full_dispatch_request(request_context)

    async def process_response(
        self, response: AnyResponse, request_context: QuartRequestContext | None = None
    ) -> AnyResponse:
        """Runs the hooks on a response; then it is known whether the view's part may be stored."""
        context = request_context or request_ctx
        untracked = context.without_tracking() if isinstance(context, RequestContext) else context
        response = await super().process_response(response, untracked)
        await self.conclude(context, response)
        return response

    # What the rooms below ask for

    def current_cache(self) -> Cache:
        """Returns the cache, as the container gives it now."""
        cache = self._providers["cache"]()
        return cache if type(cache) is Cache else cast(Cache, self._resolved("cache"))

    def current_logger(self) -> logging.Logger:
        """Returns the logger, as the container gives it now."""
        return cast(logging.Logger, resolved(self.container, "logger"))

    def using_settings(self, settings: ServerSettings) -> AbstractContextManager[None]:
        """Makes ``settings`` the container's while the context lasts."""
        return using_settings(self.container, settings)

    @property
    def early_answers(self) -> Doors:
        """What can be answered without calling the application."""
        return self._doors

    @property
    def admission(self) -> Admission:
        """Who is handled, and who waits."""
        return self._admission

    @property
    def workshop(self) -> Workshop:
        """Where bodies are compressed."""
        return self._coder.workshop

    def counting_dropped_lines(self, dropped: Callable[[], int]) -> AbstractContextManager[None]:
        """Counts the lines that a log has lost among the metrics while the context lasts."""
        return self._observer.counting_dropped_lines(dropped)

    def sharing_metrics(self, folder: str) -> AbstractContextManager[None]:
        """Joins the metrics of all workers whose snapshots are in a folder while the context lasts."""
        return self._observer.sharing(folder)

    def described(self) -> Mapping[str, object]:
        """Returns what the banner says of this application."""
        settings = self.current_settings()
        return {
            "cache": self.current_cache(),
            "compression": resolved(self.container, "compressor") or "off",
            "soft_limit": settings.soft_limit or "off",
            "hard_limit": settings.hard_limit or "off",
        }

    def caution(self, workers: int) -> None:
        """Logs what several workers mean for a cache that only knows this process's memory."""
        if getattr(self.current_cache(), "_store", None) is not None:
            return
        is_used = any(cached_route(view) is not None for view in self.view_functions.values())
        self.logger.log(
            logging.WARNING if is_used else logging.INFO,
            "The cache is in the memory of each of the %d workers: each makes a response for itself, and"
            " an eviction reaches only the worker that it is made in; for one cache for all of them give"
            " cache=RedisStore.from_url('redis://...')",
            workers,
        )

    def is_admitted(self, request: Request, exchange: Exchange) -> bool:
        """Tells whether a request may be handled now; cached views get their slot when they run."""
        rule = request.url_rule
        route = None
        if rule is not None:
            exchange.rule = rule.rule
            route = cached_route(self.view_functions.get(rule.endpoint))
        if route is not None:
            if route.notices_cookies:
                notice_cookies(request, self._noticing)
            else:
                exchange.cookies_used = False
            return True
        exchange.cookies_used = False
        return self.admit_at_once(exchange)

    def admit_at_once(self, exchange: Exchange) -> bool:
        """Gets an admission slot for a request if there is one; returns whether it has one."""
        if exchange.slot is None:
            settings = exchange.settings
            if not isinstance(settings, ServerSettings):
                return False
            exchange.slot = self._admission.enter_at_once(settings.soft_limit, settings.hard_limit)
        return exchange.slot is not None

    async def refusal(self, exchange: Exchange) -> AnyResponse | None:
        """Returns the 503 of a request that finds no slot, once there is none."""
        return await self.admit(exchange)

    async def conclude(self, context: QuartRequestContext, response: AnyResponse) -> None:
        """Stores what the view has made, unless the finished response forbids it; evicts what was written."""
        exchange = exchange_of(context.request.scope)
        transaction = None if exchange is None else exchange.transaction
        if exchange is not None and transaction is not None:
            if transaction.is_proposed:
                transaction.commit(
                    status=response.status_code,
                    headers=raw_headers(response),
                    # A context of somebody else's does not tell.
                    personal=exchange.personal if isinstance(context, RequestContext) else "session",
                )
            kept = exchange.representation
            if isinstance(kept, StoredResponse):
                self._listen(context, exchange, kept, response)
        if context.request.method not in SAFE_METHODS:
            await self.evict_written(context, response)

    def _listen(
        self, context: QuartRequestContext, exchange: Exchange, kept: StoredResponse, response: AnyResponse
    ) -> None:
        """Lets the doors before this one know of what is stored, if they may answer with it."""
        rule = context.request.url_rule
        view = None if rule is None else self.view_functions.get(rule.endpoint)
        route = cached_route(view)
        if route is None or not route.is_plain or not route.is_route_of(view):
            return
        way = self.clear_way(context)
        if way is not None and way.view is view:
            scope: Any = context.request.scope
            self._doors.listen(scope, exchange, kept, way, lambda: raw_headers(response))

    async def admit(self, exchange: Exchange) -> AnyResponse | None:
        """Gets an admission slot for a request; returns the 503 where there is none."""
        if exchange.slot is not None:
            return None
        settings = _settings_of(exchange) or self.current_settings()
        slot = await self._admission.enter(settings.soft_limit, settings.hard_limit)
        if slot is not None:
            exchange.slot = slot
            return None
        self._admission.refused += 1
        if self._admission.is_first_refusal():
            self.logger.warning(
                "Refused a request with 503: hard_limit=%s requests are handled or waiting;"
                " raise hard_limit, or give None for no limit",
                settings.hard_limit,
            )
        refusal = self.build_response(b"Service Unavailable", 503)
        refusal.headers.update({"Retry-After": "1", "Content-Type": "text/plain; charset=utf-8"})
        return refusal

    def _get_own_instance_path(self) -> str:
        """Returns ``"module:variable"``, under which another process can import this application.

        Raises:
            InstancePathError: No module has it as a variable.
        """
        return instance_path(self, self.import_name)

    async def _send_static(self, owner: Scaffold, filename: str) -> Response:
        if owner.static_folder is None:
            raise RuntimeError("No static folder for this object")
        compressor = cast(Base | None, resolved(self.container, "compressor"))
        return await self._static.send(owner.static_folder, filename, compressor, self.current_cache())

    def current_settings(self) -> ServerSettings:
        """Returns the settings, as the container gives them now."""
        settings = self._providers["settings"]()
        return (
            settings if type(settings) is ServerSettings else cast(ServerSettings, self._resolved("settings"))
        )

    def current_compressor(self) -> Base | None:
        """Returns the compressor, as the container gives it now."""
        compressor = self._providers["compressor"]()
        if compressor is None or isinstance(compressor, Base):
            return compressor
        return cast("Base | None", self._resolved("compressor"))

    def _resolved(self, name: str) -> object:
        return resolved(self.container, name)

    def _development_address(self, host: str | None, port: int | None) -> dict[str, object]:
        """Returns the address of ``run()``: loopback unless somebody said otherwise."""
        stated = configuration(self.container)
        name, _, number = str(cast(object, self.config["SERVER_NAME"]) or "").partition(":")
        fallback = {"host": name or "127.0.0.1", "port": int(number) if number.isdecimal() else 5000}
        unstated = {setting: value for setting, value in fallback.items() if stated.get(setting) is None}
        return unstated | given(host=host, port=port)


async def _send_whole(send: Any, answer: Answer) -> None:
    status, headers, content, memory, _ = answer
    if isinstance(send, WholeSend):
        if not send.at_once(status, headers, content, memory):
            await send.whole(status, headers, content)
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _settings_of(exchange: Exchange) -> ServerSettings | None:
    """Returns the settings that a request began with; None for one that no server has brought."""
    settings = exchange.settings
    return settings if isinstance(settings, ServerSettings) else None


def _is_cancelled(error: BaseException) -> bool:
    """Tells whether the server ended the request, rather than a view that raised the same error."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
