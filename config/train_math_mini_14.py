"""Sums, one layer of width 14."""

out_dir = 'math_mini_14'
dataset = 'as_math'
batch_size = 882
block_size = 9
n_embd = 14
