"""``sidecar inject``: manifests and task definitions -> the same with the sidecar in them, or without it again."""
