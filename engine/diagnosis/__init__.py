"""Known causes of a training that does not converge, looked for while it runs."""
