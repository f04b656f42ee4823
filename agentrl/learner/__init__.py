"""The learn loop: claimed turns become samples, samples a step, steps a policy version that passed its gate."""
