"""The network: nanoGPT's names and sizes, a causal forward pass, and its optimizer groups."""

import pytest
import torch
from torch.nn import functional as F

from model import GPT, Dropout, GPTConfig, dropout_mask


def make_model(seed=0, **changes):
    torch.manual_seed(seed)
    args = dict(block_size=9, vocab_size=17, n_layer=1, n_head=1, n_embd=14, bias=False, mlp_expansion=1)
    return GPT(GPTConfig(**{**args, **changes})).eval()


def test_math_mini_14_has_1540_decayed_and_42_undecayed_parameters():
    model = make_model()
    decayed, undecayed = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), 'cpu').param_groups
    assert sum(p.numel() for p in decayed['params']) == 1540 and decayed['weight_decay'] == 0.1
    assert sum(p.numel() for p in undecayed['params']) == 42 and undecayed['weight_decay'] == 0.0
    assert model.get_num_params(non_embedding=False) == 1582 and model.get_num_params() == 1582 - 9 * 14


def test_names_and_shapes_are_nanogpts():
    block = {'ln_1.weight': (8,), 'ln_1.bias': (8,), 'attn.c_attn.weight': (24, 8), 'attn.c_attn.bias': (24,),
             'attn.c_proj.weight': (8, 8), 'attn.c_proj.bias': (8,), 'ln_2.weight': (8,), 'ln_2.bias': (8,),
             'mlp.c_fc.weight': (32, 8), 'mlp.c_fc.bias': (32,), 'mlp.c_proj.weight': (8, 32), 'mlp.c_proj.bias': (8,)}
    expected = {'transformer.wte.weight': (17, 8), 'transformer.wpe.weight': (9, 8), 'transformer.ln_f.weight': (8,),
                'transformer.ln_f.bias': (8,), 'lm_head.weight': (17, 8)}
    expected.update({f'transformer.h.{i}.{name}': shape for i in range(2) for name, shape in block.items()})
    state = make_model(n_layer=2, n_head=2, n_embd=8, bias=True, mlp_expansion=4).state_dict()
    assert {name: tuple(weight.shape) for name, weight in state.items()} == expected


def test_embeddings_are_tied_and_residual_projections_scaled_down():
    model = make_model(n_layer=8, n_embd=64, n_head=2)
    assert model.transformer.wte.weight is model.lm_head.weight
    assert model.transformer.h[0].mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.transformer.h[0].attn.c_proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)


def test_no_position_sees_the_future():
    model, idx = make_model(n_layer=2, n_head=2), torch.randint(17, (3, 9))
    changed = idx.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 17
    logits, changed_logits = model(idx, idx)[0], model(changed, idx)[0]
    torch.testing.assert_close(logits[:, :5], changed_logits[:, :5])
    assert not torch.allclose(logits[:, 5:], changed_logits[:, 5:])


def test_attention_is_the_same_by_matmul_and_by_the_fused_kernel():
    model, x = make_model(n_head=2), torch.randn(2, 9, 14)
    attention = model.transformer.h[0].attn
    q, k, v = (part.view(2, 9, 2, 7).transpose(1, 2) for part in attention.c_attn(x).split(14, dim=2))
    fused = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(2, 9, 14)
    torch.testing.assert_close(attention(x), attention.c_proj(fused))
    # beyond 64 positions it is the fused kernel itself
    long = make_model(block_size=80, n_head=2)
    ids = torch.randint(17, (1, 80))
    torch.testing.assert_close(long(ids, ids)[0][:, :60], long(ids[:, :60], ids[:, :60])[0])


def test_targets_of_minus_one_ask_for_nothing():
    model, idx = make_model(), torch.randint(17, (2, 9))
    targets = torch.full_like(idx, -1)
    targets[0, 3] = 5
    logits, loss = model(idx, targets)
    assert logits.shape == (2, 9, 17)
    torch.testing.assert_close(loss, -F.log_softmax(logits[0, 3], dim=-1)[5])
    last, none = model(idx)
    torch.testing.assert_close(last, logits[:, [-1]])
    assert none is None


def test_generate_goes_on_beyond_the_context():
    model, idx = make_model(), torch.randint(17, (2, 4))
    out = model.generate(idx, 20, temperature=0.5, top_k=3)
    assert out.shape == (2, 24) and torch.equal(out[:, :4], idx)


def test_temperature_0_is_greedy_as_is_the_likeliest_token_alone():
    model, idx = make_model(n_layer=2), torch.randint(17, (3, 4))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    out = model.generate(idx, 12, temperature=0)
    assert len(set(out[:, 4:].flatten().tolist())) > 3
    for t in range(4, 16):  # each token is the likeliest after the last nine before it
        assert torch.equal(out[:, t], model(out[:, max(0, t - 9):t])[0][:, -1].argmax(dim=-1))
    assert torch.equal(out, model.generate(idx, 12, temperature=0.7, top_k=1))


def test_cropping_keeps_what_the_first_positions_say():
    model, idx = make_model(), torch.randint(17, (2, 5))
    before = model(idx)[0]
    model.crop_block_size(5)
    torch.testing.assert_close(model(idx)[0], before)
    with pytest.raises(ValueError, match='block_size'):
        model(torch.randint(17, (2, 6)))


@pytest.mark.parametrize('wrong', [dict(n_embd=0), dict(n_layer=-1), dict(n_embd=14, n_head=4), dict(dropout=1.0),
                                   dict(block_size=0), dict(mlp_expansion=0)])
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_model(**wrong)


@pytest.mark.parametrize('dtype, rounding', [(torch.float32, 1e-4), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize('p', [0.001, 0.2, 0.9])
def test_dropout_drops_every_value_by_itself_and_keeps_the_mean_as_torchs_does(p, dtype, rounding):
    torch.manual_seed(0)
    x = torch.ones(3, 2**18 - 1, dtype=dtype)
    error, dropped = 5 / x.numel() ** 0.5, []  # five standard errors of a mean of numbers with variance 1
    for mask in (F.dropout(x, p), dropout_mask(x, p), dropout_mask(x, p)):
        assert mask.dtype == dtype and mask.shape == x.shape
        assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=rounding)
        dropped.append(((mask == 0).flatten().float() - p) / (p * (1 - p)) ** 0.5)
        for part in (dropped[-1], *(dropped[-1][i::4] for i in range(4))):  # one int64 is drawn for four values
            assert abs(part.mean().item()) < 2 * error
        for lag in (1, 2, 3, 4, 5, 8):
            assert abs((dropped[-1][lag:] * dropped[-1][:-lag]).mean().item()) < error
    assert abs((dropped[1] * dropped[2]).mean().item()) < error


def test_dropout_depends_on_the_seed_and_not_on_the_threads():
    x, threads, drawn = torch.randn(400, 300), torch.get_num_threads(), []
    for n, seed in ((1, 0), (2, 0), (3, 0), (3, 1)):
        torch.set_num_threads(n)
        torch.manual_seed(seed)
        drawn.append(Dropout(0.3)(x))
    torch.set_num_threads(threads)
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[3])
    assert Dropout(0.3).eval()(x) is x and torch.equal(Dropout(0.0)(x), x)


def test_a_compiled_model_drops_the_same_values_in_both_passes():
    model, idx = make_model(dropout=0.3).train(), torch.randint(17, (64, 9))

    def gradients(forward):
        torch.manual_seed(1)
        model.zero_grad()
        forward(idx, idx)[1].backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])
    compiled = torch.compile(model, backend='aot_eager_decomp_partition')  # as far as no C++ compiler is needed
    torch.testing.assert_close(gradients(compiled), gradients(model), rtol=1e-4, atol=1e-6)
    torch.compiler.reset()
