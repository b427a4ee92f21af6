"""The operator's HTTP endpoint."""
