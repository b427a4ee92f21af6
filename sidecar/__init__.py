"""A TLS sidecar proxy: terminates TLS beside an app and forwards plain HTTP to it over localhost."""

__version__ = "0.1.0"
