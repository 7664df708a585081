"""RetinaNet: its settings, heads, the detector made of them, and its exported form."""
