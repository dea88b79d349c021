"""The house: imports only go down, no room imports a script, and nothing below a script ends the program."""

import ast

import pytest
from conftest import REPO

SCRIPTS = {path.stem for path in REPO.glob('*.py')} - {'model', 'configurator'}
ROOMS = {f'common.{path.stem}' for path in REPO.glob('common/*.py')}
FILES = {path.relative_to(REPO): ast.parse(path.read_text())
         for pattern in ('*.py', 'common/*.py', 'data/*/prepare.py', 'dev/*.py')
         for path in REPO.glob(pattern)}


def imported(tree):
    """Names of the modules that a file imports, at its top or within a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'no relative imports'
            yield node.module
            yield from (f'{node.module}.{alias.name}' for alias in node.names if f'{node.module}.{alias.name}' in ROOMS)


@pytest.mark.parametrize('path', FILES, ids=str)
def test_imports_only_go_down(path):
    names = set(imported(FILES[path]))
    ours = {name for name in names if name in ROOMS | SCRIPTS | {'model', 'configurator'}}
    assert not [name for name in names if name.split('.')[0] in ('data', 'tests', 'config') or name.endswith('prepare')]
    if path.parts[0] == 'model.py':
        assert not ours
    elif path.parts[0] == 'common':
        assert ours <= ROOMS | {'model'}
    elif path.parts[0] == 'data':
        assert ours <= {'common.dataset', 'common.questions'}
    elif path.parts[0] == 'configurator.py':
        assert ours <= {'common.errors'}
    elif path.parts[0] != 'dev':  # the benchmark and the tests import the training step, which no script does
        assert not ours & SCRIPTS


def test_the_rooms_have_no_circle():
    graph = {f'common.{path.stem}': {name for name in imported(tree) if name in ROOMS}
             for path, tree in FILES.items() if path.parts[0] == 'common'}
    while graph:
        bottom = [room for room, below in graph.items() if not below & graph.keys()]
        assert bottom, f'these import each other: {sorted(graph)}'
        graph = {room: below for room, below in graph.items() if room not in bottom}


@pytest.mark.parametrize('path', [path for path in FILES if path.parts[0] in ('common', 'model.py')], ids=str)
def test_nothing_below_a_script_ends_the_program_or_catches_its_end(path):
    for node in ast.walk(FILES[path]):
        assert not (isinstance(node, ast.Attribute) and node.attr == 'exit'), f'line {node.lineno}: exit'
        is_end = isinstance(node, ast.Name) and node.id in ('SystemExit', 'exit', 'quit')
        assert not is_end, f'line {node.lineno}: {node.id}'


def test_the_libraries_that_are_optional_are_imported_only_if_they_are_used():
    for path, tree in FILES.items():
        at_top = {name.split('.')[0] for node in tree.body for name in imported(ast.Module([node], []))
                  if not isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert not at_top & {'transformers', 'wandb', 'submitit', 'tiktoken'}, path
