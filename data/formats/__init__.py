"""Annotations of other formats (Pascal VOC, YOLO) or layouts, as data sets in COCO format."""
