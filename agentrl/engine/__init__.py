"""Engines: everything that turns prompt ids into sampled ids."""
