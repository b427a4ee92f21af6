"""Pure decisions on values."""
