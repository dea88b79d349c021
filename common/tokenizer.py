"""Characters or GPT-2's byte-pair encoding: text to token ids and back."""

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

    @property
    def characters(self):
        """The vocabulary, in the order of its ids, if it is one of characters."""
        return [self.decode([i]) for i in range(self.vocab_size)]


def char_tokenizer(stoi):
    """The tokenizer of a vocabulary of characters, a dict of character to id."""
    itos = {i: ch for ch, i in stoi.items()}

    def encode(text):
        try:
            return [stoi[ch] for ch in text]
        except KeyError:
            unknown = ', '.join(repr(ch) for ch in dict.fromkeys(text) if ch not in stoi)
            known = ''.join(sorted(stoi))
            raise UserError(f"the model does not know {unknown}: use only its {len(stoi)} characters, {known[:100]!r}"
                            + " and more" * (len(known) > 100))
    return Tokenizer(len(stoi), encode, lambda ids: ''.join(itos[i] for i in ids))


def vocabulary_files(folder):
    """The files of GPT-2's encoding in a folder, in one of the forms that transformers writes; [] if there are none.

    A part of them is refused, because then the encoding is not OpenAI's.
    """
    for names in GPT2_VOCABULARY:
        files = [Path(folder) / name for name in names]
        if all(path.exists() for path in files):
            return files
    for name in ('vocab.json', 'merges.txt', 'tokenizer_config.json'):
        if (Path(folder) / name).exists():
            raise UserError(f"{folder} has a {name}, but neither tokenizer.json nor both vocab.json and merges.txt: "
                            "put the rest of its vocabulary there")
    return []


def gpt2_tokenizer(folder=None):
    """GPT-2's encoding, from vocabulary_files of the folder; without them OpenAI's, which tiktoken downloads once."""
    if files := vocabulary_files(folder) if folder else []:
        return read_vocabulary(files)
    import tiktoken
    with explained("there is no meta.pkl, and GPT-2's vocabulary cannot be loaded through tiktoken ({}): run the "
                   "dataset's prepare.py first, connect to the network once, or put its tokenizer.json there"):
        enc = tiktoken.get_encoding('gpt2')
    return Tokenizer(enc.n_vocab, lambda text: enc.encode(text, allowed_special='all'),
                     # nanoGPT pads the vocabulary to 50304 tokens, and the last of them mean nothing
                     lambda ids: enc.decode([i for i in ids if i < enc.n_vocab]), bpe=True)


def read_vocabulary(files):
    """The Tokenizer of vocabulary_files, by Hugging Face's tokenizers."""
    names = ' and '.join(map(str, files))
    with explained(f"{names} need tokenizers, which cannot be imported ({{}}): pip install transformers", ImportError):
        import tokenizers
    with explained(f"{names} cannot be read ({{}}): they are not of GPT-2's form, or do not belong together"):
        if len(files) == 2:
            enc = tokenizers.ByteLevelBPETokenizer(*map(str, files))
            special = [token for token in ('<|endoftext|>', '<|startoftext|>') if enc.token_to_id(token) is not None]
            enc.add_special_tokens(special)
        else:
            enc = tokenizers.Tokenizer.from_file(str(files[0]))
        enc.no_truncation()
        enc.no_padding()
        if len({*enc.get_vocab().values()}) < len(enc.get_vocab()):
            raise ValueError("two of its tokens have one id")
        # no space may be put before a text, for an answer is one, nor between tokens
        decoded = enc.decode(enc.encode('a b', add_special_tokens=False).ids)
        if decoded != 'a b':
            raise ValueError(f"the text 'a b' is {decoded!r} when it comes back")
        return Tokenizer(1 + max(enc.get_vocab().values()), lambda text: enc.encode(text, add_special_tokens=False).ids,
                         lambda ids: enc.decode(list(ids), skip_special_tokens=False), bpe=True, files=tuple(files))
