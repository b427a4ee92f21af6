"""Sans-I/O HTTP: bytes to events and back. Knows no sockets, clocks or loggers."""
