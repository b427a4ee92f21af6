"""A package, so that its `test_server` is not taken for that of another directory."""
