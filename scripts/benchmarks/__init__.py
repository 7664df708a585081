"""The parts of scripts/benchmark.py, a module each; `rows` are dicts, a table's columns by name."""
