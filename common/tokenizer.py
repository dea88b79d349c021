"""
Characters or GPT-2's byte-pair encoding: text to token ids and back.
"""

import json
from pathlib import Path
from typing import Callable, NamedTuple

from common.errors import UserError, explained

GPT2_VOCABULARY = ('vocab.json', 'merges.txt'), ('tokenizer.json',)  # transformers writes the first two until version 4


class Tokenizer(NamedTuple):
    vocab_size: int
    encode: Callable  # str -> list of int; raises UserError if the vocabulary lacks a character
    decode: Callable  # iterable of int -> str
    bpe: bool = False  # GPT-2's byte-pair encoding, in which a space belongs to the word after it
    files: tuple = ()  # from which that encoding was read, if it is not OpenAI's


def char_tokenizer(stoi):
    """The tokenizer of a vocabulary of characters, a dict of character to id."""
    itos = {i: ch for ch, i in stoi.items()}

    def encode(text):
        try:
            return [stoi[ch] for ch in text]
        except KeyError:
            unknown = [ch for ch in dict.fromkeys(text) if ch not in stoi]
            raise UserError(f"the vocabulary of {len(stoi)} characters has no {', '.join(map(repr, unknown))}, so it cannot "
                            f"spell {text[:30]!r}")
    return Tokenizer(len(stoi), encode, lambda ids: ''.join(itos[i] for i in ids))


def vocabulary_files(folder):
    """The files of GPT-2's encoding in a folder, in one of the two forms that transformers writes: a list of Path.

    [] if there are none. Raises UserError if there is a part of them only, because then the encoding is not OpenAI's.
    """
    for names in GPT2_VOCABULARY:
        files = [Path(folder) / name for name in names]
        if all(path.exists() for path in files):
            return files
    for name in ('vocab.json', 'merges.txt', 'tokenizer_config.json'):
        if (Path(folder) / name).exists():
            raise UserError(f"{folder} has a {name}, but neither tokenizer.json nor both vocab.json and merges.txt: put the "
                            "rest of its vocabulary there")
    return []


def gpt2_tokenizer(folder=None):
    """GPT-2's byte-pair encoding, through tiktoken.

    folder: if it has the files of such an encoding, as models of transformers do, they are read; else the vocabulary is
    OpenAI's, which tiktoken downloads when it is first used. Raises UserError if neither can be loaded.
    """
    import tiktoken
    files = vocabulary_files(folder) if folder else []
    if files:
        with explained(f"{' and '.join(map(str, files))} cannot be read ({{}}): they are not of GPT-2's form, or do not belong "
                       "together"):
            enc = read_gpt2_vocabulary(files)
    else:
        with explained("there is no meta.pkl, and GPT-2's vocabulary cannot be loaded through tiktoken ({}): run the dataset's "
                       "prepare.py first, connect to the network once, or put GPT-2's tokenizer.json into the model's folder"):
            enc = tiktoken.get_encoding('gpt2')
    return Tokenizer(enc.n_vocab, lambda text: enc.encode(text, allowed_special='all'),
                     # nanoGPT pads the vocabulary to 50304 tokens, and the last of them mean nothing
                     lambda ids: enc.decode([i for i in ids if i < enc.n_vocab]), bpe=True, files=tuple(files))


def read_gpt2_vocabulary(files):
    """The tiktoken.Encoding of vocabulary_files; raises nearly anything if they are not of GPT-2's kind."""
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str
    content = json.loads(files[0].read_bytes())
    if len(files) == 2:
        vocab, merges = content, files[1].read_text(encoding='utf-8').rstrip('\n').split('\n')[1:]  # without '#version: 0.2'
        special = {token: i for token, i in vocab.items() if token in ('<|endoftext|>', '<|startoftext|>')}
    else:
        model, cut = content['model'], content['pre_tokenizer'] or {}
        plain_cut = cut.get('type') == 'ByteLevel' and not cut['add_prefix_space'] and cut.get('use_regex', True)
        if model['type'] != 'BPE' or not plain_cut or content.get('normalizer'):
            raise ValueError("it cuts a text in another way than GPT-2 does")
        vocab, merges = model['vocab'], model['merges']
        special = {token['content']: token['id'] for token in content['added_tokens']}
    plain = [b for b in range(256) if chr(b).isprintable() and b != ord(' ')]
    others = [b for b in range(256) if b not in plain]  # bytes for which GPT-2 has stand-ins
    byte_of = dict(zip([*map(chr, plain), *(chr(256 + i) for i in range(len(others)))], plain + others))
    ranks = {bytes(byte_of[ch] for ch in token): i for token, i in vocab.items() if token not in special}
    merged = [vocab[''.join(merge.split() if isinstance(merge, str) else merge)] for merge in merges]
    # tiktoken merges in the order of the ids, and panics if two tokens have one
    if merged != sorted(set(merged)) or len(ranks) != 256 + len(merged) or not all(bytes([b]) in ranks for b in range(256)):
        raise ValueError("its merges do not make its tokens, or not in their order")
    if len({*ranks.values(), *special.values()}) < len(ranks) + len(special):
        raise ValueError("two of its tokens have one id")
    return tiktoken.Encoding(str(files[0]), pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=special)
