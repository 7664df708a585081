"""Files of annotations and results, written for a test."""

import json
from pathlib import Path


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path
