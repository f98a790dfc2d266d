"""Dependency injection: providers as defaults of parameters, values per request and per application."""

from aeros.injection.injector import inject
from aeros.injection.request_scope import RequestScoped

__all__ = ["RequestScoped", "inject"]
