"""
Poor man's configurator, after nanoGPT's, with checks: a config file is executed, then --key=value overrides.

$ python train_with_eval.py config/override_file.py --batch_size=32
first runs config/override_file.py, then sets batch_size to 32.

A script's settings are its own module-level variables, so each is written down once, with its default and a comment,
where it is used. Unlike in nanoGPT, a typo in a config file is an error and not a silent no-op: a name that is not a
setting must be used by the file itself, or begin with an underscore. Config files are Python and run with your rights, so
run only those that you trust.
"""

import ast
import difflib
import math
import os
import re
import sys
import textwrap
import traceback
from pathlib import Path
from types import ModuleType

from common.errors import UserError, explained, wrapped

CHECKS = {'positive': ('positive', lambda x: x > 0), 'not_negative': ('0 or more', lambda x: x >= 0),
          'seeds': ('at least 0 and below 2**32', lambda x: 0 <= x < 2**32),
          'threads': ('0 to 1024', lambda x: 0 <= x <= 1024),
          'below_one': ('at least 0 and below 1', lambda x: 0 <= x < 1)}


def configure(namespace, argv=None, **ranges):
    """Override the settings in `namespace` from config files and --key=value arguments, in order.

    namespace: a script's globals(); its settings are the names bound to an int, float, bool or str so far, except those
    that start with an underscore. argv: list of str, default sys.argv[1:]; `--key value` is `--key=value`, and --key alone
    sets a bool to True. ranges: see check_ranges. Returns the final settings as a dict, and the set of those that were
    given. --help prints them and exits. Raises UserError on bad input.
    """
    settings = {k: v for k, v in namespace.items() if not k.startswith('_') and isinstance(v, (int, float, bool, str))}
    given = set()
    argv = list(sys.argv[1:] if argv is None else argv)
    while argv:
        arg = argv.pop(0)
        if arg in ('-h', '--help'):
            print_help(namespace, settings)
            sys.exit(0)
        if arg.startswith('-'):
            overrides, where = parse_argument(arg, argv, settings), " on the command line"
        elif os.path.isdir(arg):
            raise UserError(f"{arg} is a folder, not a config file: if it is a model folder, write --out_dir={arg}")
        elif '=' in arg and not os.path.exists(arg):
            raise UserError(f"{arg} is not a config file: settings are written with dashes, --{arg}")
        else:
            overrides, where = run_config_file(arg, settings), f" in {arg}"
        for key, value in overrides.items():
            if key not in settings:
                near = nearest(key, settings)
                hint = f"did you mean {near}?" if near else "--help lists all settings"
                hint += " (a name of your own in a config file may begin with an underscore)" if arg[0] != '-' else ""
                raise UserError(f"unknown setting {key!r}{where}: {hint}")
            settings[key] = coerce(key, value, settings[key], where)
            given.add(key)
    if settings.get('init_from') == 'resume':
        ranges.pop('increasing', None)  # this is for the run's own settings to decide, see adopt
    check_ranges(settings, **ranges)
    namespace.update(settings)
    return settings, given


def adopt(namespace, settings, given, own, **ranges):
    """Make settings that were not given those of `own`, e.g. of the run that is resumed; returns the final settings.

    namespace, ranges: as for configure, which returned settings and given. own: dict; other names in it are ignored.
    """
    own = {key: coerce(key, own[key], settings[key], " in the checkpoint") for key in settings.keys() & own.keys() - given}
    settings = {**settings, **own}
    check_ranges(settings, **ranges)
    namespace.update(settings)
    return settings


def check_ranges(settings, choices=(), increasing=(), **ranges):
    """Raise UserError if a setting is out of its range: positive='a b', not_negative='c', below_one='d', seeds='e'.

    choices: dict of a setting to its possible values, e.g. {'dtype': 'auto float32'}. increasing: dict of a bool to two
    settings, of which the second must be greater if the bool is True.
    """
    for name, keys in ranges.items():
        words, holds = CHECKS[name]
        for key in keys.split():
            if not holds(settings[key]):
                raise UserError(f"{key} must be {words}, not {settings[key]}")
    for key, values in dict(choices).items():
        if settings[key] not in values.split():
            raise UserError(f"{key} must be {' or '.join(values.split())}, not {settings[key]!r}")
    for switch, keys in dict(increasing).items():
        low, high = keys.split()
        if settings[switch] and settings[high] <= settings[low]:
            raise UserError(f"{high} ({settings[high]}) must be greater than {low} ({settings[low]})")


def parse_argument(arg, argv, settings):
    """The setting of --key=value, --key value or --key, as a dict. argv: the arguments that follow."""
    key, equals, value = arg.lstrip('-').partition('=')
    if not equals and isinstance(settings.get(key), bool):
        value = argv.pop(0) if argv and argv[0].lower() in ('true', 'false') else 'True'
    elif not equals and argv and not argv[0].startswith('--') and key in settings:
        value = argv.pop(0)
    elif not equals and key in settings:
        raise UserError(f"{arg} has no value: write --{key}=value")
    return {key: parse(value, settings.get(key))}


def run_config_file(path, settings):
    """Execute a config file on a copy of the settings; returns those it sets, and names that look like misspelt ones."""
    with explained(f"cannot read config file {path}: {{}}", OSError, UnicodeDecodeError):
        source = Path(path).read_text(encoding='utf-8-sig')  # -sig: Windows' Notepad begins a file with a byte-order mark
    scope = {**settings, '__file__': path}
    try:
        exec(compile(source, path, 'exec'), scope)
    except Exception as e:
        lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == path]
        line = e.lineno if isinstance(e, SyntaxError) else lines[-1] if lines else 0
        message = e.msg if isinstance(e, SyntaxError) else e
        raise UserError(f"config file {path}, line {line}: {type(e).__name__}: {message}")
    nodes = list(ast.walk(ast.parse(source)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    stored = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    # A plain value is a helper if the file itself reads it or counts a loop with it; otherwise it was meant as a setting.
    helpers = {node.id for node in names if isinstance(node.ctx, ast.Load)}
    helpers |= {name.id for node in nodes if isinstance(node, ast.For) for name in ast.walk(node.target)
                if isinstance(name, ast.Name)}

    def is_meant(key, value):
        if key in settings:
            return key in stored or value is not settings[key]
        if key.startswith('_') or callable(value) or isinstance(value, ModuleType):
            return False
        return nearest(key, settings) or isinstance(value, (int, float, str)) and key not in helpers
    return {key: value for key, value in scope.items() if is_meant(key, value)}


def parse(value, default):
    """A command-line value as Python would read it, or unchanged if it is not a literal or a str is wanted."""
    if isinstance(default, bool) and value.lower() in ('true', 'false'):
        return value.lower() == 'true'
    if default == 'auto' and value.lower() in ('true', 'false'):
        return value.capitalize()
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
    return value if isinstance(default, str) and not isinstance(literal, str) else literal


def coerce(key, value, default, where):
    """`value` in the type of `default` if its meaning is clear: 1 for 1.0, 0 for False, 1e3 for 1000, a Path for a str."""
    wanted = type(default)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif default == 'auto' and isinstance(value, bool):  # a choice of auto, True and False
        value = str(value)
    elif type(value).__module__ == 'numpy' and getattr(value, 'ndim', 1) == 0:
        value = value.item()
    if wanted is int and isinstance(value, (int, float)) and abs(value) >= 2**53:
        raise UserError(f"{key} is too large: {value}{where}")
    if type(value) is wanted and not (wanted is float and not math.isfinite(value)):
        return value
    if wanted is bool and type(value) is int and value in (0, 1):
        return bool(value)
    if wanted is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if wanted is int and type(value) is float and value.is_integer():
        return int(value)
    names = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'a string'}
    raise UserError(f"{key} must be {names[wanted]}, not {value!r}{where}")


def nearest(key, settings):
    return next(iter(difflib.get_close_matches(key, settings, n=1)), None)


def print_help(namespace, settings):
    """The script's docstring, then every setting with its value so far and the comment beside it in the source."""
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
    return configure(namespace, argv, **namespace['RANGES'])[0]
