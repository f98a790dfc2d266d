"""From an ASGI request to a view and back: Quart's own ways, made cheap where nobody uses them."""
