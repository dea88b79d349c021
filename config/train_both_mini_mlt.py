"""Arithmetic and capitals, the paper's large model: 6 layers, 6 heads, width 384, regularised."""

out_dir = 'both_mini_mlt'
dataset = 'both_math_and_facts'
batch_size = 576
block_size = 24
n_layer = 6
n_head = 6
n_embd = 384
mlp_expansion = 4
dropout = 0.2
weight_decay = 0.1
learning_rate = 1e-5
min_lr = 1e-6
