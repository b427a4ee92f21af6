"""Tests of `sidecar.doctor`."""
