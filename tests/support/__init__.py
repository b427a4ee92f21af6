"""What several test packages share; nothing here is a test."""
