"""aeros in several processes: ``AEROS_BENCH_REDIS=URL python -m benchmarks.servers.workers PORT WORKERS``.

The application is a variable of this module, because each worker imports it. Without the URL, each
has a memory of its own.
"""

from __future__ import annotations

import logging
import os
import sys

from aeros import Cache, RedisStore, WebServer
from benchmarks.servers.aeros import add_cached_views

URL = os.environ.get("AEROS_BENCH_REDIS")

app = WebServer(__name__, cache=Cache(RedisStore.from_url(URL)) if URL else None)
add_cached_views(app, {})


if __name__ == "__main__":
    app.run_server(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        workers=int(sys.argv[2]),
        log_level=logging.WARNING,
        access_log_to_std=False,
    )
