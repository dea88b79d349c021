"""The GPT against transformers' GPT-2, an implementation not ours: weights in, weights out, training from them."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPO, TIMING, TINY
from little import paper_meta, train
from torch.nn import functional as F

from common.checkpoint import load_model
from common.dataset import load_meta
from common.errors import UserError
from common.evaluate import answer_probs, sample_answers, sample_completions, teacher_force
from common.gpt2 import load_gpt2, save_gpt2
from common.questions import is_right, paper_questions
from common.tokenizer import gpt2_tokenizer
from model import GPT, GPTConfig

pytestmark = pytest.mark.slow
transformers = None  # takes seconds to import


@pytest.fixture(autouse=True, scope='module')
def import_transformers():
    global transformers
    transformers = pytest.importorskip('transformers')


# A vocabulary of GPT-2's form: the 256 bytes, a few merges, and the end of text. '=-' is a token of GPT-2's, too.
MERGES = ['Ġ P', 'a r', 'i s', 'ĠP ar', 'ĠPar is', 'Ġ is', 'Ġ o', 'Ġo f', 'Ċ Ċ', '= -', 'Ġ Ġ', 'C a', 'p i', 't a',
          'ta l', 'pi tal', 'Ca pital', 'n d', 'L o', 'Ġ L', 'o n']
STRANGE = "  It's 12345 naïve,\n\n\n  =-  Paris   <|endoftext|>東京 \n"
LINES = ['Capital of France is Paris \n', 'Capital of the UK is London \n', 'Capital of Japan is Tokyo \n',
         '<3+4=7> \n',
         '<9+8=17>\n', '<7-5=2> \n']


def write_vocabulary(folder):
    """vocab.json and merges.txt; returns the number of tokens."""
    plain = [b for b in range(256) if chr(b).isprintable() and b != ord(' ')]
    shifted = [chr(256 + i) for i in range(256 - len(plain))]  # GPT-2's stand-ins for bytes that do not print
    tokens = [*map(chr, plain), *shifted, *(merge.replace(' ', '') for merge in MERGES), '<|endoftext|>']
    (folder / 'vocab.json').write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / 'merges.txt').write_text('#version: 0.2\n' + '\n'.join(MERGES) + '\n')
    return len(tokens)


def their_tokenizer(folder):
    """transformers' own tokenizer of the files of write_vocabulary."""
    merges = [tuple(merge.split()) for merge in MERGES]
    return transformers.GPT2Tokenizer(vocab=json.loads((folder / 'vocab.json').read_text()), merges=merges)


def random_gpt2(seed=0, std=0.1, **changes):
    """transformers' GPT2LMHeadModel with random weights, biases and LayerNorms, too."""
    torch.manual_seed(seed)
    shape = dict(vocab_size=97, n_positions=32, n_embd=64, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**shape, **changes})).eval()
    for name, p in model.named_parameters():
        torch.nn.init.normal_(p, mean=1.0 if '.ln_' in name and name.endswith('weight') else 0.0, std=std)
    return model


@pytest.fixture
def gpt2_folder(tmp_path):
    """A folder as a GPT-2 of transformers has it: config, weights, vocabulary."""
    folder = tmp_path / 'tiny_gpt2'
    folder.mkdir()
    random_gpt2(vocab_size=write_vocabulary(folder)).save_pretrained(folder)
    their_tokenizer(folder).save_pretrained(folder)  # transformers 5 writes no vocab.json
    for name in ('vocab.json', 'merges.txt'):
        (folder / name).unlink()
    return folder


def largest_difference(a, b):
    return (a - b).abs().max().item()


# -----------------------------------------------------------------------------
# the same network


@pytest.mark.parametrize('activation', ['gelu_new', 'gelu'])
@pytest.mark.parametrize('shape', [
    dict(n_layer=1, n_head=1, n_embd=32), dict(n_layer=2, n_head=4, n_embd=64), dict(n_layer=4, n_head=2, n_embd=48),
    dict(n_layer=3, n_head=3, n_embd=96, n_inner=192, n_positions=128, vocab_size=211)])  # 128: the fused attention
def test_logits_loss_and_greedy_generations_are_those_of_transformers(tmp_path, shape, activation):
    theirs = random_gpt2(activation_function=activation, **shape)
    theirs.save_pretrained(tmp_path)
    ours = load_gpt2(str(tmp_path))
    idx = torch.randint(ours.config.vocab_size, (4, ours.config.block_size))
    with torch.no_grad():
        reference = theirs(idx, labels=idx)
        logits, _ = ours(idx, idx)
        _, loss = ours(idx[:, :-1], idx[:, 1:])
    assert reference.logits.std() > 0.3, 'logits that differ from each other'
    assert largest_difference(logits, reference.logits) < 1e-5
    assert abs(loss.item() - reference.loss.item()) < 1e-5
    prompts = idx[:, :5]
    greedy = theirs.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=20, do_sample=False,
                             pad_token_id=0)
    assert len(set(greedy[:, 5:].flatten().tolist())) > 5
    assert torch.equal(ours.generate(prompts, 20, temperature=0), greedy)
    fast = sample_completions(ours, prompts.tolist(), 1, 20, temperature=0)
    assert [list(new) for counter in fast for new in counter] == greedy[:, 5:].tolist()


def test_gpt2s_own_activation_is_kept_because_the_exact_gelu_differs(gpt2_folder):
    ours = load_gpt2(str(gpt2_folder))
    assert ours.config.activation == 'gelu_new' and ours.config.model_args()['activation'] == 'gelu_new'
    exact = GPT(GPTConfig(**{**ours.config.model_args(), 'activation': 'gelu'})).eval()
    exact.load_state_dict(ours.state_dict())
    idx = torch.randint(97, (4, 32))
    assert 1e-5 < largest_difference(ours(idx, idx)[0], exact(idx, idx)[0]) < 1e-2


def test_weights_as_openais_are_saved_load(gpt2_folder):
    """Without the prefix transformer., and with the causal masks of early versions among them."""
    from safetensors.torch import load_file, save_file
    before = load_gpt2(str(gpt2_folder))
    state = load_file(gpt2_folder / 'model.safetensors')
    state = {key.removeprefix('transformer.'): value for key, value in state.items()}
    state['h.0.attn.bias'] = torch.tril(torch.ones(32, 32)).view(1, 1, 32, 32)
    state['h.0.attn.masked_bias'] = torch.tensor(-1e4)
    save_file(state, gpt2_folder / 'model.safetensors', metadata={'format': 'pt'})
    idx = torch.randint(97, (2, 32))
    assert torch.equal(load_gpt2(str(gpt2_folder))(idx, idx)[0], before(idx, idx)[0])


@pytest.mark.parametrize('bias, mlp_expansion, activation',
                         [(False, 1, 'gelu'), (True, 4, 'gelu'), (True, 3, 'gelu_new')])
def test_a_model_of_ours_opens_in_transformers(tmp_path, bias, mlp_expansion, activation):
    torch.manual_seed(0)
    ours = GPT(GPTConfig(block_size=24, vocab_size=66, n_layer=2, n_head=2, n_embd=28, bias=bias, dropout=0.1,
                         mlp_expansion=mlp_expansion, activation=activation)).eval()
    for p in ours.parameters():
        torch.nn.init.normal_(p, std=0.2)
    save_gpt2(ours, paper_meta(), tmp_path / 'exported')
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / 'exported').eval()
    idx = torch.randint(66, (3, 24))
    assert largest_difference(theirs(idx).logits, ours(idx, idx)[0]) < 1e-5
    assert theirs.config.resid_pdrop == 0.1
    back = load_gpt2(str(tmp_path / 'exported'), dropout=0.2)
    assert back.config == GPTConfig(**{**ours.config.model_args(), 'bias': True, 'dropout': 0.2})
    assert largest_difference(back(idx, idx)[0], ours(idx, idx)[0]) < 1e-6


def test_a_trained_folder_is_exported_with_its_vocabulary_asked_and_sampled_from(project):
    model, meta, *_ = load_model(project.folder / 'math_mini_14', ['ckpt_last.pt'])
    save_gpt2(model, meta, project.folder / 'exported')
    theirs = transformers.GPT2LMHeadModel.from_pretrained(project.folder / 'exported').eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(project.folder / 'exported')
    text = '<3+4=7> \n<9-5=4'
    ids = torch.tensor([tokenizer(text)['input_ids']])
    assert ids.tolist() == [meta.tokenizer.encode(text)] and tokenizer.decode(ids[0]) == text
    assert largest_difference(theirs(ids[:, :9]).logits, model(ids[:, :9], ids[:, :9])[0]) < 1e-5
    ours = ['--out_dir=math_mini_14', '--checkpoint=ckpt_last.pt']
    options = ['--start=<3+4=', '--num_samples=2', '--max_new_tokens=30']
    assert project.check('sample.py', '--init_from=exported', *options) == project.check('sample.py', *ours, *options)
    exported, own = (project.check('eval_as_math.py', *which, '--num_samples=2').splitlines()[1:]
                     for which in (['--init_from=exported'], ours))
    assert exported == own


# -----------------------------------------------------------------------------
# the vocabulary, and questions in it


def test_local_vocabulary_files_encode_as_transformers_does(tmp_path):
    size = write_vocabulary(tmp_path)
    ours = load_meta(tmp_path / 'meta.pkl', tmp_path).tokenizer
    theirs, text = their_tokenizer(tmp_path), STRANGE
    assert ours.encode(text) == theirs.encode(text) and max(ours.encode(text)) == size - 1
    assert ours.decode(ours.encode(text)) == text and ours.decode([5, size + 40]) == ours.decode([5])
    assert ours.vocab_size == size and len(ours.encode(' Paris')) == 1
    # a changed file is read anew, and one that does not fit is refused
    (tmp_path / 'vocab.json').write_text('{}')
    with pytest.raises(UserError, match='^[^\n]*do not belong together$'):
        load_meta(tmp_path / 'meta.pkl', tmp_path)


def test_the_vocabulary_that_transformers_5_saves_is_read_and_never_replaced_by_openais(tmp_path, gpt2_folder):
    ours = gpt2_tokenizer(gpt2_folder)
    write_vocabulary(tmp_path)
    assert not (gpt2_folder / 'vocab.json').exists() and ours.vocab_size == 278
    assert ours.encode(STRANGE) == gpt2_tokenizer(tmp_path).encode(STRANGE)
    assert ours.decode(ours.encode(STRANGE)) == STRANGE
    # a vocabulary that somebody else has trained, with the special tokens first
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer, theirs.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    readme = (REPO / 'README.md').read_text(encoding='utf-8')
    theirs.train_from_iterator([readme], trainers.BpeTrainer(
        vocab_size=700, special_tokens=['<|endoftext|>', '<pad>'],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    theirs.save(str(gpt2_folder / 'tokenizer.json'))
    ours = gpt2_tokenizer(gpt2_folder)
    for text in (readme, STRANGE, 'a<pad>b'):
        assert ours.encode(text) == theirs.encode(text).ids and ours.decode(ours.encode(text)) == text
    theirs.model.save(str(tmp_path))  # as vocab.json and merges.txt
    text = f'<|endoftext|>{readme}'
    assert gpt2_tokenizer(tmp_path).encode(text) == theirs.encode(text).ids and theirs.encode(text).ids[0] == 0


@pytest.mark.parametrize('change, says', [
    (lambda t: t['pre_tokenizer'].update(add_prefix_space=True), "is ' a b' when it comes back"),
    (lambda t: t.update(pre_tokenizer={'type': 'Sequence', 'pretokenizers': [
        {**t['pre_tokenizer'], 'add_prefix_space': True}]}), "is ' a b' when it comes back"),
    (lambda t: t.update(decoder=None), "is 'a Ġ b' when it comes back"),
    (lambda t: t['model']['vocab'].update({'!': t['model']['vocab']['"']}), 'two of its tokens have one id'),
    (lambda t: t['model']['vocab'].pop('a'), 'out of vocabulary'), (lambda t: t.pop('model'), 'Model missing')])
def test_a_vocabulary_that_cannot_be_used_is_refused(gpt2_folder, change, says):
    content = json.loads((gpt2_folder / 'tokenizer.json').read_text())
    change(content)
    (gpt2_folder / 'tokenizer.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match=f'^[^\n]*tokenizer.json cannot be read [^\n]*{says}'):
        gpt2_tokenizer(gpt2_folder)


def test_a_vocabulary_neither_adds_tokens_nor_cuts_a_long_prompt(gpt2_folder):
    """Whatever its tokenizer.json says of padding, truncation and tokens around a text."""
    from tokenizers import Tokenizer, processors
    before, theirs = gpt2_tokenizer(gpt2_folder), Tokenizer.from_file(str(gpt2_folder / 'tokenizer.json'))
    theirs.enable_truncation(3)
    theirs.enable_padding(length=20)
    theirs.post_processor = processors.TemplateProcessing('<|endoftext|> $A', special_tokens=[('<|endoftext|>', 277)])
    theirs.save(str(gpt2_folder / 'tokenizer.json'))
    assert gpt2_tokenizer(gpt2_folder).encode(STRANGE) == before.encode(STRANGE)


def test_merges_in_another_order_encode_as_in_transformers(tmp_path):
    write_vocabulary(tmp_path)
    before = gpt2_tokenizer(tmp_path).encode(' on')
    (tmp_path / 'merges.txt').write_text('#version: 0.2\n' + '\n'.join(['o n', *MERGES[:-1]]) + '\n')
    merges = [tuple(merge.split()) for merge in ['o n', *MERGES[:-1]]]
    theirs = transformers.GPT2Tokenizer(vocab=json.loads((tmp_path / 'vocab.json').read_text()), merges=merges)
    assert gpt2_tokenizer(tmp_path).encode(' on') == theirs.encode(' on') != before


def test_half_a_vocabulary_is_refused_and_none_is_announced(gpt2_folder, capsys):
    load_gpt2(str(gpt2_folder))
    assert not capsys.readouterr().out
    (gpt2_folder / 'tokenizer.json').unlink()
    with pytest.raises(UserError, match='has a tokenizer_config.json, but neither tokenizer.json nor'):
        gpt2_tokenizer(gpt2_folder)
    (gpt2_folder / 'tokenizer_config.json').unlink()
    load_gpt2(str(gpt2_folder))
    assert capsys.readouterr().out == f"{gpt2_folder} has no vocabulary, so OpenAI's is used\n"


def test_an_exported_model_takes_its_encoding_along(gpt2_folder, tmp_path):
    meta = load_meta(gpt2_folder / 'meta.pkl', gpt2_folder)
    save_gpt2(load_gpt2(str(gpt2_folder)), meta, tmp_path / 'exported')
    assert gpt2_tokenizer(tmp_path / 'exported').encode(STRANGE) == meta.tokenizer.encode(STRANGE)


def test_questions_in_gpt2s_encoding_are_scored_on_what_follows_naturally(tmp_path):
    """A model that has learnt the lines in that encoding answers: ' Paris' is one token, blank included."""
    write_vocabulary(tmp_path)
    tokenizer = gpt2_tokenizer(tmp_path)
    questions = [q for q in paper_questions() if any(line.startswith(q.prompt + q.answer) for line in LINES)]
    assert len(questions) == len(LINES)
    torch.manual_seed(0)
    model = GPT(GPTConfig(block_size=24, vocab_size=tokenizer.vocab_size, n_layer=1, n_head=2, n_embd=32))
    train(model, tokenizer.encode(''.join(LINES) * 3), steps=150)
    forced = teacher_force(model, tokenizer, questions)
    answers = sample_answers(model, tokenizer, questions, forced, num_samples=2)
    for question, samples in zip(questions, answers, strict=True):
        assert all(is_right(question.answer, question.terminator, text) for text in samples), (question, samples)
    probs = answer_probs(forced)
    assert probs.min() > 0.5
    ids, expected = tokenizer.encode('Capital of France is'), 1.0
    for token in tokenizer.encode(' Paris') + tokenizer.encode(' ') + tokenizer.encode('\n'):
        expected *= F.softmax(model(torch.tensor([ids]))[0][0, -1], dim=-1)[token].item()
        ids.append(token)
    fact = next(i for i, q in enumerate(questions) if q.answer == 'Paris')
    assert probs[fact] == pytest.approx(expected, rel=1e-4)
    assert answer_probs(teacher_force(model, tokenizer, questions, terminated=False))[fact] > probs[fact]


# -----------------------------------------------------------------------------
# the scripts


def write_dataset(folder, tokenizer):
    folder.mkdir(parents=True)
    ids = np.array(tokenizer.encode(''.join(LINES) * 4), dtype='<u2')
    for name in ('train.bin', 'val.bin'):
        ids.tofile(folder / name)
    return torch.from_numpy(ids.astype(np.int64))


def test_training_from_gpt2_begins_where_transformers_is_and_resumes_exactly(project, gpt2_folder):
    ids = write_dataset(project.folder / 'data/bpe', gpt2_tokenizer(gpt2_folder))
    options = [*TINY, f'--init_from={gpt2_folder}', '--dataset=bpe', '--block_size=16', '--learning_rate=1e-3',
               '--dropout=0.1']
    project.check('train_with_eval.py', *options, '--out_dir=whole', '--max_iters=6')
    whole = pd.read_csv(project.folder / 'whole/results.csv')
    theirs = transformers.GPT2LMHeadModel.from_pretrained(gpt2_folder).eval()
    windows = ids.unfold(0, 17, 1)
    with torch.no_grad():
        loss = F.cross_entropy(theirs(windows[:, :-1]).logits.flatten(0, 1), windows[:, 1:].flatten()).item()
    assert list(whole.iter) == [0, 2, 4, 6] and whole.val_loss[0] == pytest.approx(loss, abs=1e-5)
    checkpoint = torch.load(project.folder / 'whole/ckpt_last.pt', weights_only=True)
    assert checkpoint['model_args'] == dict(
        n_layer=2, n_head=4, n_embd=64, block_size=16, bias=True, vocab_size=theirs.config.vocab_size, dropout=0.1,
        mlp_expansion=4, activation='gelu_new')
    assert checkpoint['model']['transformer.wpe.weight'].shape == (16, 64)
    # stopped and resumed, twice
    project.check('train_with_eval.py', *options, '--out_dir=parts', '--max_iters=2')
    shutil.rmtree(gpt2_folder)  # the model folder has all it needs
    for max_iters in (4, 6):
        project.check('train_with_eval.py', '--init_from=resume', '--out_dir=parts', f'--max_iters={max_iters}')
    parts = pd.read_csv(project.folder / 'parts/results.csv')
    pd.testing.assert_frame_equal(parts.drop(columns=TIMING), whole.drop(columns=TIMING), check_exact=True)
    shutil.rmtree(project.folder / 'data/bpe')
    assert '50 questions right' in project.check('eval_capitals.py', '--out_dir=parts', '--num_samples=1')
    out = project.check('sample.py', '--out_dir=parts', '--start=Paris é', '--num_samples=2', '--max_new_tokens=3')
    assert out.count('Paris é') == 2 and out.count('---------------') == 2


def test_gpt2_as_it_is_answers_and_is_sampled_from(project, gpt2_folder):
    init_from = f'--init_from={gpt2_folder}'
    out = project.check('eval_capitals.py', init_from, '--num_samples=1', '--json=report.json')
    assert f'{gpt2_folder}: 50 questions' in out
    report = json.loads((project.folder / 'report.json').read_text())
    assert {row['group'] for row in report['totals']} == {'facts', 'beyond'}
    assert {question['held_out'] for question in report['questions']} == {None}
    out = project.check('eval_as_math.py', init_from, '--num_samples=1', '--max_operand=10')
    assert '242 questions' in out and 'of 242 questions right' in out and 'held out ' not in out.splitlines()[-1]
    out = project.check('sample.py', init_from, '--start=Capital of', '--num_samples=3', '--max_new_tokens=5')
    assert out.count('Capital of') == 3


def test_what_does_not_fit_gpt2_is_refused(project, gpt2_folder):
    write_dataset(project.folder / 'data/bpe', gpt2_tokenizer(gpt2_folder))
    options = [*TINY, f'--init_from={gpt2_folder}', '--out_dir=new']
    project.fails('train_with_eval.py', *options, '--dataset=bpe', '--block_size=33', says='has 32 positions')
    project.fails('train_with_eval.py', *options, '--dataset=as_math', says='vocabulary')
    project.fails('train_with_eval.py', *options, '--dataset=bpe', f'--out_dir={gpt2_folder}',
                  says='model.safetensors, which no run wrote')
    project.fails('eval_as_math.py', says='with --out_dir=FOLDER, or GPT-2 with --init_from=gpt2')
    project.fails('eval_as_math.py', f'--init_from={gpt2_folder}', '--checkpoint=ckpt.pt', says='use it with --out_dir')
    assert not (project.folder / 'new').exists()


def change_config(folder, **changes):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize('change, says', [
    (lambda f: (f / 'config.json').unlink(), 'cannot be loaded'),
    (lambda f: (f / 'config.json').write_text('{'), 'tiny_gpt2'),
    (lambda f: (f / 'model.safetensors').unlink(), 'cannot be loaded'),
    (lambda f: (f / 'model.safetensors').write_bytes(b'xx'), 'cannot be loaded'),
    (lambda f: change_config(f, model_type='bert'), "'bert'"),
    (lambda f: change_config(f, n_layer=3), 'transformer.h.2'),
    (lambda f: change_config(f, n_layer=1), 'transformer.h.1'),
    (lambda f: change_config(f, n_embd=32), 'cannot be loaded'),
    (lambda f: change_config(f, n_head=5), 'cannot be loaded'),
    (lambda f: change_config(f, layer_norm_epsilon=1e-6), 'layer_norm_epsilon=1e-06'),
    (lambda f: change_config(f, activation_function='relu'), "activation_function='relu'"),
    (lambda f: change_config(f, scale_attn_by_inverse_layer_idx=True), 'scale_attn_by_inverse_layer_idx=True'),
])
def test_a_folder_that_holds_no_gpt2_is_refused_with_one_sentence(gpt2_folder, change, says):
    change(gpt2_folder)
    with pytest.raises(UserError, match='^[^\n]*$') as error:
        load_gpt2(str(gpt2_folder))
    assert says in str(error.value)


def test_the_context_may_be_shortened_and_other_names_are_refused(gpt2_folder):
    whole, short = load_gpt2(str(gpt2_folder)), load_gpt2(str(gpt2_folder), dropout=0.2, block_size=16)
    assert short.config.block_size == 16 and short.transformer.drop.p == 0.2
    idx = torch.randint(97, (2, 16))
    assert torch.equal(short(idx, idx)[0], whole(idx, idx)[0])
    with pytest.raises(UserError, match='block_size 33 is too large: [^\n]* has 32 positions'):
        load_gpt2(str(gpt2_folder), block_size=33)
    with pytest.raises(UserError, match='gpt3 is neither a folder nor one of gpt2, gpt2-medium'):
        load_gpt2('gpt3')


def test_without_transformers_the_error_names_it(gpt2_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(UserError, match='^[^\n]*pip install transformers$'):
        load_gpt2(str(gpt2_folder))


def test_without_a_network_the_error_says_so(prepared, tmp_path, monkeypatch):
    process = prepared.fails('sample.py', '--init_from=gpt2', HF_HUB_OFFLINE='1', HF_HOME=str(tmp_path),
                             says='the weights of gpt2 cannot be loaded')
    assert 'network' in process.stderr and process.stderr.count('\n') == 1
    monkeypatch.setenv('TIKTOKEN_CACHE_DIR', str(tmp_path))
    monkeypatch.setenv('HTTPS_PROXY', 'http://127.0.0.1:9')  # nothing listens there
    with pytest.raises(UserError, match="GPT-2's vocabulary cannot be loaded[^\n]*$"):
        gpt2_tokenizer()
