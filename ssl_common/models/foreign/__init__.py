"""Weights in files of other projects: read without running them, recognised and converted."""
