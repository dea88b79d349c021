"""Writes a dataset from its questions and its text: what the prepare.py scripts share."""

import argparse
import os
import re
import textwrap
from pathlib import Path

import numpy as np

from common.dataset import DATA, block_size_for, check_text, meta_bytes
from common.arguments import argument_parser
from common.errors import UserError, explained
from common.files import write_file
from common.questions import arithmetic_questions, arithmetic_text, check_questions, round_robin_pairs
from common.tokenizer import char_tokenizer


def dataset_name(text):
    """An argparse type: the plain name of a folder in data/ that has no prepare.py."""
    if not text or Path(text).name != text or text.startswith('.') or len(os.fsencode(text)) > 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not the plain name of a folder")
    if (DATA / text / 'prepare.py').exists():
        raise argparse.ArgumentTypeError(f"data/{text} has a prepare.py of its own: choose another name")
    return text


def pair_or_question(text):
    """An argparse type: '5,7', a pair, as (5, 7); '5+7' and '5-7', which are single questions, as they are."""
    match = re.fullmatch(r'(\d+)([,+-])(\d+)', text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a pair of operands like 5,7 nor a question like 5+7")
    a, sign, b = int(match[1]), match[2], int(match[3])
    return (a, b) if sign == ',' else f'{a}{sign}{b}'


def prepare_parser(description, here):
    """An argparse parser for the prepare.py in the folder `here`; DATA / args.name is where to write."""
    parser = argument_parser(description)
    parser.add_argument('--name', type=dataset_name, default=here,  # an absolute path, so DATA / here is here
                        help='write to data/NAME/, not beside this script')
    return parser


def parse_arithmetic(parser):
    """Add the options of arithmetic to a prepare_parser and parse the command line: returns (args, questions, text)."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--held_out', type=pair_or_question, nargs='*', action='extend', metavar='A,B',
                       help='hold out pairs of operands, in both orders of both operations, or single questions like '
                       '5+7 (default: 5,7)')
    which.add_argument('--held_out_rounds', type=int, metavar='K', help='hold out K rounds of a round-robin of the '
                       'operands instead: each operand is in exactly K pairs')
    parser.add_argument('--split_seed', type=int, default=0, metavar='S', help='which round-robin (default: 0)')
    parser.add_argument('--max_operand', type=int, default=9, help='operands are 0..max_operand (default: 9)')
    parser.add_argument('--seed', type=int, default=1337, help='seed for shuffling the lines (default: 1337)')
    args = parser.parse_args()
    n = args.max_operand + 1
    if not 1 <= n <= 1000:
        parser.error(f"--max_operand must be from 0 to 999, not {args.max_operand}")
    if args.held_out_rounds is not None:
        if n % 2:
            parser.error(f"--held_out_rounds needs an even number of operands: --max_operand must be odd, not {n - 1}")
        if not 0 <= args.held_out_rounds < n:
            parser.error(f"--held_out_rounds must be from 0 to {n - 1}, not {args.held_out_rounds}")
        args.held_out = round_robin_pairs(args.split_seed, n)[:args.held_out_rounds * n // 2]
    elif args.held_out is None:
        args.held_out = [(5, 7)]
    largest = max((int(number) for number in re.findall(r'\d+', str(args.held_out))), default=0)
    if largest >= n:
        parser.error(f"--held_out names the operand {largest}, and the operands are 0..{args.max_operand}")
    questions = arithmetic_questions(args.held_out, args.max_operand)
    return args, questions, arithmetic_text(questions, args.seed)


def write_dataset(folder, text, questions):
    """Write a dataset, and print_dataset. folder: e.g. DATA / args.name.

    Train and validation are the same text on purpose, so that memorisation can be measured.
    """
    folder = Path(folder)
    with explained(f"the questions of {folder.name} cannot be used: {{}}", ValueError):
        check_questions(questions)
    if not text:
        raise UserError(f"the text of {folder.name} is empty: hold out fewer questions")
    check_text(text, questions, folder.name)
    chars = sorted(set(text).union(*(q.line for q in questions)))
    ids = np.array(char_tokenizer({ch: i for i, ch in enumerate(chars)}).encode(text), dtype='<u2').tobytes()
    with explained(f"cannot write {folder}: {{}}", OSError):
        folder.mkdir(parents=True, exist_ok=True)
    # the ids come last, because ids without a meta.pkl, which an interrupted call would leave, are GPT-2's
    files = {'meta.pkl': meta_bytes(chars, questions), 'input.txt': text, 'val.bin': ids, 'train.bin': ids}
    for name, content in files.items():
        write_file(folder / name, content)
    print_dataset(text, chars, questions)


def print_dataset(text, chars, questions):
    """What nanoGPT's prepare.py prints, and what to know before training."""
    prompts = [q.prompt.strip('<= ') for q in questions if q.group == 'held out']
    listed = ', '.join(prompts[:8]) + (f" and {len(prompts) - 8} more" if len(prompts) > 8 else '') or 'none'
    last = text.splitlines()[-1]
    print(f"length of dataset in characters: {len(text):,}")
    print('all the unique characters:\n' + re.sub('(.{80})', r'\1\n', repr(''.join(chars))))
    print(f"vocab size: {len(chars):,}\ntrain has {len(text):,} tokens")
    print(f"val has {len(text):,} tokens (the same text, on purpose)")
    print(textwrap.fill(f"questions: {len(questions):,}, held out of the text: {listed}", 80, break_on_hyphens=False))
    print(f"train with --block_size={block_size_for(questions)} or more")
    if text.count(last) == 1:
        print("as in nanoGPT, no training window begins in the last block_size characters,")
        print(textwrap.fill(f"so the last line is learnt less well than others: {last[-60:]!r}", 80,
                            break_on_hyphens=False))
