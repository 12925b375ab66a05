"""Objects in images: proposals, detectors, their detections, and how these are measured."""
