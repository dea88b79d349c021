"""The house: imports only go down, nothing imports a script, and nothing below a script ends the program."""

import ast

import pytest
from conftest import REPO

ROOMS = {  # what each may import beside itself: rooms, or single modules
    'common': {'model'}, 'fused': {'common.errors'},
    'data': {'common.dataset', 'common.errors', 'common.prepare', 'common.questions'},
    'study': {'common', 'model'}, 'script': {'common', 'fused', 'model', 'configurator'}, 'model': set(),
    'configurator': {'common.arguments', 'common.errors'}}
SCRIPTS = {path.stem for path in REPO.glob('*.py')} - {'model', 'configurator'}
FREE = {'dev', 'paper'}  # the benchmark and the comparison with the authors train, so they import the training script
FILES = {path.relative_to(REPO): ast.parse(path.read_text(encoding='utf-8'))
         for pattern in ('*.py', 'data/*/prepare.py',
                         *(f'{room}/*.py' for room in ('common', 'fused', 'study', *sorted(FREE))))
         for path in REPO.glob(pattern)}
MODULES = {'.'.join(path.with_suffix('').parts) for path in FILES}


def room_of(path):
    if len(path.parts) > 1:
        return path.parts[0]
    return path.stem if path.stem in ROOMS else 'script'


def imported(tree):
    """Names of the modules that a file imports, at its top or within a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'no relative imports'
            modules = {f'{node.module}.{alias.name}' for alias in node.names} & MODULES
            yield from modules or {node.module}


@pytest.mark.parametrize('path', FILES, ids=str)
def test_imports_only_go_down(path):
    room = room_of(path)
    ours = {name for name in imported(FILES[path]) if name in MODULES}
    assert not [name for name in ours if name.startswith('data.')]
    if room not in FREE:
        assert not ours & SCRIPTS
        allowed = ROOMS[room] | {room}
        assert not [name for name in ours if name not in allowed and name.split('.')[0] not in allowed]


@pytest.mark.parametrize('room', ['common', 'fused', 'study'])
def test_a_room_has_no_circle(room):
    graph = {'.'.join(path.with_suffix('').parts): set(imported(tree))
             for path, tree in FILES.items() if path.parts[0] == room}
    while graph:
        bottom = [module for module, below in graph.items() if not below & graph.keys()]
        assert bottom, f'these import each other: {sorted(graph)}'
        graph = {module: below for module, below in graph.items() if module not in bottom}


@pytest.mark.parametrize('path', [path for path in FILES if room_of(path) in ('common', 'fused', 'model')], ids=str)
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
