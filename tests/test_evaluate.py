"""Questions and answers: the batched path answers as the plain one, scores are the paper's, loaders trust nothing."""

import pickle
from collections import Counter

import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn import functional as F

from bench import plain_answer
from data.as_math.prepare import arithmetic_cases, arithmetic_text
from data.facts_char.prepare import facts_cases, facts_text
from eval_utils import (TERMINATOR, Tokenizer, answer_probs, ask, evaluate, generate_batch, is_correct, load_checkpoint,
                        load_tokenizer, model_from_checkpoint, score)
from model import GPT, GPTConfig


def char_tokenizer(text, cases):
    chars = sorted(set(text))
    stoi = {ch: i for i, ch in enumerate(chars)}
    return Tokenizer(len(chars), lambda s: [stoi[ch] for ch in s], lambda ids: ''.join(chars[i] for i in ids), cases, True)


@pytest.fixture(scope='module')
def tokenizer():
    cases = arithmetic_cases() + facts_cases()
    return char_tokenizer(arithmetic_text(arithmetic_cases()) + facts_text(facts_cases()), cases)


def make_model(tokenizer, seed=0, block_size=24, spread=0.02):
    torch.manual_seed(seed)
    model = GPT(GPTConfig(block_size=block_size, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_embd=16, bias=False))
    for p in model.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=spread)
    return model.eval()


@pytest.fixture(scope='module')
def trained(tokenizer):
    """A model that has begun to learn the text, so that its answers are of all kinds."""
    model = make_model(tokenizer)
    text = arithmetic_text(arithmetic_cases()) + facts_text(facts_cases())
    windows = torch.tensor(tokenizer.encode(text)).unfold(0, 25, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        w = windows[torch.randint(len(windows), (64,), generator=generator)]
        loss = model(w[:, :-1], w[:, 1:])[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize('spread', [None, 0.3])
def test_batched_answers_equal_the_plain_ones_where_these_are_no_coin_toss(tokenizer, trained, spread):
    model = trained if spread is None else make_model(tokenizer, spread=spread)
    cases = tokenizer.cases[::9] + tokenizer.cases[200::3]
    batched = ask(model, tokenizer, cases, num_samples=4, temperature=0.01, top_k=10)
    certain = 0
    for case, samples in zip(cases, batched):
        plain = {plain_answer(model, tokenizer, case, 0.01, 10) for _ in range(3)}
        if len(plain) == 1 and len(set(samples)) == 1:
            certain += 1
            assert set(samples) == plain, case
    assert certain > len(cases) / 2


def test_batched_samples_have_the_distribution_of_the_plain_ones(tokenizer, trained):
    prompt = tokenizer.encode('<3+4=')
    n = 4000
    rows = torch.tensor([prompt]).repeat(n, 1)
    torch.manual_seed(0)
    plain = Counter(map(tuple, trained.generate(rows, 2, 1.0, 10)[:, 5:].tolist()))
    batched = Counter(map(tuple, generate_batch(trained, rows, 2, 1.0, 10, seed=1).tolist()))
    distance = sum(abs(plain[key] - batched[key]) for key in plain | batched) / (2 * n)
    twice = Counter(map(tuple, trained.generate(rows, 2, 1.0, 10)[:, 5:].tolist()))
    noise = sum(abs(plain[key] - twice[key]) for key in plain | twice) / (2 * n)  # of two plain draws
    assert len(plain) > 10 and distance < 1.5 * noise + 0.01, (distance, noise)


def test_sampling_leaves_the_global_random_state_alone_and_follows_its_seed(tokenizer, trained):
    rows = torch.tensor([tokenizer.encode('<3+4=')]).repeat(50, 1)
    state = torch.get_rng_state()
    first = generate_batch(trained, rows, 4, 1.0, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, generate_batch(trained, rows, 4, 1.0, seed=3))
    assert not torch.equal(first, generate_batch(trained, rows, 4, 1.0, seed=4))


def test_generation_stops_when_every_row_has_ended(tokenizer, trained):
    calls = []
    rows = torch.tensor([tokenizer.encode('<3+4=')]).repeat(3, 1)
    logits = torch.full((1, 1, tokenizer.vocab_size), -50.0)
    stop = tokenizer.encode('>')[0]
    logits[0, 0, stop] = 50.0
    always_stops = lambda idx, last: calls.append(len(idx)) or (logits.expand(len(idx), 1, -1), None)
    always_stops.config = trained.config
    out = generate_batch(always_stops, rows, 20, stop=stop)
    assert out.tolist() == [[stop]] * 3
    assert calls == [1], 'three equal rows are one row for the model, and one step is enough'


def test_exact_probability_is_the_product_of_the_steps(tokenizer, trained):
    cases = [tokenizer.cases[i] for i in (3, 57, 157, 200, 201, 225)]  # 57 and 157 held out, 225 beyond the context
    assert any(len(case[1]) > trained.config.block_size for case in cases)
    probs = answer_probs(trained, tokenizer, cases)
    for case, prob in zip(cases, probs.tolist()):
        ids, expected = tokenizer.encode(case[1]), 1.0
        for token in tokenizer.encode(case[2] + TERMINATOR[case[0]]):
            logits = trained(torch.tensor([ids[-trained.config.block_size:]]))[0][0, -1]
            expected *= F.softmax(logits, dim=-1)[token].item()
            ids.append(token)
        assert prob == pytest.approx(expected, rel=1e-4), case


def test_evaluate_counts_samples_and_keeps_the_models_mode(tokenizer, trained):
    trained.train()
    row = evaluate(trained, tokenizer, num_samples=3)
    assert trained.training
    trained.eval()
    assert (row['add_total'], row['sub_total'], row['facts_total'], row['heldout_total']) == (300, 300, 150, 12)
    completions = ask(trained, tokenizer, tokenizer.cases, num_samples=3)
    counts = score(tokenizer.cases, completions)
    assert row['add_correct'] == sum(counts[:100]) and row['sub_correct'] == sum(counts[100:200])
    assert row['math_acc'] == sum(counts[:200]) / 600 and row['facts_acc'] == sum(counts[200:]) / 150
    held_out = sum(c for case, c in zip(tokenizer.cases, counts) if case[3])
    assert row['heldout_acc'] == held_out / 12 and row['seen_acc'] == (sum(counts) - held_out) / 738
    nothing = evaluate(trained, tokenizer._replace(cases=[]))
    assert set(nothing) == set(row) and not any(nothing.values())


@pytest.mark.parametrize('task, answer, completion, right', [
    ('add', '12', '12', True), ('add', '12', '12> ', True), ('add', '12', ' 12', True), ('add', '12', '012', True),
    ('add', '12', '1', False), ('add', '12', '123', False), ('add', '12', '', False), ('add', '12', '+12', False),
    ('sub', '-2', '-2>', True), ('sub', '-2', '2', False), ('sub', '-2', '--2', False), ('sub', '2', '2-2', True),
    ('facts', 'Paris', 'Paris ', True), ('facts', 'Paris', 'paris.', True), ('facts', 'Paris', ' PARIS . \nCapital', True),
    ('facts', 'Paris', 'Pari', False), ('facts', 'Mexico City', 'Mexico', False), ('facts', 'Paris', 'Parisa', False),
])
def test_scoring_follows_the_paper(task, answer, completion, right):
    assert is_correct((task, 'prompt', answer, False), completion) == right


@given(st.text(max_size=12))
def test_any_completion_can_be_scored(completion):
    for case in (('add', '<1+1=', '2', False), ('facts', 'Capital of France is ', 'Paris', False)):
        assert is_correct(case, completion) in (True, False)


# -----------------------------------------------------------------------------
# loaders


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_meta_pkl_that_would_execute_code_is_refused(tmp_path):
    (tmp_path / 'meta.pkl').write_bytes(pickle.dumps({'vocab_size': Hostile(tmp_path / 'owned')}))
    with pytest.raises(SystemExit, match='prepare.py again'):
        load_tokenizer(tmp_path / 'meta.pkl')
    assert not (tmp_path / 'owned').exists()


def test_a_checkpoint_that_would_execute_code_is_refused(tmp_path):
    torch.save({'model': {}, 'model_args': Hostile(tmp_path / 'owned')}, tmp_path / 'ckpt.pt')
    (tmp_path / 'plain.pt').write_bytes(pickle.dumps({'model': Hostile(tmp_path / 'owned')}))
    for name in ('ckpt.pt', 'plain.pt'):
        with pytest.raises(SystemExit, match=name):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / 'owned').exists()


def test_a_meta_pkl_without_questions_gets_the_papers_for_what_it_can_spell(tmp_path):
    path = tmp_path / 'meta.pkl'
    for text, tasks in ((arithmetic_text(arithmetic_cases()), {'add', 'sub'}), (facts_text(facts_cases()), {'facts'}),
                        ('abc\n', set())):
        chars = sorted(set(text))
        meta = dict(vocab_size=len(chars), stoi={c: i for i, c in enumerate(chars)}, itos=dict(enumerate(chars)))
        path.write_bytes(pickle.dumps(meta))
        assert {case[0] for case in load_tokenizer(path).cases} == tasks


@given(st.binary(max_size=200))
def test_garbage_is_refused_with_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp('garbage') / 'meta.pkl'
    path.write_bytes(content)
    for load in (load_tokenizer, load_checkpoint):
        with pytest.raises(SystemExit, match='^error: [^\n]*$'):
            load(path)


@pytest.mark.parametrize('prefix', ['', '_orig_mod.', 'module._orig_mod.'])
def test_a_checkpoint_of_other_nanogpt_code_loads(tokenizer, prefix):
    """As nanoGPT's train.py writes it: no mlp_expansion, and the causal mask where there is no flash attention."""
    torch.manual_seed(0)
    original = GPT(GPTConfig(block_size=24, vocab_size=66, n_layer=2, n_head=2, n_embd=16, bias=True, mlp_expansion=4)).eval()
    state = {prefix + k: v for k, v in original.state_dict().items()}
    state[prefix + 'transformer.h.0.attn.bias'] = torch.tril(torch.ones(24, 24)).view(1, 1, 24, 24)
    args = dict(n_layer=2, n_head=2, n_embd=16, block_size=24, bias=True, vocab_size=66, dropout=0.0)
    model = model_from_checkpoint({'model': state, 'model_args': args})
    idx = torch.randint(66, (2, 10))
    torch.testing.assert_close(model(idx)[0], original(idx)[0])
