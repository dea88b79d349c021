"""
Poor man's configurator, after nanoGPT's, with checks: a config file is executed, then --key=value overrides.

$ python train_with_eval.py config/override_file.py --batch_size=32
first runs config/override_file.py, then sets batch_size to 32.

A script's settings are its own module-level variables, so each is written down once, with its default and a comment,
where it is used. Unlike nanoGPT's, a config file may set nothing else: a typo in it is an error, not a silent no-op.
Config files are Python and run with your rights: run only those you trust.
"""

import ast
import difflib
import math
import re
import sys
import traceback
from types import ModuleType


def configure(namespace, argv=None):
    """Override the settings in `namespace` from config files and --key=value arguments, in order.

    namespace: a script's globals(); its settings are the names bound to an int, float, bool or str so far, except
    those that start with an underscore. argv: list of str, default sys.argv[1:].
    Returns the final settings as a dict. Exits with one sentence on bad input; --help prints all settings and exits.
    """
    settings = {k: v for k, v in namespace.items() if not k.startswith('_') and isinstance(v, (int, float, bool, str))}
    for arg in sys.argv[1:] if argv is None else argv:
        if arg in ('-h', '--help'):
            print_help(namespace, settings)
            sys.exit(0)
        if not arg.startswith('-'):
            overrides = run_config_file(arg, settings)
            where = f" in {arg}"
        elif '=' not in arg:
            key = arg.lstrip('-')
            known = key if key in settings else nearest(key, settings)
            sys.exit(f"error: {arg} has no value: write --{known or 'key'}=value")
        else:
            key, value = arg.lstrip('-').split('=', 1)
            overrides = {key: parse(value, settings.get(key))}
            where = " on the command line"
        for key, value in overrides.items():
            if key not in settings:
                near = nearest(key, settings)
                hint = f"did you mean {near}?" if near else "--help lists all settings"
                sys.exit(f"error: unknown setting {key!r}{where}: {hint}")
            settings[key] = coerce(key, value, settings[key], where)
    namespace.update(settings)
    return settings


def settings_of(script, argv):
    """The settings with which `script` would run, read from its source without running it: a dict.

    script: path of a script that calls configure(globals()). argv: list of str. Exits as configure does on bad input.
    """
    with open(script, encoding='utf-8') as f:
        tree = ast.parse(f.read())
    namespace = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if isinstance(node.value, ast.Call):
                break  # config = configure(globals()): the settings stand before it
            namespace[node.targets[0].id] = ast.literal_eval(node.value)
    return configure(namespace, argv)


def run_config_file(path, settings):
    """Execute a config file on a copy of the settings; returns those it set (unknown names too)."""
    try:
        with open(path, encoding='utf-8') as f:
            source = f.read()
    except (OSError, UnicodeDecodeError) as e:
        sys.exit(f"error: cannot read config file {path}: {getattr(e, 'strerror', None) or 'it is not UTF-8 text'}")
    scope = dict(settings)
    try:
        exec(compile(source, path, 'exec'), scope)
    except Exception as e:
        lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == path]
        line = e.lineno if isinstance(e, SyntaxError) else lines[-1] if lines else 0
        message = e.msg if isinstance(e, SyntaxError) else e
        sys.exit(f"error: config file {path}, line {line}: {type(e).__name__}: {message}")
    return {k: v for k, v in scope.items()
            if not k.startswith('_') and not isinstance(v, ModuleType) and (k not in settings or v is not settings[k])}


def parse(value, default):
    """A command-line value as Python would read it; as it stands where that is no literal or a str is wanted."""
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
    return value if isinstance(default, str) and not isinstance(literal, str) else literal


def coerce(key, value, default, where):
    """`value` in the type of `default`, where its meaning is plain: 1 for 1.0, 0 for False, 1e3 for 1000."""
    wanted = type(default)
    if type(value) is wanted and not (wanted is float and not math.isfinite(value)):
        return value
    if wanted is bool and type(value) is int and value in (0, 1):
        return bool(value)
    if wanted is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if wanted is int and type(value) is float and value.is_integer():
        return int(value)
    names = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'a string'}
    sys.exit(f"error: {key} must be {names[wanted]}, not {value!r}{where}")


def nearest(key, settings):
    return next(iter(difflib.get_close_matches(key, settings, n=1)), None)


def print_help(namespace, settings):
    """The script's docstring, then every setting with its default and the comment beside it in the source."""
    with open(namespace['__file__'], encoding='utf-8') as f:
        comments = dict(re.findall(r'^(\w+) = .*?  # (.*)$', f.read(), re.MULTILINE))
    print(namespace['__doc__'].strip())
    print('\nsettings (--key=value) and their defaults:')
    for key, value in settings.items():
        print(f"  --{key + '=' + repr(value):<36} {comments.get(key, '')}".rstrip())
