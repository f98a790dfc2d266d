# Flask ships no ``__init__.py`` here, so ``pyright --verifytypes`` takes its modules for untyped.
# Partial: everything else of flask is flask's own. ``tests/typing`` installs it beside aeros.
