"""Environments: agents and the places they act in. They speak HTTP to a server like any other client."""
