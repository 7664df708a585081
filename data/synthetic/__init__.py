"""Generated data: scenes of textured shapes in COCO format."""
