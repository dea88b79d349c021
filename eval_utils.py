"""
What training and the evaluation scripts share: tokenizers, checkpoints, batched generation, scoring.

A dataset brings its own questions: `cases` in its meta.pkl, a list of (task, prompt, answer, held_out) written by
prepare.py, tasks 'add', 'sub' and 'facts'. Nothing here is run by itself.

Whatever is wrong with a file ends the program with one sentence and exit code 1 (SystemExit).
"""

import argparse
import hashlib
import json
import pickle
import re
import sys
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from atomic_io import atomic_open
from data.as_math.prepare import arithmetic_cases
from data.facts_char.prepare import facts_cases
from model import GPT, GPTConfig

DATA = Path(__file__).resolve().parent / 'data'
# What a model must write after an answer to have ended it: exact probabilities include it, generation stops at it.
TERMINATOR = {'add': '>', 'sub': '>', 'facts': ' \n'}
STOP = {'add': '>', 'sub': '>', 'facts': '\n'}
# The paper's length of an answer in new tokens, exceeded only where a dataset's own answers are longer
MAX_NEW_TOKENS = {'add': 4, 'sub': 4, 'facts': 20}
GPT2_VOCABULARY = ('vocab.json', 'merges.txt')  # the files of GPT-2's encoding

# -----------------------------------------------------------------------------
# datasets and tokenizers

# bpe: GPT-2's byte-pair encoding, in which a blank belongs to the word after it. terminated: whether the model was
# trained to end its answers as TERMINATOR says.
Tokenizer = namedtuple('Tokenizer', 'vocab_size encode decode cases own_cases bpe terminated', defaults=[False, True])


class PlainUnpickler(pickle.Unpickler):
    """Reads dicts, lists, tuples, strings and numbers; refuses whatever would import, and so execute, anything."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, and only plain dicts, tuples and strings are read")


def load_tokenizer(meta_path, gpt2_folder=None):
    """The tokenizer and questions of a meta.pkl; GPT-2's byte-pair encoding where there is no such file.

    gpt2_folder: where to look for the files of that encoding, see gpt2_tokenizer.
    Returns Tokenizer(vocab_size, encode: str -> list of int, decode: list of int -> str, cases, own_cases: bool, ...).
    A meta.pkl of nanoGPT's form, without cases, gets the paper's questions for whatever tasks its vocabulary can spell.
    """
    meta_path = Path(meta_path)
    if not meta_path.exists():
        return gpt2_tokenizer(gpt2_folder)
    try:
        with open(meta_path, 'rb') as f:
            meta = PlainUnpickler(f).load()
        stoi, itos = meta['stoi'], meta['itos']
        if sorted(stoi.values()) != list(range(meta['vocab_size'])) or {i: ch for ch, i in stoi.items()} != dict(itos):
            raise ValueError("stoi, itos and vocab_size disagree")
        if not all(isinstance(ch, str) for ch in stoi):
            raise ValueError("its vocabulary is not made of characters")
        spellable = lambda case: set(case[1] + case[2] + TERMINATOR[case[0]]) <= set(stoi)
        cases = meta.get('cases')
        if cases is None:
            cases = arithmetic_cases() + facts_cases()
            unspelled = {case[0] for case in cases if not spellable(case)}
            cases = [case for case in cases if case[0] not in unspelled]
        for task, prompt, answer, held_out in cases:
            if task not in TERMINATOR or not prompt or not answer or not spellable((task, prompt, answer, held_out)):
                raise ValueError(f"it has a question that cannot be asked: {(task, prompt, answer, held_out)}")
            if task != 'facts':
                int(answer)
    except Exception as e:  # whatever garbage makes the unpickler raise, and it can raise nearly anything
        reason = ' '.join(str(e).split()) or type(e).__name__
        sys.exit(f"error: {meta_path} cannot be read ({reason}): run the dataset's prepare.py again")
    decode = lambda ids: ''.join(itos[i] for i in ids)
    return Tokenizer(meta['vocab_size'], lambda text: [stoi[ch] for ch in text], decode, [tuple(c) for c in cases],
                     'cases' in meta)


def gpt2_tokenizer(folder=None):
    """GPT-2's byte-pair encoding through tiktoken, with the paper's questions.

    folder: its vocab.json and merges.txt are read where it has both, as models of transformers do; else the vocabulary
    is OpenAI's, which tiktoken downloads when it is first used.
    """
    import tiktoken
    files = [Path(folder or '') / name for name in GPT2_VOCABULARY]
    if folder and all(path.exists() for path in files):
        try:
            enc = read_gpt2_vocabulary(*files)
        except Exception as e:  # garbage raises nearly anything
            sys.exit(f"error: {files[0]} and {files[1].name} cannot be read ({type(e).__name__}): they are not of "
                     "GPT-2's form, or do not belong together")
    else:
        try:
            enc = tiktoken.get_encoding('gpt2')
        except Exception as e:  # no network, a proxy's page, a full disk, ...
            sys.exit(f"error: no meta.pkl, and GPT-2's vocabulary cannot be had through tiktoken ({type(e).__name__}): "
                     "run the dataset's prepare.py first, connect to the network once, or put GPT-2's vocab.json and "
                     "merges.txt into the model's folder")
    # models of nanoGPT have 50304 tokens, the last of which mean nothing
    decode = lambda ids: enc.decode([i for i in ids if i < enc.n_vocab])
    return Tokenizer(enc.n_vocab, lambda text: enc.encode(text, allowed_special={'<|endoftext|>'}), decode,
                     arithmetic_cases() + facts_cases(), False, bpe=True)


def read_gpt2_vocabulary(vocab_path, merges_path):
    """The tiktoken.Encoding of a vocab.json and merges.txt; raises nearly anything where they are not GPT-2's kind."""
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext.openai_public import r50k_pat_str
    # tiktoken caches what it reads by its path: with the hash it notices when a file has changed
    vocab_hash, merges_hash = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (vocab_path, merges_path))
    ranks = data_gym_to_mergeable_bpe_ranks(str(merges_path), str(vocab_path), merges_hash, vocab_hash)
    special = {token: i for token, i in json.loads(vocab_path.read_bytes()).items() if token == '<|endoftext|>'}
    return tiktoken.Encoding(str(vocab_path), pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=special)


def check_spelling(tokenizer, text, what):
    """Exit where the vocabulary lacks characters of `text`, naming them. what: whose text it is, for the message."""
    unknown = []
    for ch in dict.fromkeys(text):
        try:
            tokenizer.encode(ch)
        except KeyError:
            unknown.append(repr(ch))
    if unknown:
        sys.exit(f"error: the vocabulary of {tokenizer.vocab_size} characters has no {', '.join(unknown)}, which {what} needs")


def find_meta(dataset):
    """Path of a dataset's meta.pkl; exits where its prepare.py would write one and has not."""
    folder = DATA / dataset
    prepare = folder / 'prepare.py'
    if not (folder / 'meta.pkl').exists() and prepare.exists() and 'write_dataset' in prepare.read_text():
        sys.exit(f"error: data/{dataset}/meta.pkl not found: run python data/{dataset}/prepare.py first")
    return folder / 'meta.pkl'


def text_sha256(dataset):
    """Hash of the training text of data/`dataset`, by which a run that goes on knows that it is still the same."""
    ids = np.fromfile(DATA / dataset / 'train.bin', dtype='<u2')
    return hashlib.sha256(ids.astype(np.int64).tobytes()).hexdigest()


def load_dataset(dataset, gpt2_folder=None):
    """The data of data/`dataset`: returns (tokenizer, train ids, val ids), ids 1-D int64 tensors.

    gpt2_folder: where GPT-2's vocabulary is, for a dataset without meta.pkl, see gpt2_tokenizer.
    Exits where a file is missing or does not hold the lines that its questions ask about.
    """
    folder = DATA / dataset
    missing = [name for name in ('train.bin', 'val.bin') if not (folder / name).exists()]
    prepare = f"run python data/{dataset}/prepare.py first"
    if not folder.is_dir():
        known = ', '.join(sorted(path.parent.name for path in DATA.glob('*/prepare.py')))
        sys.exit(f"error: no dataset data/{dataset}: there are {known}")
    if missing:
        sys.exit(f"error: data/{dataset}/{missing[0]} not found: {prepare}")
    tokenizer = load_tokenizer(find_meta(dataset), gpt2_folder)
    splits = []
    for name in ('train.bin', 'val.bin'):
        content = (folder / name).read_bytes()
        if len(content) % 2 or not content:
            sys.exit(f"error: data/{dataset}/{name} is truncated: {prepare.replace('first', 'again')}")
        ids = np.frombuffer(content, dtype='<u2')
        if ids.max() >= tokenizer.vocab_size:
            sys.exit(f"error: data/{dataset}/{name} has token {ids.max()} outside the vocabulary of "
                     f"{tokenizer.vocab_size}: {prepare.replace('first', 'again')}")
        splits.append(torch.from_numpy(ids.astype(np.int64)))
    if tokenizer.own_cases:
        # Evaluation must never disagree with the data: every seen line is there, no held-out one is.
        lines = {line.strip() for line in tokenizer.decode(splits[0].tolist()).split('\n')}
        for task, prompt, answer, held_out in tokenizer.cases:
            if ((prompt + answer + TERMINATOR[task]).strip() in lines) == held_out:
                found = "holds the held-out line" if held_out else "lacks the line"
                sys.exit(f"error: data/{dataset}/train.bin {found} {prompt + answer!r} of its questions: "
                         f"{prepare.replace('first', 'again')}, and if that does not help, mend it")
    return tokenizer, *splits

# -----------------------------------------------------------------------------
# checkpoints


def load_checkpoint(path, device='cpu'):
    """Read a checkpoint dict of the nanoGPT family; nothing in it is executed (weights_only=True)."""
    path = Path(path)
    if not path.exists():
        sys.exit(f"error: checkpoint {path} not found: train a model first, or name another with --checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about pickle protocols, of files that are refused anyway
            checkpoint = torch.load(path, map_location=device, weights_only=True)
    except Exception as e:  # garbage makes torch.load raise nearly anything; its texts run over many lines
        reason = 'it would execute code' if 'WeightsUnpickler' in str(e) or 'Unsupported' in str(e) else type(e).__name__
        sys.exit(f"error: checkpoint {path} cannot be read ({reason}): it is damaged or no checkpoint")
    if not isinstance(checkpoint, dict) or not {'model', 'model_args'} <= checkpoint.keys():
        sys.exit(f"error: {path} is no checkpoint of the nanoGPT family: it has no 'model' and 'model_args'")
    return checkpoint


def model_from_checkpoint(checkpoint, path='the checkpoint'):
    """Build the GPT of a checkpoint dict and load its weights; returns it in eval mode on the CPU.

    Accepts what other code of the nanoGPT family writes: a prefix _orig_mod. (torch.compile) or module. (DDP), the
    causal mask among the weights, and model_args without mlp_expansion or dropout.
    """
    try:
        state = {re.sub(r'^(_orig_mod\.|module\.)+', '', k): v for k, v in checkpoint['model'].items()}
        state = {k: v for k, v in state.items() if not k.endswith('.attn.bias')}  # the mask of nanoGPT without flash
        args = {k: v for k, v in checkpoint['model_args'].items() if k in GPTConfig.__dataclass_fields__}
        if 'mlp_expansion' not in args:
            hidden, n_embd = state['transformer.h.0.mlp.c_fc.weight'].shape
            args['mlp_expansion'] = hidden // n_embd
        model = GPT(GPTConfig(**args))
        model.load_state_dict(state)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as e:
        sys.exit(f"error: {path} holds no GPT that can be built: {str(e).splitlines()[0]}")
    return model.eval()


def find_checkpoint(out_dir, names):
    """The first of the checkpoint files `names` that the model folder out_dir has."""
    out_dir = Path(out_dir)
    if not out_dir.is_dir():
        sys.exit(f"error: model folder {out_dir} not found: check its name, or train it with train_with_eval.py first")
    for name in names:
        if (out_dir / name).exists():
            return out_dir / name
    sys.exit(f"error: no {' or '.join(names)} in {out_dir}: train it first, or name another with --checkpoint")


def load_model(out_dir, names, device):
    """Model, tokenizer and path of the first checkpoint among `names` in a model folder.

    The tokenizer is the model folder's own meta.pkl, which training puts there, or its dataset's.
    """
    path = find_checkpoint(out_dir, names)
    checkpoint = load_checkpoint(path)
    model = model_from_checkpoint(checkpoint, path).to(device)
    meta_path = Path(out_dir) / 'meta.pkl'
    if not meta_path.exists() and not (Path(out_dir) / GPT2_VOCABULARY[0]).exists():
        dataset = (checkpoint.get('config') or {}).get('dataset')
        if not isinstance(dataset, str):
            sys.exit(f"error: {path} does not say its dataset (config['dataset']): put that dataset's meta.pkl into {out_dir}")
        meta_path = find_meta(dataset)
    tokenizer = load_tokenizer(meta_path, out_dir)
    check_vocabulary(model, tokenizer, path, meta_path, "prepare the data that the model was trained on")
    return model, tokenizer, path


def check_vocabulary(model, tokenizer, path, meta_path, remedy):
    """Exit where the model of `path` and the tokenizer of `meta_path` do not fit, with a remedy."""
    # GPT-2's vocabulary may be padded in the model, a dataset's own may not
    size = model.config.vocab_size
    if tokenizer.vocab_size > size or (tokenizer.vocab_size < size and not tokenizer.bpe):
        source = "GPT-2's encoding" if tokenizer.bpe else meta_path
        sys.exit(f"error: {path} has a vocabulary of {size}, but {source} one of {tokenizer.vocab_size}: {remedy}")


def load_gpt2(init_from, dropout=0.0):
    """GPT.from_pretrained for scripts: exits with its sentence where the model cannot be had."""
    try:
        return GPT.from_pretrained(init_from, dict(dropout=dropout))
    except (ImportError, OSError, ValueError) as e:
        sys.exit(f"error: {e}")


def load_pretrained(init_from, device):
    """Model, tokenizer and name of GPT-2 as it is, of which init_from says the name or folder.

    Its questions are the paper's. None is held out, but held_out is None instead: it was trained on none of our lines,
    and so cannot know how they end either. A folder with a meta.pkl beside the weights holds a model of ours.
    """
    model = load_gpt2(init_from).to(device)
    meta_path = Path(init_from) / 'meta.pkl'
    tokenizer = load_tokenizer(meta_path, init_from)
    check_vocabulary(model, tokenizer, init_from, meta_path, "put the vocabulary that it was trained with into its "
                     "folder, as meta.pkl or as vocab.json and merges.txt")
    if tokenizer.bpe:
        tokenizer = tokenizer._replace(cases=[(*case[:3], None) for case in tokenizer.cases], terminated=False)
    return model, tokenizer, init_from


def pick_device(device):
    """'auto' becomes cuda, mps or cpu, whichever is there first; anything else is checked."""
    if device == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
    try:
        if device.split(':')[0] not in ('cpu', 'cuda', 'mps'):
            raise ValueError(device)
        torch.empty(0, device=device)
    except Exception:  # AssertionError, RuntimeError, NotImplementedError: torch has one for each device
        sys.exit(f"error: device {device!r} is not available here: leave it out, or use --device=cpu")
    return device

# -----------------------------------------------------------------------------
# generation


@torch.inference_mode()
def generate_batch(model, prompts, max_new_tokens, temperature=1.0, top_k=None, stop=None, seed=1337, lengths=None):
    """Continue many prompts at once; the same distribution as GPT.generate, one by one.

    prompts: (N, T) int64 on the model's device; repeat a row for several samples of it. lengths: (N,) int64 where
    prompts differ in length and are padded on the right, default T. stop: a token id; a row that has written it is
    ended, and what follows in it is to be ignored. seed: of the sampling, which leaves torch's global random state
    alone. Returns (N, at most max_new_tokens) new tokens.
    """
    device, block_size = prompts.device, model.config.block_size
    generator = torch.Generator(device=device).manual_seed(seed)
    n, longest = prompts.shape
    lengths = torch.full((n,), longest, device=device) if lengths is None else lengths
    rows = torch.arange(n, device=device)
    tokens = F.pad(prompts, (0, max_new_tokens))
    # Rows that are equal so far, as samples of one prompt mostly are at low temperature, go through the model once.
    _, group = torch.unique(torch.cat((prompts, lengths[:, None]), dim=1), dim=0, return_inverse=True)
    ended = torch.zeros(n, dtype=torch.bool, device=device)
    for t in range(max_new_tokens):
        representative = torch.empty(int(group.max()) + 1, dtype=torch.long, device=device)
        representative[group] = rows
        end = lengths[representative] + t
        start = (end - block_size).clamp(min=0)  # the context slides once it is full
        window = start[:, None] + torch.arange(min(longest + t, block_size), device=device)
        # a causal model cannot see the padding after a row's end
        logits = model(tokens[representative[:, None], window], last=end - start - 1)[0][:, -1, :].float() / temperature
        if top_k is not None:
            v, _ = torch.topk(logits, min(top_k, logits.size(-1)))
            logits = logits.masked_fill(logits < v[:, [-1]], -float('inf'))
        # inverse transform sampling: one random number a row, where multinomial draws one for each token
        cdf = F.softmax(logits, dim=-1).cumsum(dim=-1)[group]
        new = (cdf <= torch.rand(n, 1, generator=generator, device=device) * cdf[:, -1:]).sum(dim=-1)
        tokens[rows, lengths + t] = new
        if stop is not None:
            ended |= new == stop
            if ended.all():
                break
        _, group = torch.unique(group * logits.size(-1) + new, return_inverse=True)
    return tokens[rows[:, None], lengths[:, None] + torch.arange(t + 1, device=device)]


def split_prompt(tokenizer, prompt):
    """A prompt as it is put to the model, and the blanks at its end that the model writes itself.

    There are such blanks in GPT-2's encoding only: ' Paris' is one token there, which cannot follow a blank that stands
    alone.
    """
    asked = prompt.rstrip(' ') if tokenizer.bpe else prompt
    return asked, prompt[len(asked):]


def ask(model, tokenizer, cases, num_samples=10, temperature=0.01, top_k=10, seed=1337):
    """Put every question to the model num_samples times.

    All sums go through the model as one batch, and all facts. Returns, for each case, the list of its num_samples
    completions: str, up to and without the character that ends an answer.
    """
    device = model.lm_head.weight.device
    completions = [None] * len(cases)
    for stop in sorted(set(STOP.values())):
        chosen = [i for i, case in enumerate(cases) if STOP[case[0]] == stop]
        if not chosen:
            continue
        # a prompt beyond the context is cropped to it, as generation would
        prompts = [torch.tensor(tokenizer.encode(split_prompt(tokenizer, cases[i][1])[0])[-model.config.block_size:])
                   for i in chosen]
        answers = [split_prompt(tokenizer, cases[i][1])[1] + cases[i][2] + stop for i in chosen]
        new_tokens = max(MAX_NEW_TOKENS[cases[chosen[0]][0]], *(len(tokenizer.encode(answer)) for answer in answers))
        lengths = torch.tensor([len(ids) for ids in prompts], device=device).repeat_interleave(num_samples)
        prompts = pad_sequence(prompts, batch_first=True).to(device).repeat_interleave(num_samples, dim=0)
        stop_ids = tokenizer.encode(stop)
        out = generate_batch(model, prompts, new_tokens, temperature, top_k, stop_ids[0] if len(stop_ids) == 1 else None,
                             seed, lengths)
        texts = [tokenizer.decode(row).split(stop)[0] for row in out.tolist()]
        for j, i in enumerate(chosen):
            completions[i] = texts[j * num_samples:(j + 1) * num_samples]
    return completions

# -----------------------------------------------------------------------------
# scoring


def is_correct(case, completion):
    """Whether a completion answers a case: the integer after `=`, or the rest of a fact's line.

    Facts are compared without blanks around them and a final period, in any case (Barron & White 2025).
    """
    task, _, answer, _ = case
    if task == 'facts':
        return completion.split('\n')[0].strip().removesuffix('.').strip().lower() == answer.lower()
    number = re.match(r'\s*(-?[0-9]+)', completion)
    return number is not None and int(number[1]) == int(answer)


def cut_after_answers(cases, completions):
    """Completions that begin with the answer, and not with a longer word, cut off behind it.

    For GPT-2 as it is: it does not know that a line ends with the answer, and goes on.
    """
    def cut(answer, completion):
        match = re.match(rf'\s*{re.escape(answer)}(?!\w)', completion, re.IGNORECASE)
        return match[0] if match else completion
    return [[cut(case[2], completion) for completion in samples] for case, samples in zip(cases, completions)]


def score(cases, completions):
    """How many of its samples each case got right: list of int."""
    return [sum(is_correct(case, completion) for completion in samples) for case, samples in zip(cases, completions)]


@torch.inference_mode()
def answer_probs(model, tokenizer, cases):
    """The exact probability that the model gives to each case's whole answer and its terminator.

    Teacher-forced, one forward pass for all, nothing sampled. Returns a float tensor (len(cases),) on the CPU.
    """
    block_size = model.config.block_size
    windows, targets, owners = [], [], []
    for i, (task, prompt, answer, _) in enumerate(cases):
        asked, blanks = split_prompt(tokenizer, prompt)
        prompt_ids = tokenizer.encode(asked)
        ids = prompt_ids + tokenizer.encode(blanks + answer)
        for ch in TERMINATOR[task] if tokenizer.terminated else '':
            ids += tokenizer.encode(ch)  # one by one: GPT-2 may join blanks that end a text, but does not within one
        for t in range(len(prompt_ids), len(ids)):  # a window for each token, for the context slides once it is full
            windows.append(ids[max(0, t - block_size):t])
            targets.append(ids[t])
            owners.append(i)
    device = model.lm_head.weight.device
    log_probs = torch.zeros(len(cases), dtype=torch.float64)
    for start in range(0, len(windows), 1024):  # 1024 windows at a time bound the memory of a large vocabulary
        chunk = windows[start:start + 1024]
        # padded on the right, which a causal model cannot see from the left
        x = pad_sequence([torch.tensor(w) for w in chunk], batch_first=True).to(device)
        logits = model(x, last=torch.tensor([len(w) - 1 for w in chunk], device=device))[0][:, -1]
        wanted = torch.tensor(targets[start:start + 1024], device=device)
        log_prob = F.log_softmax(logits.float(), dim=-1).gather(1, wanted[:, None])[:, 0]
        log_probs.index_add_(0, torch.tensor(owners[start:start + 1024]), log_prob.cpu().double())
    return log_probs.exp().float()


def evaluate(model, tokenizer, num_samples=10, temperature=0.01, top_k=10, seed=1337):
    """Ask all of a dataset's questions; returns the columns of results.csv that come of it, as a dict.

    Correct and total count samples; accuracies and probabilities are fractions of 1, and 0.0 where nothing is asked.
    The model is put into eval mode and back. Seen questions are those whose line is in the training text.
    """
    was_training = model.training
    model.eval()
    cases = tokenizer.cases
    correct = score(cases, ask(model, tokenizer, cases, num_samples, temperature, top_k, seed))
    probs = answer_probs(model, tokenizer, cases).tolist()
    model.train(was_training)

    def count(wanted):
        hits = [c for case, c in zip(cases, correct) if wanted(case)]
        return sum(hits), len(hits) * num_samples

    def mean_prob(wanted):
        values = [p for case, p in zip(cases, probs) if wanted(case)]
        return sum(values) / max(len(values), 1)

    add, sub, facts = (count(lambda case: case[0] == task) for task in ('add', 'sub', 'facts'))
    seen, held_out = count(lambda case: not case[3]), count(lambda case: case[3])
    accuracy = lambda counted: counted[0] / max(counted[1], 1)
    return {
        'add_correct': add[0], 'add_total': add[1], 'sub_correct': sub[0], 'sub_total': sub[1],
        'math_acc': accuracy((add[0] + sub[0], add[1] + sub[1])),
        'facts_correct': facts[0], 'facts_total': facts[1], 'facts_acc': accuracy(facts),
        'seen_acc': accuracy(seen), 'heldout_correct': held_out[0], 'heldout_total': held_out[1],
        'heldout_acc': accuracy(held_out),
        'seen_prob': mean_prob(lambda case: not case[3]), 'heldout_prob': mean_prob(lambda case: case[3]),
    }

# -----------------------------------------------------------------------------
# what the two evaluation scripts share


def positive(kind):
    """An argparse type: a number of `kind` (int or float) above 0."""
    def parse(text):
        value = kind(text)
        if not 1e-6 <= value < float('inf'):
            raise argparse.ArgumentTypeError(f"must be above 0 (at least 1e-6), not {text}")
        return value
    parse.__name__ = kind.__name__
    return parse


def evaluation_arguments(description, checkpoints, operations=None):
    """The command line of an evaluation script.

    checkpoints: names to look for in the model folder, in order. operations: of sums, the choices of --operation, the
    last of them the default; --max_operand goes with them. Returns argparse's namespace, with the list `checkpoints`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument('--out_dir', help='the model folder')
    model.add_argument('--init_from', metavar='GPT2', help="in its place: what does GPT-2 know? 'gpt2', 'gpt2-medium', "
                       "'gpt2-large', 'gpt2-xl', or a folder with its weights; needs transformers")
    if operations:
        parser.add_argument('--operation', choices=operations, default=operations[-1], help='default: %(default)s')
        parser.add_argument('--max_operand', type=int, metavar='N',
                            help="ask a+b and a-b for all operands up to N, beyond the dataset's own questions")
    parser.add_argument('--checkpoint', help=f"file in the model folder (default: {', else '.join(checkpoints)})")
    parser.add_argument('--num_samples', type=positive(int), default=10, help='samples per question (default: 10)')
    parser.add_argument('--temperature', type=positive(float), default=0.01, help='default: 0.01, nearly greedy')
    parser.add_argument('--top_k', type=positive(int), default=10, help='the k likeliest tokens only (default: 10)')
    parser.add_argument('--seed', type=int, default=1337, help='of the sampling (default: 1337)')
    parser.add_argument('--device', default='auto', help="'cpu', 'cuda', 'mps' (default: the fastest there is)")
    parser.add_argument('--json', metavar='FILE', help='also write all answers and totals to FILE')
    args = parser.parse_args()
    if args.init_from and args.checkpoint:
        parser.error("--checkpoint names a file of a model folder, so it goes with --out_dir")
    args.device = pick_device(args.device)
    args.checkpoints = [args.checkpoint] if args.checkpoint else checkpoints
    return args


def load_evaluated(args):
    """Model, tokenizer and path or name of what evaluation_arguments asks for."""
    if args.init_from:
        return load_pretrained(args.init_from, args.device)
    return load_model(args.out_dir, args.checkpoints, args.device)


def totals(cases, counts, probs, num_samples):
    """Scores of each task, and apart of the questions seen, held out, and beyond the training text: a list of dicts.

    Beyond it are those with None for held_out: not in the text, without having been chosen to be held out of it.
    questions_right counts the questions all of whose samples are right, prob is the mean exact probability.
    """
    groups = {
        'addition': lambda case: case[0] == 'add', 'subtraction': lambda case: case[0] == 'sub',
        'facts': lambda case: case[0] == 'facts', 'seen': lambda case: case[3] is not None and not case[3],
        'held out': lambda case: case[3], 'beyond': lambda case: case[3] is None,
    }
    table = []
    for name, wanted in groups.items():
        chosen = [i for i, case in enumerate(cases) if wanted(case)]
        if chosen:
            table.append({
                'group': name, 'questions': len(chosen),
                'questions_right': sum(counts[i] == num_samples for i in chosen),
                'correct': sum(counts[i] for i in chosen), 'total': len(chosen) * num_samples,
                'prob': sum(probs[i] for i in chosen) / len(chosen),
            })
    return table


def print_totals(cases, counts, probs, num_samples):
    for row in totals(cases, counts, probs, num_samples):
        print(f"{row['group']:<12}{row['questions_right']:>4} of {row['questions']} questions right, "
              f"{row['correct']} of {row['total']} samples ({row['correct'] / row['total']:.1%}), "
              f"mean probability of the right answer {row['prob']:.1%}")


def write_json(path, checkpoint, args, cases, completions, counts, probs):
    """Write an evaluation's answers and totals to the file `path`; does nothing where that is None."""
    if path is None:
        return
    report = {
        'checkpoint': str(checkpoint), 'num_samples': args.num_samples, 'temperature': args.temperature,
        'top_k': args.top_k, 'seed': args.seed, 'totals': totals(cases, counts, probs, args.num_samples),
        'questions': [dict(task=task, prompt=prompt, answer=answer, held_out=held_out, correct=count, prob=prob,
                           samples=samples)
                      for (task, prompt, answer, held_out), samples, count, prob in zip(cases, completions, counts, probs)],
    }
    try:
        with atomic_open(path) as f:
            json.dump(report, f, indent=1)
    except OSError as e:
        sys.exit(f"error: cannot write {path}: {e.strerror}")
    print(f"wrote {path}")
