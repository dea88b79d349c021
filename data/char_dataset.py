"""
What the prepare.py scripts share: a text and its questions become a character-level dataset on disk.
"""

import pickle
import sys
from array import array
from pathlib import Path

from atomic_io import atomic_open


def write_dataset(folder, text, cases):
    """Write input.txt, train.bin, val.bin and meta.pkl into `folder`, and print what nanoGPT's prepare.py prints.

    folder: path, of an existing folder. text: str; train and validation are the same text on purpose, so that
    memorisation can be measured. cases: list of (task, prompt, answer, held_out), the questions that the evaluation asks.
    The .bin files are flat uint16 token ids, little-endian as everywhere in the nanoGPT family.
    """
    folder = Path(folder)
    for _, prompt, answer, held_out in cases:
        if held_out and prompt + answer in text:
            sys.exit(f"error: the text holds {prompt + answer!r}, which is to be held out")
    chars = sorted(set(text).union(*(prompt + answer for _, prompt, answer, _ in cases)))
    stoi = {ch: i for i, ch in enumerate(chars)}
    itos = {i: ch for i, ch in enumerate(chars)}
    ids = array('H', [stoi[ch] for ch in text])
    if sys.byteorder == 'big':
        ids.byteswap()
    meta = {'vocab_size': len(chars), 'stoi': stoi, 'itos': itos, 'cases': cases}
    contents = {
        'input.txt': text.encode(),
        'train.bin': ids.tobytes(),
        'val.bin': ids.tobytes(),
        'meta.pkl': pickle.dumps(meta, protocol=4),
    }
    try:
        for name, content in contents.items():
            with atomic_open(folder / name, 'wb') as f:
                f.write(content)
    except OSError as e:
        sys.exit(f"error: cannot write {folder / name}: {e.strerror}")

    held_out = [prompt.strip('<=') for _, prompt, _, held in cases if held]
    print(f"length of dataset in characters: {len(text):,}")
    print(f"all the unique characters: {''.join(chars)!r}")
    print(f"vocab size: {len(chars):,}")
    print(f"train has {len(ids):,} tokens")
    print(f"val has {len(ids):,} tokens (the same text, on purpose)")
    sums = [line for line in text.split('\n') if line.startswith('<')]
    if sums:
        print(f"a sum takes {len(sums[0]) + 1} characters with its newline: --block_size must hold that")
    print(f"questions: {len(cases):,}, held out of the text: {', '.join(held_out) if held_out else 'none'}")
