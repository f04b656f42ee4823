"""Signals: what happened after a turn, turned into a reward and a hint."""
