"""What the HTTP RFCs say about header fields, as pure functions: no I/O, no framework, no loop."""
