"""Arithmetic and capitals, one layer of width 56."""

out_dir = 'both_mini_56'
dataset = 'both_math_and_facts'
batch_size = 576
block_size = 24
n_embd = 56
