"""Other annotation formats, converted to COCO's: Pascal VOC and YOLO."""
