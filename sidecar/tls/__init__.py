"""OpenSSL, and TLS as a Twisted protocol over memory BIOs."""
