"""What `sidecar doctor` knows: one small module per group of checks, pure but for `looking`."""
