"""From the outside world to `Settings`."""
