"""
Characters or GPT-2's byte-pair encoding: text to token ids and back.
"""

import hashlib
import json
from pathlib import Path
from typing import Callable, NamedTuple

from common.errors import UserError, explained

GPT2_VOCABULARY = ('vocab.json', 'merges.txt')  # the files of GPT-2's encoding


class Tokenizer(NamedTuple):
    vocab_size: int
    encode: Callable  # str -> list of int; raises UserError if the vocabulary lacks a character
    decode: Callable  # iterable of int -> str
    bpe: bool = False  # GPT-2's byte-pair encoding, in which a space belongs to the word after it


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


def gpt2_tokenizer(folder=None):
    """GPT-2's byte-pair encoding, through tiktoken.

    folder: if it has vocab.json and merges.txt, as models of transformers do, they are read; else the vocabulary is
    OpenAI's, which tiktoken downloads when it is first used. Raises UserError if neither can be loaded.
    """
    import tiktoken
    files = [Path(folder or '') / name for name in GPT2_VOCABULARY]
    if folder and all(path.exists() for path in files):
        with explained(f"{files[0]} and {files[1].name} cannot be read ({{}}): they are not of GPT-2's form, or do not belong "
                       "together"):
            enc = read_gpt2_vocabulary(*files)
    else:
        with explained("there is no meta.pkl, and GPT-2's vocabulary cannot be loaded through tiktoken ({}): run the dataset's "
                       "prepare.py first, connect to the network once, or put GPT-2's vocab.json and merges.txt into the "
                       "model's folder"):
            enc = tiktoken.get_encoding('gpt2')
    return Tokenizer(enc.n_vocab, lambda text: enc.encode(text, allowed_special={'<|endoftext|>'}),
                     # nanoGPT pads the vocabulary to 50304 tokens, and the last of them mean nothing
                     lambda ids: enc.decode([i for i in ids if i < enc.n_vocab]), bpe=True)


def read_gpt2_vocabulary(vocab_path, merges_path):
    """The tiktoken.Encoding of a vocab.json and merges.txt; raises nearly anything if they are not of GPT-2's kind."""
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext.openai_public import r50k_pat_str
    # tiktoken caches what it reads by its path: with the hash it notices when a file has changed
    vocab_hash, merges_hash = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (vocab_path, merges_path))
    ranks = data_gym_to_mergeable_bpe_ranks(str(merges_path), str(vocab_path), merges_hash, vocab_hash)
    special = {token: i for token, i in json.loads(vocab_path.read_bytes()).items() if token == '<|endoftext|>'}
    return tiktoken.Encoding(str(vocab_path), pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=special)
