"""Where parameters live and how a step is computed (native.py: train_step, the second screen)."""
