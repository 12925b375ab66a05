"""Linear classifiers on frozen layers, trained by steps."""
