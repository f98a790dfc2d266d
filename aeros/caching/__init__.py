"""The response cache: what is stored, for whom, for how long, and where.

``server`` is the cache itself, ``view`` the decorator that puts it around a view; ``policy``,
``keys`` and ``entry`` are its rules, its names and its bytes; ``stores`` is where they are kept.
"""
