"""Detection of objects: Fast and Faster R-CNN on a trunk, and how well their boxes hold."""
