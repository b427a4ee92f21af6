"""A package, so that its `test_topology` is not taken for that of another directory."""
