"""Checkpoints: nothing in one is executed, the family's load, and whatever is wrong is named in one sentence."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from little import little_model, paper_meta

from common.checkpoint import (
    build_model,
    check_resumable,
    check_vocabulary,
    find_checkpoint,
    load_checkpoint,
    load_model,
    load_optimizer,
    model_from_checkpoint,
)
from common.dataset import load_meta
from common.errors import UserError

NANOGPT_ARGS = dict(n_layer=2, n_head=2, n_embd=16, block_size=24, bias=True, vocab_size=66, dropout=0.0)


def nanogpt():
    """A model of nanoGPT's shape, and its checkpoint as nanoGPT's train.py writes it: without mlp_expansion."""
    model = little_model(66, bias=True, mlp_expansion=4)
    return model, {'model': model.state_dict(), 'model_args': dict(NANOGPT_ARGS)}


def rebuilt(checkpoint, tmp_path, **kwargs):
    torch.save(checkpoint, tmp_path / 'ckpt.pt')
    return model_from_checkpoint(load_checkpoint(tmp_path / 'ckpt.pt'), tmp_path / 'ckpt.pt', **kwargs)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_checkpoint_that_would_execute_code_is_refused(tmp_path):
    torch.save({'model': {}, 'model_args': Hostile(tmp_path / 'owned')}, tmp_path / 'ckpt.pt')
    (tmp_path / 'plain.pt').write_bytes(pickle.dumps({'model': Hostile(tmp_path / 'owned')}))
    for name in ('ckpt.pt', 'plain.pt'):
        with pytest.raises(UserError, match=name):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / 'owned').exists()


def test_a_numpy_number_in_a_checkpoint_is_named_and_why_it_is_not_read(tmp_path):
    torch.save({'model': {}, 'model_args': {}, 'val_loss': np.float64(1.5)}, tmp_path / 'ckpt.pt')
    with pytest.raises(UserError, match=r'it holds \S*numpy\.[^\n]*only tensors'):
        load_checkpoint(tmp_path / 'ckpt.pt')


@given(st.binary(max_size=200))
def test_garbage_is_refused_with_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp('garbage') / 'file'
    path.write_bytes(content)
    for load in (load_meta, load_checkpoint):
        with pytest.raises(UserError, match='^[^\n]*$'):
            load(path)


@pytest.mark.parametrize('prefix', ['', '_orig_mod.', 'module.', 'module._orig_mod.'])
@pytest.mark.parametrize('flash', [None, 'flash_attn', 'use_flash', 'use_flash_attn'])
def test_a_checkpoint_of_other_nanogpt_code_loads(tmp_path, prefix, flash):
    """The causal mask is among the weights if there is no flash attention, which is a harmless argument if there is."""
    original, checkpoint = nanogpt()
    state = {prefix + key: value for key, value in checkpoint['model'].items()}
    state[prefix + 'transformer.h.0.attn.bias'] = torch.tril(torch.ones(24, 24)).view(1, 1, 24, 24)
    args = NANOGPT_ARGS if flash is None else {**NANOGPT_ARGS, flash: True}
    model = rebuilt({'model': state, 'model_args': args}, tmp_path)
    idx = torch.randint(66, (2, 10))
    assert torch.equal(model(idx, idx)[0], original(idx, idx)[0]) and not model.training
    assert model.config.mlp_expansion == 4


def untie(checkpoint):
    state = checkpoint['model'] = {key: value.clone() for key, value in checkpoint['model'].items()}
    state['lm_head.weight'][0, 0] += 1


@pytest.mark.parametrize('change, says', [
    (lambda c: c.pop('model_args'), "it has no 'model_args'"), (lambda c: c.pop('model'), "it has no 'model'"),
    (lambda c: c['model'].pop('transformer.h.1.attn.c_attn.weight'), 'transformer.h.1.attn.c_attn.weight is missing'),
    (lambda c: c['model'].pop('lm_head.weight'), 'lm_head.weight is missing'),
    (lambda c: c['model'].update(extra=torch.zeros(1)), 'extra is unknown'),
    (lambda c: c['model'].pop('transformer.h.0.mlp.c_fc.weight'), 'transformer.h.0.mlp.c_fc.weight'),
    (untie, r'\(tied\)'),
    (lambda c: c['model_args'].update(norm_type='rms'), "norm_type='rms', which is unknown here"),
    (lambda c: c['model_args'].update(n_embd=18), 'wte.weight is of another shape'),
    (lambda c: c['model_args'].update(n_head=0), 'n_head must be'),
    (lambda c: c['model_args'].update(vocab_size=5), 'wte.weight is of another shape'),
    (lambda c: c.update(model=3), 'not one of our GPTs'),
    (lambda c: c['model_args'].update(n_layer='x'), 'not one of our GPTs'),
    (lambda c: c['model_args'].update(n_layer=10**6, mlp_expansion=4), 'fewer layers than n_layer=1000000'),
    (lambda c: c.update(model_args=[1]), 'not one of our GPTs'),
    (lambda c: c['model']['transformer.ln_f.weight'].fill_(float('nan')), 'not finite'),
    (lambda c: c['model']['transformer.ln_f.weight'][:1].fill_(float('inf')), 'not finite'),
])
def test_a_checkpoint_that_is_no_gpt_of_ours_is_refused_and_says_why(tmp_path, change, says):
    _, checkpoint = nanogpt()
    change(checkpoint)
    with pytest.raises(UserError, match=rf'^[^\n]*{says}[^\n]*$'):
        rebuilt(checkpoint, tmp_path)


@pytest.mark.parametrize('change', [
    dict(iter_num='4'), dict(iter_num=-3), dict(iter_num=2.5), dict(config=None), dict(rows=None), dict(best_acc=None)])
def test_a_damaged_checkpoint_is_not_resumed(tmp_path, change):
    _, checkpoint = nanogpt()
    checkpoint |= {'optimizer': {}, 'iter_num': 4, 'best_val_loss': 1.0, 'config': {}, **change}
    torch.save(checkpoint, tmp_path / 'ckpt.pt')
    with pytest.raises(UserError, match=f'is damaged: its {next(iter(change))} makes no sense'):
        load_checkpoint(tmp_path / 'ckpt.pt', to_resume=True)


@pytest.mark.parametrize('rows', [[{'foo': 1}], [1], [{'iter': 'x'}]])
def test_a_checkpoint_whose_rows_are_none_of_results_csv_is_not_resumed(tmp_path, rows):
    _, checkpoint = nanogpt()
    checkpoint |= {'optimizer': {}, 'iter_num': 4, 'best_val_loss': 1.0, 'config': {}, 'rows': rows}
    torch.save(checkpoint, tmp_path / 'ckpt.pt')
    with pytest.raises(UserError, match=r'is damaged, and its rows cannot be used \([^\n]*: start again$'):
        load_checkpoint(tmp_path / 'ckpt.pt', to_resume=True)


def test_dropout_may_be_given_anew_and_impossible_shapes_are_refused(tmp_path):
    assert rebuilt(nanogpt()[1], tmp_path, dropout=0.3).transformer.drop.p == 0.3
    for wrong in (dict(n_embd=15), dict(dropout=1.0), dict(n_embd=2**40)):
        with pytest.raises(UserError, match='^cannot build the model: [^\n]*$'):
            build_model(**{**NANOGPT_ARGS, **wrong})


def test_the_first_checkpoint_that_is_there_is_found(tmp_path):
    (tmp_path / 'b.pt').touch()
    assert find_checkpoint(tmp_path, ['a.pt', 'b.pt']) == tmp_path / 'b.pt'
    (tmp_path / 'a.pt').touch()
    assert find_checkpoint(tmp_path, ['a.pt', 'b.pt']) == tmp_path / 'a.pt'
    with pytest.raises(UserError, match=r'no c\.pt or d\.pt in'):
        find_checkpoint(tmp_path, ['c.pt', 'd.pt'])
    with pytest.raises(UserError, match='nowhere not found'):
        find_checkpoint(tmp_path / 'nowhere', ['a.pt'])


def test_a_sweep_and_its_config_are_named_as_such_with_one_of_their_runs(tmp_path):
    run = tmp_path / 'main/math_mini_14/seed_1337'
    run.mkdir(parents=True)
    for folder in (run.parent, run.parent.parent):
        with pytest.raises(UserError, match=f'{folder} holds several runs: choose one, e.g. --out_dir={run}$'):
            find_checkpoint(folder, ['a.pt'])


def test_only_gpt2s_vocabulary_may_be_padded_in_the_model():
    model, tokenizer = little_model(70), paper_meta().tokenizer
    with pytest.raises(UserError, match="x has a vocabulary of 70, but y one of 66: mend it"):
        check_vocabulary(model, tokenizer, 'x', 'y', 'mend it')
    check_vocabulary(model, tokenizer._replace(bpe=True), 'x', 'y', 'mend it')
    with pytest.raises(UserError, match="GPT-2's encoding one of 71"):
        check_vocabulary(model, tokenizer._replace(bpe=True, vocab_size=71), 'x', 'y', 'mend it')


def test_what_a_run_may_go_on_with_is_decided_in_one_place(capsys):
    began = dict(n_embd=16, dataset='as_math', seed=1, learning_rate=0.1, out_dir='a', max_iters=10)
    checkpoint = {'config': began, 'model_args': NANOGPT_ARGS, 'iter_num': 8}
    checkpoint['data_sha256'] = 'the text'
    place = {**began, 'out_dir': 'b', 'max_iters': 20, 'new': 1}
    check_resumable(checkpoint, 'ckpt.pt', place, 'the text', in_sweep=True)
    assert capsys.readouterr().out == ''
    with pytest.raises(UserError, match='trained with learning_rate=0.1, not 0.2.* another --name'):
        check_resumable(checkpoint, 'ckpt.pt', {**place, 'learning_rate': 0.2}, 'the text', in_sweep=True)
    check_resumable(checkpoint, 'ckpt.pt', {**began, 'learning_rate': 0.2, 'max_iters': 20, 'dropout': 0.0}, 'the text')
    assert capsys.readouterr().out == 'resuming with learning_rate=0.2 (was 0.1)\nresuming with max_iters=20 (was 10)\n'
    for change, text, says in ((dict(n_embd=32), 'the text', 'trained with n_embd=16, not 32'),
                               (dict(dataset='b'), 'the text', "dataset='as_math', not 'b'"),
                               (dict(max_iters=7), 'the text', 'at iteration 8 already'),
                               ({}, 'other', 'another text')):
        with pytest.raises(UserError, match=says):
            check_resumable(checkpoint, 'ckpt.pt', {**began, **change}, text)


def test_an_optimizers_state_is_kept_and_its_settings_may_be_given_anew():
    model = little_model(17)
    before = model.configure_optimizers(0.0, 1e-3, (0.9, 0.99), 'cpu')
    after = model.configure_optimizers(0.1, 1e-3, (0.8, 0.9), 'cpu')
    model(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long))[1].backward()
    before.step()
    load_optimizer(after, {'optimizer': before.state_dict(), 'iter_num': 1}, 'ckpt.pt')
    assert [group['weight_decay'] for group in after.param_groups] == [0.1, 0.0]
    assert [group['betas'] for group in after.param_groups] == [(0.8, 0.9)] * 2
    for a, b in zip(before.state.values(), after.state.values(), strict=True):
        assert torch.equal(a['exp_avg'], b['exp_avg']) and a['exp_avg'].any()
    other = little_model(17, n_layer=1).configure_optimizers(0.0, 1e-3, (0.9, 0.99), 'cpu')
    with pytest.raises(UserError, match='^ckpt.pt cannot be resumed[^\n]*$'):
        load_optimizer(other, {'optimizer': before.state_dict(), 'iter_num': 1}, 'ckpt.pt')
    with pytest.raises(UserError, match='optimizer does not fit'):  # moments that are lost would begin again at zero
        load_optimizer(after, {'optimizer': {**before.state_dict(), 'state': {}}, 'iter_num': 1}, 'ckpt.pt')
    with pytest.raises(UserError, match='optimizer does not fit'):
        load_optimizer(after, {'optimizer': None, 'iter_num': 1}, 'ckpt.pt')


def test_a_model_folder_without_meta_pkl_uses_its_datasets(tmp_path, bare, monkeypatch):
    monkeypatch.setattr('common.dataset.DATA', bare.folder / 'data')
    model = little_model(17, block_size=9)
    checkpoint = {'model': model.state_dict(), 'model_args': model.config.model_args(),
                  'config': {'dataset': 'as_math'}}
    torch.save(checkpoint, tmp_path / 'ckpt.pt')
    loaded, meta, path, settings = load_model(tmp_path, ['ckpt.pt'])
    assert len(meta.questions) == 200 and path == tmp_path / 'ckpt.pt'
    assert settings == {'dataset': 'as_math', 'iter_num': 0}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters()))
    torch.save({**checkpoint, 'config': {}}, tmp_path / 'ckpt.pt')
    with pytest.raises(UserError, match='does not name its dataset'):
        load_model(tmp_path, ['ckpt.pt'])
    shutil.copy(bare.folder / 'data/facts_char/meta.pkl', tmp_path)
    with pytest.raises(UserError, match=r'vocabulary of 17, but \S+meta.pkl one of 51'):
        load_model(tmp_path, ['ckpt.pt'])
