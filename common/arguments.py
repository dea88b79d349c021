"""The options of scripts that have no settings: argparse, with the script's docstring as its --help."""

import argparse
import os
import textwrap
from pathlib import Path


def wrapped(docstring):
    """A script's docstring for --help in 80 columns; its commands are left as they are."""
    paragraphs = (docstring or '').strip().split('\n\n')  # python -OO has no docstrings
    return '\n\n'.join(text if text.startswith('$') else textwrap.fill(text, 80) for text in paragraphs)


def argument_parser(docstring):
    parser = argparse.ArgumentParser(description=wrapped(docstring), allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    # of arguments without a type, and of paths: no shell replaces ~ behind a =
    parser.register('type', None, os.path.expanduser)
    parser.register('type', Path, lambda text: Path(text).expanduser())
    return parser


def add_model_folders(parser):
    """Let an ArgumentParser take model folders; model_folders(args) has them."""
    parser.add_argument('folders', nargs='*', metavar='F', help='model folders')
    parser.add_argument('--model_folder', '--out_dir', nargs='+', action='extend', default=[], metavar='F',
                        help='the same as F')


def model_folders(args):
    return [folder for folder in args.folders + args.model_folder if not folder.endswith('.log')]  # of seed_*
