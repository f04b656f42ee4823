"""agentrl: serve an agent's model, record what it did, learn from what happened next."""

__version__ = "0.1.0"
