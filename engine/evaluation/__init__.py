"""A detector over a data set: detections, test-time augmentation and their metrics."""
