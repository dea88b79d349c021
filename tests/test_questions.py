"""Questions: what is asked, which are held out, and what counts as right, by the rules of the paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.questions import (
    FACT_END,
    Question,
    arithmetic_questions,
    arithmetic_text,
    check_question,
    completion_of,
    facts_questions,
    is_right,
    operand_names,
    operands,
    paper_questions,
    round_robin_pairs,
)


@pytest.mark.parametrize('task, answer, completion, right', [
    ('add', '12', '12', True), ('add', '12', '12> ', True), ('add', '12', ' 12', True), ('add', '12', '012', True),
    ('add', '12', '1', False), ('add', '12', '123', False), ('add', '12', '', False), ('add', '12', '+12', False),
    ('sub', '-2', '-2>', True), ('sub', '-2', '2', False), ('sub', '-2', '--2', False), ('sub', '2', '2-2', True),
    ('facts', 'Paris', 'Paris ', True), ('facts', 'Paris', 'paris.', True),
    ('facts', 'Paris', ' PARIS . \nCapital', True),
    ('facts', 'Paris', 'Pari', False), ('facts', 'Mexico City', 'Mexico', False), ('facts', 'Paris', 'Parisa', False),
])
def test_scoring_follows_the_paper(task, answer, completion, right):
    question = Question(task, 'prompt', answer, 'seen', FACT_END if task == 'facts' else '>')
    assert is_right(question.answer, question.terminator, completion) == right


@pytest.mark.parametrize('answer, terminator, kind', [
    ('12', '>', 'math'), ('-2', ';', 'math'), ('0', ' ', 'math'), ('1066', '\n', 'facts'), ('12', FACT_END, 'facts'),
    ('12', '> \n', 'math'), ('12', '>\n', 'math'), ('12', ' .\n', 'math'), ('12', '\n>', 'facts'),
    ('Paris', '> \n', 'facts'),
    ('Paris', '>', 'facts'), ('1.5', '>', 'facts'), ('--2', '>', 'facts'), ('', '>', 'facts'), ('١٢', '>', 'facts'),
])
def test_a_question_is_math_if_its_answer_is_a_number_within_a_line(answer, terminator, kind):
    assert Question('any name', 'prompt', answer, 'seen', terminator).kind == kind


@given(st.text(max_size=12))
def test_any_completion_can_be_scored(completion):
    for question in (Question('add', '<1+1=', '2'),
                     Question('facts', 'Capital of France is ', 'Paris', 'seen', FACT_END)):
        assert is_right(question.answer, question.terminator, completion) in (True, False)


def test_the_papers_questions_are_a_whole_grid_for_each_operation_and_fifty_capitals():
    questions = paper_questions()
    assert [sum(q.task == task for q in questions) for task in ('add', 'sub', 'facts')] == [100, 100, 50]
    assert [q.prompt for q in questions if q.group == 'held out'] == ['<5+7=', '<7+5=', '<5-7=', '<7-5=']
    assert {q.kind for q in questions[:200]} == {'math'} and {q.kind for q in facts_questions()} == {'facts'}


@given(max_operand=st.integers(1, 30), seed=st.integers(0, 2**32), data=st.data())
def test_text_holds_every_seen_line_once_and_no_held_out_one(max_operand, seed, data):
    operand = st.integers(0, max_operand)
    held_out = data.draw(st.lists(st.tuples(operand, operand), max_size=3))
    questions = arithmetic_questions(held_out, max_operand)
    assert len(questions) == 2 * (max_operand + 1) ** 2
    if all(q.group == 'held out' for q in questions):
        return
    text = arithmetic_text(questions, seed)
    lines = text.split('\n')[:-1]
    assert len({len(line) for line in lines}) == 1
    seen = [q.prompt + q.answer + '>' for q in questions if q.group == 'seen']
    assert sorted(line.rstrip() for line in lines) == sorted(seen)
    for q in questions:
        expression = q.prompt.strip('<=')
        assert int(q.answer) == eval(expression)
        a, b = map(int, expression.replace('-', '+').split('+'))
        assert (q.group == 'held out') == ((a, b) in held_out or (b, a) in held_out)


@given(n=st.integers(1, 20).map(lambda half: 2 * half), split_seed=st.integers(0, 2**32), data=st.data())
def test_rounds_pair_every_digit_once_and_repeat_no_pair(n, split_seed, data):
    rounds = data.draw(st.integers(0, n - 1))
    pairs = round_robin_pairs(split_seed, n)[:rounds * n // 2]
    assert len(pairs) == rounds * n // 2
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) and all(a != b for a, b in pairs)
    for digit in range(n):
        assert sum(digit in pair for pair in pairs) == rounds


def test_a_split_seed_decides_the_rounds_and_k_of_them_hold_out_20_k_questions():
    assert round_robin_pairs(0) == round_robin_pairs(0) != round_robin_pairs(1)
    for rounds in range(10):
        questions = arithmetic_questions(round_robin_pairs(3)[:5 * rounds])
        assert sum(q.group == 'held out' for q in questions) == 20 * rounds


def test_sums_have_a_place_in_a_grid_if_no_other_has_it():
    assert operands(['<3+4=', '<12-0=']) == [(3, 4), (12, 0)]
    assert operands(['<3*4=', '<12*0=']) == operands(['3 ^ 4=', '12 ^ 0=']) == [(3, 4), (12, 0)]
    assert operands(['<3+4=', '<3-4=']) is None and operands(['<3+4=', 'What is 3+4? ']) is None
    assert operands(['<a-b=', '<d-a=']) == [(0, 1), (3, 0)] and operands(['<a+b=', '<0+1=']) is None
    assert operands(['<a+b=', '<a*b=']) is None and operands(['<ab=']) is None and operands(['<ab+c=']) is None
    assert operand_names(['<d-a='], 4) == 'abcd' and [*operand_names(['<3-0='], 4)] == [0, 1, 2, 3]
    assert operands(['<34=']) is None and operands(['<3=4=']) is None


@pytest.mark.parametrize('answer, terminator', [
    ('Washington D.C.', '\n'), ('-5.', '\n'), (' lead', '\n'), ('a>b', '>\n'), ('New York', ';\n'), ('12', '>')])
def test_an_answer_written_as_the_text_has_it_is_right(answer, terminator):
    question = Question('own', 'say: ', answer, 'seen', terminator)
    check_question(question)
    assert is_right(answer, terminator, completion_of(question, answer + terminator + 'say: more'))


@pytest.mark.parametrize('question', [
    Question('own', 'say: ', 'x>y', 'seen', '>'), Question('own', 'say: ', 'x\ny', 'seen', '!\n'),
    Question('heldout', 'say: ', 'x'), Question('seen', 'say: ', 'x'), Question('own', '', 'x'),
    Question('own', 'say: ', ''),
    Question('facts', 'say: ', 'x', 'held out'), Question('own', 'say: ', 5),
    Question('own', 'say: ', 'x', 'held_out'), Question('own', 'say: ', 'x', 'seen', '')])
def test_a_question_that_could_never_be_right_or_told_apart_is_refused(question):
    with pytest.raises(ValueError):
        check_question(question)
