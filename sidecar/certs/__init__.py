"""Key material: bytes to checked objects."""
