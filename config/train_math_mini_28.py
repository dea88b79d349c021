"""Sums, one layer of width 28."""

out_dir = 'math_mini_28'
dataset = 'as_math'
batch_size = 882
block_size = 9
n_embd = 28
