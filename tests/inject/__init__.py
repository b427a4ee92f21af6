"""Tests of `sidecar.inject`, with manifests and task definitions as their users write them."""
