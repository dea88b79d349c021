"""Arithmetic and capitals, one layer of width 28."""

out_dir = 'both_mini_28'
dataset = 'both_math_and_facts'
batch_size = 576
block_size = 24
n_embd = 28
