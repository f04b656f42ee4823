"""Makes the labelled judge set: `python -m bench.judge_set` writes the parts of agentrl/signals/judge_set/.

Two files for each half and each sealed part: turns written by hand, and templates with known truth whose slots are
filled from a seed. They share no sentence, which tests/signals/test_signals_labelled.py holds.
"""
