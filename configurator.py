"""
Poor man's configurator, after nanoGPT's: config files are executed, then --key=value overrides.

$ python train_with_eval.py config/override_file.py --batch_size=32

A script's settings are its own module-level variables, so each is written down once, with its default and a comment,
where it is used. Config files come first, wherever they stand; a folder among the arguments is the model folder,
--out_dir. Unlike in nanoGPT, a typo is an error: a name in a config file that is no setting must be used by the file
itself, or begin with an underscore. Config files are Python and run with your rights, so run only those that you trust.
"""

import ast
import math
import os
import re
import sys
import textwrap
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from common.arguments import wrapped
from common.errors import UserError, did_you_mean, explained

TYPES = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'a string'}
PATHS = {'out_dir', 'init_from', 'checkpoint', 'output', 'json'}  # no shell replaces the ~ of --out_dir=~/x, so we do
# what other programs call it
ELSEWHERE = {'lr': 'learning_rate', 'epochs': 'max_iters', 'steps': 'max_iters', 'resume': 'init_from=resume',
             'wd': 'weight_decay', 'num_epochs': 'max_iters', 'save_dir': 'out_dir', 'd_model': 'n_embd',
             'bs': 'batch_size'}


def configure(namespace, ranges, argv=None):
    """Override a script's settings from config files, then --key=value; returns them all, and the names of those given.

    namespace: the script's globals(), of which every int, float, bool or str without an underscore is a setting.
    ranges: dict of settings ('a b') to (lowest, below what), or to choices ('auto cpu'). argv: list of str, default
    sys.argv[1:].
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
        if os.path.abspath(overrides.setdefault('out_dir', folder)) != os.path.abspath(folder):
            raise UserError(f"{overrides['out_dir']} and {folder} are two model folders: name one")
    settings, given = dict(defaults), {*overrides}
    for path in files:
        found = run_config_file(path, settings)
        settings |= checked(found, defaults, ranges, f"in {path}")
        given |= found.keys()
    settings |= checked(overrides, defaults, ranges, "on the command line")
    namespace.update(settings)
    return settings, given


def inherit_settings(namespace, settings, given, of_run, ranges):
    """Let the settings that were not given be those of a run; returns the final settings.

    namespace, ranges: as for configure, which returned settings and given. of_run: dict; other names in it are ignored.
    """
    kept = {key: of_run[key] for key in settings.keys() & of_run.keys() - given}
    settings = settings | checked(kept, settings, ranges, "in the checkpoint")
    namespace.update(settings)
    return settings


def parse_argument(arg, argv, defaults):
    """{key: text} of --key=value, of --key value, or of --key alone, which is True. argv: the arguments that follow."""
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
    if not os.path.lexists(path):
        configs = [str(file) for file in Path(path).parent.glob('*.py')] if path.endswith('.py') else []
        hint = did_you_mean(path, configs) or "check its name"
        raise UserError(f"{path} is neither a config file nor a model folder: {hint}")
    with explained(f"{path} cannot be read as a config file: {{}}", OSError, UnicodeDecodeError):
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
        if key not in read or did_you_mean(key, settings):
            raise unknown(key, settings, f"in {path}", " (a name of your own may begin with an underscore)")
    return {key: scope[key] for key in settings if key in scope and (key in stored or scope[key] is not settings[key])}


def unknown(key, settings, where, advice=""):
    hint = did_you_mean(key, settings) or "--help lists all settings"
    if key in ELSEWHERE and 'max_iters' in settings:
        hint = f"did you mean {ELSEWHERE[key]}?"
    return UserError(f"unknown setting {key!r} {where}: {hint}{advice}")


def checked(found, defaults, ranges, where):
    """The settings that were found, in the type of their default if that is clear (1 is 1.0), and in their range."""
    allowed = {key: limits for keys, limits in ranges.items() for key in keys.split()}
    settings = {}
    for key, value in found.items():
        wanted, limits = type(defaults[key]), allowed.get(key, (-math.inf, math.inf))
        if isinstance(limits, str):
            choices = {choice.lower(): choice for choice in limits.split()}
            if str(value).lower() not in choices:
                raise UserError(f"{key} must be {' or '.join(choices.values())}, not {value!r} {where}")
            settings[key] = choices[str(value).lower()]
            continue
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
        if wanted in (int, float) and not limits[0] <= settings[key] < limits[1]:
            below = f" and below {limits[1]}" if limits[1] < math.inf else ""
            at_least = "above 0" if limits[0] == sys.float_info.min else f"at least {limits[0]}"
            raise UserError(f"{key} must be {at_least}{below}, not {value!r} {where}")
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
    """The settings with which `script` would run: a dict. Its head, up to the first `if __name__`, is executed."""
    head = Path(script).read_text(encoding='utf-8').split('\nif __name__')[0]
    namespace = {'__name__': 'head', '__file__': str(script)}
    exec(compile(head, str(script), 'exec'), namespace)
    return configure(namespace, namespace['RANGES'], argv)[0]
