"""Only where it is installed matters: it carries a Redis binary."""

__file__: str
