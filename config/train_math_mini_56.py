"""Arithmetic, one layer of width 56."""

out_dir = 'math_mini_56'
n_embd = 56
