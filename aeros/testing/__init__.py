"""What tests of applications use; ``pytest_aeros`` has it as fixtures."""

from aeros.testing.clock import Clock, clocked
from aeros.testing.overrides import Override, override
from aeros.testing.responses import CacheOutcome, assert_cached, assert_not_cached, cache_outcome
from aeros.testing.stores import FaultyStore

__all__ = [
    "CacheOutcome",
    "Clock",
    "FaultyStore",
    "Override",
    "assert_cached",
    "assert_not_cached",
    "cache_outcome",
    "clocked",
    "override",
]
