"""Makes the labelled judge set: `python -m bench.judge_set` writes agentrl/signals/judge_set/{dev,test}.jsonl.

Two files a half: turns written by hand, and templates with known truth whose slots are filled from a seed. The halves
share no sentence, which tests/signals/test_signals_labelled.py holds.
"""
