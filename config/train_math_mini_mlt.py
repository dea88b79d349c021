"""Arithmetic, the paper's large model: 6 layers, 6 heads, width 384, regularised."""

out_dir = 'math_mini_mlt'
n_layer = 6
n_head = 6
n_embd = 384
mlp_expansion = 4
dropout = 0.2
weight_decay = 0.1
learning_rate = 1e-5
min_lr = 1e-6
