"""
Poor man's configurator, after nanoGPT's, with checks: config files are executed, then --key=value overrides.

$ python train_with_eval.py config/override_file.py --batch_size=32
first runs config/override_file.py, then sets batch_size to 32. Config files come first, wherever they stand. A folder
among the arguments is the model folder, which may be called --out_dir or --model_folder as well.

A script's settings are its own module-level variables, so each is written down once, with its default and a comment,
where it is used. Unlike in nanoGPT, a typo in a config file is an error and not a silent no-op: a name that is not a
setting must be used by the file itself, or begin with an underscore. Config files are Python and run with your rights,
so run only those that you trust.
"""

import ast
import difflib
import math
import os
import re
import sys
import textwrap
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from common.errors import UserError, explained, wrapped

# what a script may say of its settings in RANGES: the words of an error, and what must hold
POSITIVE = 'positive', lambda x: x > 0
NOT_NEGATIVE = '0 or more', lambda x: x >= 0
BELOW_ONE = 'at least 0 and below 1', lambda x: 0 <= x < 1
SEED = 'at least 0 and below 2**32', lambda x: 0 <= x < 2**32
TYPES = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'a string'}
PATHS = {'out_dir', 'init_from', 'checkpoint', 'output', 'json'}  # no shell replaces the ~ of --out_dir=~/x, so we do
# what other programs call it
ELSEWHERE = {'lr': 'learning_rate', 'epochs': 'max_iters', 'steps': 'max_iters', 'resume': 'init_from=resume'}


def configure(namespace, ranges=(), argv=None):
    """Override the settings in `namespace` from config files, and then from --key=value arguments.

    namespace: a script's globals(); its settings are the names bound to an int, float, bool or str so far, except those
    that start with an underscore. ranges: dict of settings ('a b') to POSITIVE or the like, or to choices ('auto cpu').
    argv: list of str, default sys.argv[1:]; `--key value` is `--key=value`, and --key alone sets a bool to True. It
    returns the final settings as a dict, and the set of those that were given. --help prints them and exits.
    """
    defaults = {k: v for k, v in namespace.items() if not k.startswith('_') and isinstance(v, (int, float, bool, str))}
    argv = list(sys.argv[1:] if argv is None else argv)
    if {'-h', '--help'} & {*argv}:
        print_help(namespace, defaults)
        sys.exit(0)
    files, folders, overrides = [], [], {}
    while argv:
        arg = argv.pop(0)
        if arg.startswith('-'):
            overrides |= parse_argument(arg, argv, defaults)
        elif '=' in arg and not os.path.exists(arg):
            raise UserError(f"{arg} is not a config file: settings are written with dashes, --{arg}")
        else:
            (folders if os.path.isdir(arg) else files).append(arg)
    for folder in folders:
        if overrides.setdefault('out_dir', folder) != folder:
            raise UserError(f"{overrides['out_dir']} and {folder} are two model folders: name one")
    settings, given = dict(defaults), {*overrides}
    for path in files:
        found = run_config_file(path, settings)
        settings |= typed(found, defaults, ranges, f"in {path}")
        given |= found.keys()
    settings |= typed(overrides, defaults, ranges, "on the command line")
    check_ranges(settings, ranges)
    namespace.update(settings)
    return settings, given


def adopt(namespace, settings, given, before, ranges):
    """Make settings that were not given those of `before`, e.g. of the run that is resumed; returns the final settings.

    namespace, ranges: as for configure, which returned settings and given. before: dict; other names in it are ignored.
    """
    kept = {key: before[key] for key in settings.keys() & before.keys() - given}
    settings = settings | typed(kept, settings, ranges, "in the checkpoint")
    check_ranges(settings, ranges)
    namespace.update(settings)
    return settings


def check_ranges(settings, ranges):
    """Raise UserError if a setting is not what the ranges say of it."""
    for keys, allowed in dict(ranges).items():
        choices = allowed.split() if isinstance(allowed, str) else ()
        words, holds = (' or '.join(choices), choices.__contains__) if choices else allowed
        for key in keys.split():
            if not holds(settings[key]):
                raise UserError(f"{key} must be {words}, not {settings[key]!r}")


def parse_argument(arg, argv, defaults):
    """The setting of --key=value, --key value or --key, as a dict. argv: the arguments that follow."""
    key, equals, text = arg.lstrip('-').partition('=')
    key = 'out_dir' if key == 'model_folder' else key
    if key not in defaults:
        raise unknown(key, defaults, "on the command line")
    if not equals and isinstance(defaults[key], bool):
        text = argv.pop(0) if argv and argv[0].lower() in ('true', 'false') else 'True'
    elif not equals:
        if not argv or argv[0].startswith('--'):
            raise UserError(f"{arg} has no value: write --{key}=value")
        text = argv.pop(0)
    return {key: text}


def run_config_file(path, settings):
    """Execute a config file on a copy of the settings; returns those that it sets, and refuses what looks misspelt."""
    with explained(f"{path} cannot be read as a config file or a model folder: {{}}", OSError, UnicodeDecodeError):
        source = Path(path).read_text(encoding='utf-8-sig')  # -sig: Windows' Notepad writes a byte-order mark
    scope = {**settings, '__file__': path}
    try:
        exec(compile(source, path, 'exec'), scope)
    except Exception as e:
        lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == path]
        line = e.lineno if isinstance(e, SyntaxError) else lines[-1] if lines else 0
        raise UserError(f"config file {path}, line {line}: {type(e).__name__}: {getattr(e, 'msg', e)}")
    names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    stored, read = ({node.id for node in names if isinstance(node.ctx, kind)} for kind in (ast.Store, ast.Load))
    for key, value in scope.items():
        if key in settings or key.startswith('_') or callable(value) or isinstance(value, ModuleType):
            continue
        if key not in read or difflib.get_close_matches(key, settings):
            raise unknown(key, settings, f"in {path}", " (a name of your own may begin with an underscore)")
    return {key: scope[key] for key in settings if key in scope and (key in stored or scope[key] is not settings[key])}


def unknown(key, settings, where, advice=""):
    """A UserError for a name that is no setting."""
    near = difflib.get_close_matches(key, settings)
    if key in ELSEWHERE and 'max_iters' in settings:
        near = [ELSEWHERE[key]]
    hint = f"did you mean {near[0]}?" if near else "--help lists all settings"
    return UserError(f"unknown setting {key!r} {where}: {hint}{advice}")


def typed(found, defaults, ranges, where):
    """The settings that were found, each in the type of its default if its meaning is clear: 1 is 1.0, 0 is False."""
    settings = {}
    for key, value in found.items():
        wanted = type(defaults[key])
        if 'True' in dict(ranges).get(key, '') and str(value).lower() in ('true', 'false'):  # among other choices
            value = str(value).capitalize()
        if isinstance(value, str) and wanted is not str:  # from the command line; a literal that is none stays a str
            with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                value = ast.literal_eval(value.title())
        if wanted is int and isinstance(value, (int, float)) and abs(value) >= 2**53:
            raise UserError(f"{key} is too large: {value} {where}")
        with suppress(TypeError, ValueError, OverflowError):
            same_kind = isinstance(value, str) == (wanted is str) and (wanted is bool or not isinstance(value, bool))
            if same_kind and wanted(value) == value and (wanted is not float or math.isfinite(value)):
                settings[key] = wanted(value)
        if key not in settings:
            raise UserError(f"{key} must be {TYPES[wanted]}, not {value!r} {where}")
        if key in PATHS:
            settings[key] = os.path.expanduser(settings[key])
    return settings


def print_help(namespace, settings):
    """The script's docstring, then every setting with its default and the comment beside it in the source."""
    source = Path(namespace['__file__']).read_text(encoding='utf-8')
    comments = dict(re.findall(r'^(\w+) = .*?  # (.*)$', source, re.MULTILINE))
    print(wrapped(namespace['__doc__']), end='\n\n')
    print('settings (--key=value) and their defaults:')
    for key, value in settings.items():
        line = f"  --{key}={value!r}".ljust(32) + f"  {comments.get(key, '')}"
        print(textwrap.fill(line, 80, subsequent_indent=' ' * 34, drop_whitespace=True, break_on_hyphens=False))


def settings_of(script, argv):
    """The settings with which `script` would run with these arguments: a dict. The script's own head is executed.

    The head ends at the first `if __name__`, and holds the settings and their RANGES.
    """
    head = Path(script).read_text(encoding='utf-8').split('\nif __name__')[0]
    namespace = {'__name__': 'head', '__file__': str(script)}
    exec(compile(head, str(script), 'exec'), namespace)
    return configure(namespace, namespace['RANGES'], argv)[0]
