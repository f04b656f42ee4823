"""A shell that is simulated in memory, for machines where no sandbox starts."""
