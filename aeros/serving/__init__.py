"""Serving: the web server, its settings, its log and what runs it on uvicorn."""
