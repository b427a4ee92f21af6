"""A mutational fuzzer for the HTTP/1.1 codecs and for what the proxy makes of their events; see README.md here."""
