"""Serves the catalogue: ``python -m strict_app``."""

from .app import app

if __name__ == "__main__":  # a worker process imports this module as well
    app.run_server()
