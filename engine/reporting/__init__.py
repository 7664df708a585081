"""Results for people: tables, figures, HTML pages, TensorBoard."""
