"""Work of single commands: dataset check, prediction, export, conversion, ablation, download, cost."""
