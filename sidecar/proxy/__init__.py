"""Twisted protocols that move bytes."""
