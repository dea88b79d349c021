"""Capitals, one layer of width 14."""

out_dir = 'facts_mini_14'
dataset = 'facts_char'
batch_size = 576
block_size = 24
n_embd = 14
