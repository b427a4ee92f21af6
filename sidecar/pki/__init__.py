"""What the commands of ``sidecar certs`` do. A running proxy never needs it."""
