"""Common to all commands: configuration, processes, the run folder and its checkpoints. Imports no other room."""
