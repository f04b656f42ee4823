"""A shell for an agent's commands that keeps them from the machine: see `probe.open_shell`."""
