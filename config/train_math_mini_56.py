"""Sums, one layer of width 56."""

out_dir = 'math_mini_56'
dataset = 'as_math'
batch_size = 882
block_size = 9
n_embd = 56
