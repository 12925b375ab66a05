"""A data set of our own: scenes that are generated, as a PASCAL VOC devkit."""
