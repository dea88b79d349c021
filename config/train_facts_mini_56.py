"""Capitals, one layer of width 56."""

out_dir = 'facts_mini_56'
dataset = 'facts_char'
batch_size = 576
block_size = 24
n_embd = 56
