"""
Reads a dataset: its text as token ids, and its vocabulary and questions, in data/NAME/.

The files are input.txt, train.bin and val.bin (flat uint16 ids, little-endian, as everywhere in the nanoGPT family) and
meta.pkl, a dict of vocab_size, stoi, itos, cases (tuples task, prompt, answer, held_out) and terminators (dict of task
to str). common/prepare.py writes them.
"""

import hashlib
import os
import pickle
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError, did_you_mean, explained, say
from common.files import write_file
from common.questions import FACT_END, Question, check_questions, paper_questions
from common.tokenizer import Tokenizer, char_tokenizer, gpt2_tokenizer

DATA = Path(__file__).absolute().parents[1] / 'data'
SEARCHED = 2_000_000  # the paper's questions are looked for in this many tokens of a text that brings none
CASE_OF = {'seen': False, 'held out': True, 'beyond': None}  # a question's group as the held_out of a case in meta.pkl
FACT_ENDS = (FACT_END, '\n', ' \r\n', '\r\n')  # how others may end the paper's facts
PAPER_BLOCK_SIZE = 24  # the paper's for capitals, although some of their lines are longer
PAPER_TERMINATORS = {'add': '>', 'sub': '>', 'facts': FACT_END}  # for meta.pkl files that do not name them


class Meta(NamedTuple):
    tokenizer: Tokenizer
    questions: list  # of Question
    has_questions: bool  # False if the dataset has none and gets the paper's


def check_text(text, questions, name):
    """Raise UserError unless the text holds the line of every training question, and of no other.

    A line may stand anywhere, but not in the middle of a number or a word: 0*0=0 is not in 10*0=0.
    """
    firsts = ''.join({q.prompt[0] for q in questions})
    # (?<!\w\w): the second of these is the line's first character itself
    starts = [match.start() for match in re.finditer(rf'[{re.escape(firsts)}](?<!\w\w)', text)] if firsts else []
    found = {text[i:i + length] for length in {len(q.line) for q in questions} for i in starts}
    for q in questions:
        if (q.line in found) != (q.group == 'seen'):
            fault = "does not contain" if q.group == 'seen' else "contains"
            group = "training" if q.group == 'seen' else "held-out"
            raise UserError(f"the text of {name} {fault} {q.line!r}, a {group} question: correct its prepare.py and "
                            "run it again")


def questions_about(text, questions):
    """Those of the paper's questions that a model of a text without questions of its own can be evaluated on.

    A question whose line is in the text is seen, even if the paper holds it out. Of the others only those are kept that
    the paper holds out, if the text has any question of their task. Facts end as the lines of the text do.
    """
    facts = [q.prompt + q.answer for q in questions if q.task == 'facts']
    end = next((end for end in FACT_ENDS if any(fact + end in text for fact in facts)), FACT_END)
    questions = [q._replace(terminator=end) if q.task == 'facts' else q for q in questions]
    found = {q for q in questions if q.line in text}
    tasks = {q.task for q in found}
    return [q._replace(group='seen') if q in found else q for q in questions
            if q in found or (q.group == 'held out' and q.task in tasks)]


def block_size_for(questions):
    """The context that a whole line of each question needs, its newline included; for capitals at most the paper's."""
    lengths = [(q.task, len(q.line.rstrip('\n')) + 1) for q in questions]
    return max((min(length, PAPER_BLOCK_SIZE) if task == 'facts' else length for task, length in lengths), default=0)


def meta_bytes(chars, questions):
    """A meta.pkl: the vocabulary, in the order of its ids, and the questions."""
    return pickle.dumps({
        'vocab_size': len(chars), 'stoi': {ch: i for i, ch in enumerate(chars)}, 'itos': dict(enumerate(chars)),
        'cases': [(q.task, q.prompt, q.answer, CASE_OF[q.group]) for q in questions],
        'terminators': {q.task: q.terminator for q in questions}}, protocol=4)


class PlainUnpickler(pickle.Unpickler):
    """Reads dicts, lists, tuples, strings and numbers; refuses what would import, and so execute, code."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, and only plain dicts, tuples and strings are read")


def load_meta(path, gpt2_folder=None):
    """The Meta of a meta.pkl. Without the file, it is the gpt2_tokenizer of gpt2_folder and the paper's questions.

    nanoGPT's meta.pkl, without questions, gets those of the paper's that it can spell, in the paper's groups.
    """
    path = Path(path)
    if not path.exists():
        return Meta(gpt2_tokenizer(gpt2_folder), paper_questions(), has_questions=False)
    with explained(f"{path} cannot be read ({{}}): run the dataset's prepare.py again, or delete it if it is in a "
                   "model folder"):  # it may be any garbage
        with open(path, 'rb') as f:
            meta = PlainUnpickler(f).load()
        stoi, itos = meta['stoi'], meta['itos']
        if sorted(stoi.values()) != list(range(meta['vocab_size'])) or {i: ch for ch, i in stoi.items()} != dict(itos):
            raise ValueError("stoi, itos and vocab_size disagree")
        if not all(isinstance(ch, str) for ch in stoi):
            raise ValueError("its vocabulary is not made of characters")
        if 'cases' not in meta:
            spelt = [q for q in paper_questions() if set(q.line) <= stoi.keys()]
            return Meta(char_tokenizer(stoi), spelt, has_questions=False)
        terminators = {**PAPER_TERMINATORS, **meta.get('terminators', {})}
        group_of = {held_out: group for group, held_out in CASE_OF.items()}
        questions = [Question(task, prompt, answer, group_of[held_out], terminators.get(task))
                     for task, prompt, answer, held_out in meta['cases']]
        check_questions(questions)
        for q in questions:
            if set(q.line) - stoi.keys():
                raise ValueError(f"its vocabulary cannot spell the question {q.line!r}")
        return Meta(char_tokenizer(stoi), questions, has_questions=True)


def find_meta(dataset):
    """Path of a dataset's meta.pkl; raises UserError if its prepare.py would write one but has not been run."""
    folder = DATA / dataset
    prepare = folder / 'prepare.py'
    if not (folder / 'meta.pkl').exists() and prepare.exists() and b'write_dataset' in prepare.read_bytes():
        raise UserError(f"data/{dataset}/meta.pkl not found: run python data/{dataset}/prepare.py first")
    return folder / 'meta.pkl'


def text_sha256(ids):
    """Hash of a text's ids, by which a resumed run sees whether the text is the same. In pieces, to save memory."""
    digest = hashlib.sha256()
    for start in range(0, len(ids), 1 << 20):
        digest.update(ids[start:start + (1 << 20)].astype('<i8').tobytes())
    return digest.hexdigest()


def read_ids(dataset, name, vocab_size, block_size):
    """The ids of a dataset's train.bin or val.bin, memory-mapped; raises UserError if they cannot be trained on."""
    path, shown = DATA / dataset / name, f'data/{dataset}/{name}'
    if not path.exists():
        raise UserError(f"{shown} not found: prepare data/{dataset} first")
    if path.stat().st_size % 2 or not path.stat().st_size:
        raise UserError(f"{shown} is empty or incomplete: prepare data/{dataset} again")
    ids = np.memmap(path, dtype='<u2', mode='r')
    # the upper halves of int32 or int64; in a text of characters, 0 may also end lines of one character each
    if len(ids) % 2 == 0 and not ids[1:2000:2].any() and (vocab_size > 50000 or not ids[:2000:2].all()):
        raise UserError(f"{shown} has ids of 32 or 64 bits: write it with dtype np.uint16")
    if ids.max() >= vocab_size:
        raise UserError(f"{shown} has token {ids.max()} outside the vocabulary of {vocab_size}: prepare data/{dataset} "
                        "again")
    if len(ids) <= (block_size or 0):
        raise UserError(f"block_size {block_size} is too large for {shown}: use at most {len(ids) - 1}")
    return ids


def hint_of_dataset(dataset):
    """What to do if there is no dataset of this name: which one may be meant, and how others are made."""
    scripted, prepared = ({path.parent.name for path in DATA.glob(f'*/{name}')} for name in ('prepare.py', 'train.bin'))
    names = [*sorted(scripted), *sorted(prepared - scripted)]
    some = f"there are {', '.join(names[:10])}{', ...' * (len(names) > 10)}."
    begun = [name for name in names if name.startswith(f'{dataset}_')]
    hint = f"did you mean {begun[0]}?" if begun else did_you_mean(dataset, names) or some
    return f"{hint} A prepare.py writes others with --name, and study/datasets.py those of the studies"


def load_dataset(dataset, block_size=None, gpt2_folder=None):
    """(Meta, train ids, val ids) of data/`dataset`; the ids are 1-D uint16, memory-mapped.

    A sentence is printed if block_size is too small for the questions. Without questions of its own, the dataset gets
    those of the paper's that its text can answer. gpt2_folder: see load_meta.
    """
    if not dataset or not os.path.isdir(DATA / dataset):
        raise UserError(f"no dataset data/{dataset}: {hint_of_dataset(dataset)}")
    meta = load_meta(find_meta(dataset), gpt2_folder)
    train_ids, val_ids = (read_ids(dataset, name, meta.tokenizer.vocab_size, block_size)
                          for name in ('train.bin', 'val.bin'))
    if not meta.has_questions:
        questions = questions_about(meta.tokenizer.decode(train_ids[:SEARCHED].tolist()), meta.questions)
        if len(train_ids) > SEARCHED:  # what is not in the beginning may stand in the rest
            questions = [q for q in questions if q.group == 'seen']
        return meta._replace(questions=questions), train_ids, val_ids
    text = meta.tokenizer.decode(train_ids.tolist())
    check_text(text, meta.questions, f'data/{dataset}')  # evaluation must never disagree with the data
    needed = block_size_for(meta.questions)
    if block_size and block_size < needed:
        say(f"block_size {block_size} is too small for the questions of data/{dataset}, of which the model may not see "
            f"all: train with --block_size={needed} or more")
    return meta, train_ids, val_ids


def keep_meta(meta, folder):
    """Put vocabulary and questions into a model folder, so that it can be evaluated even if the data changes.

    The encoding of GPT-2 is kept in the files from which it was read, unless it is OpenAI's.
    """
    if not meta.tokenizer.bpe:
        write_file(Path(folder) / 'meta.pkl', meta_bytes(meta.tokenizer.characters, meta.questions))
    for path in meta.tokenizer.files:
        write_file(Path(folder) / path.name, path.read_bytes())


def check_kept_meta(meta, folder):
    """Raise UserError if a model folder has kept other questions."""
    path = Path(folder) / 'meta.pkl'
    if path.exists() and (kept := load_meta(path)).has_questions and kept.questions != meta.questions:
        raise UserError(f"{path} does not match the questions of the dataset: run its prepare.py with the options of "
                        "that time, or start again in another out_dir")
