"""What every command needs: configuration, processes, the run folder and its checkpoints. Imports no other room."""
