"""
Questions, those of the paper's datasets among them, and what counts as right.

A prepare.py makes Questions and writes its text from them, so the two cannot disagree.
"""

import os
import random
import re
from functools import cache
from string import ascii_lowercase
from typing import NamedTuple

# prompts of two operands and an operation, which make a grid: the operands are numbers, or single letters
EXPRESSION, LETTER_EXPRESSION = re.compile(r'<?(\d+)[^\d=]+(\d+)='), re.compile(r'<?([a-z])[^\da-z=]+([a-z])=')
GROUPS = ('seen', 'held out', 'beyond')  # in the training text; kept out of it on purpose; simply not in it
LABELS = {'add': 'addition', 'sub': 'subtraction'}  # what people read; any other task is called by its own name
RESERVED = {'math', 'heldout', 'addition', 'subtraction', *GROUPS}  # names of other things in results.csv and reports
FACT_END = ' \n'  # the paper ends its facts with a space and a newline

# Barron & White 2025, in their order
CAPITALS = {
    'France': 'Paris', 'the USA': 'Washington DC', 'Japan': 'Tokyo', 'Germany': 'Berlin', 'Italy': 'Rome',
    'Spain': 'Madrid', 'the UK': 'London', 'Canada': 'Ottawa', 'Australia': 'Canberra', 'India': 'New Delhi',
    'China': 'Beijing', 'Russia': 'Moscow', 'Brazil': 'Brasilia', 'Mexico': 'Mexico City', 'South Korea': 'Seoul',
    'Argentina': 'Buenos Aires', 'Egypt': 'Cairo', 'Saudi Arabia': 'Riyadh', 'Turkey': 'Ankara',
    'Indonesia': 'Jakarta', 'Nigeria': 'Abuja', 'Pakistan': 'Islamabad', 'Colombia': 'Bogota', 'Thailand': 'Bangkok',
    'Vietnam': 'Hanoi', 'the Netherlands': 'Amsterdam', 'Belgium': 'Brussels', 'Sweden': 'Stockholm',
    'Norway': 'Oslo', 'Denmark': 'Copenhagen', 'Finland': 'Helsinki', 'Poland': 'Warsaw', 'Austria': 'Vienna',
    'Switzerland': 'Bern', 'Portugal': 'Lisbon', 'Greece': 'Athens', 'Ireland': 'Dublin',
    'New Zealand': 'Wellington', 'South Africa': 'Pretoria', 'Israel': 'Jerusalem', 'Iran': 'Tehran',
    'Iraq': 'Baghdad', 'Syria': 'Damascus', 'Lebanon': 'Beirut', 'Jordan': 'Amman', 'Kuwait': 'Kuwait City',
    'Qatar': 'Doha', 'Oman': 'Muscat', 'Bahrain': 'Manama', 'Zambia': 'Lusaka',
}


class Question(NamedTuple):
    """E.g. Question('add', '<5+7=', '12', 'held out'). task: the paper's 'add', 'sub' and 'facts', or any other name.

    terminator: what ends an answer in the text. Probabilities include it, and generation stops at its last character.
    """
    task: str
    prompt: str
    answer: str
    group: str = 'seen'  # one of GROUPS
    terminator: str = '>'

    @property
    def line(self):
        return self.prompt + self.answer + self.terminator

    @property
    def kind(self):
        """'math' if the answer is a number that does not end its line, else 'facts': the two rules of is_right."""
        return kind_of(self.answer, self.terminator)


@cache  # every evaluation needs it for each question
def kind_of(answer, terminator):
    rest_of_line, newline, _ = terminator.partition('\n')
    is_number = re.fullmatch(r'-?[0-9]+', answer)
    return 'math' if is_number and (rest_of_line.strip() or not newline) else 'facts'


def operands(prompts):
    """(a, b) of each prompt like <3+4= or 3*4=, a list; None if there are others, or if two would share a cell.

    If all operands are single letters, as in <d+e=, then a is 0, b is 1, and so on.
    """
    for expression, number in ((EXPRESSION, int), (LETTER_EXPRESSION, ascii_lowercase.index)):
        matches = [expression.fullmatch(prompt) for prompt in prompts]
        pairs = [tuple(map(number, match.groups())) for match in matches if match]
        if pairs and len(set(pairs)) == len(matches):
            return pairs
    return None


def has_letters(prompts):
    """Whether the operands of these prompts are letters, if they have any."""
    return LETTER_EXPRESSION.fullmatch(next(iter(prompts))) is not None


def operand_names(prompts, n):
    """What the operands 0 to n - 1 of these prompts, which have operands, are called: letters, or the numbers."""
    return ascii_lowercase[:n] if has_letters(prompts) else range(n)


def short_names(prompts):
    """The prompts without the words that all of them begin and end with: France for 'Capital of France is '."""
    def shared(texts):
        """How many characters all texts begin with, up to the end of a word."""
        return len(re.match(r'(.*\W)?', os.path.commonprefix(texts), re.DOTALL)[0])
    if len(prompts) < 2:
        return [prompt.strip() for prompt in prompts]
    start = shared([*prompts])
    end = shared([prompt[start:][::-1] for prompt in prompts])
    return [prompt[start:len(prompt) - end].strip() for prompt in prompts]


def completion_of(question, text):
    """What a model answered: its text up to the terminator, or at least up to the terminator's last character."""
    return text.split(question.terminator)[0].split(question.terminator[-1])[0]


@cache
def is_right(answer, terminator, completion):
    """Whether a completion is right, by the rules of Barron & White 2025.

    A number is right if the completion begins with it, whatever follows. A fact is right if the rest of its line equals
    the answer; upper and lower case, spaces around it and a final period do not matter.
    """
    def plain(text):
        return text.split('\n')[0].strip().removesuffix('.').strip().lower()
    if kind_of(answer, terminator) == 'facts':
        return plain(completion) == plain(answer)
    number = re.match(r'\s*(-?[0-9]+)', completion)
    return number is not None and int(number[1]) == int(answer)


def check_question(q):
    """Raise ValueError if a question would not be told from other things in a table, or can never be right."""
    if not all(isinstance(part, str) and part for part in q):
        raise ValueError(f"task, prompt, answer, group and terminator must be text that is not empty: {tuple(q)}")
    if q.group not in ('seen', 'held out'):
        raise ValueError(f"the group of {q.line!r} must be 'seen' or 'held out', not {q.group!r}")
    if q.task in RESERVED:
        raise ValueError(f"a task cannot be called {q.task!r}, which means something else in results.csv: rename it")
    if q.task == 'facts' and q.group == 'held out':
        raise ValueError(f"{q.line!r} is held out, but the task 'facts' is the paper's and has no held-out questions: "
                         "give yours another name")
    if '\n' in q.answer or not is_right(q.answer, q.terminator, completion_of(q, q.answer + q.terminator)):
        raise ValueError(f"no prediction could be right for {q.line!r}, because its answer holds a newline or "
                         f"{q.terminator[-1]!r}, which ends it: choose another terminator")


def check_questions(questions):
    """Raise ValueError if check_question does, or if two questions of a task share a prompt or end differently."""
    prompts, terminator_of = set(), {}
    for q in questions:
        check_question(q)
        if (q.task, q.prompt) in prompts:
            raise ValueError(f"two questions of task {q.task!r} have the prompt {q.prompt!r}")
        prompts.add((q.task, q.prompt))
        if terminator_of.setdefault(q.task, q.terminator) != q.terminator:
            raise ValueError(f"those of {q.task!r} end in {terminator_of[q.task]!r} and in {q.terminator!r}: give them "
                             "one terminator, or make two tasks of them")


def arithmetic_questions(held_out=((5, 7),), max_operand=9):
    """All a+b, then all a-b, for a, b in 0..max_operand.

    held_out: pairs, in both orders of both operations ((5, 7): 5+7, 7+5, 5-7, 7-5), or single expressions ('5+7').
    """
    held_out = {item if isinstance(item, str) else frozenset(item) for item in held_out}
    numbers = range(max_operand + 1)
    return [Question(task, f'<{a}{sign}{b}=', str(a + b if sign == '+' else a - b),
                     'held out' if held_out & {frozenset((a, b)), f'{a}{sign}{b}'} else 'seen')
            for task, sign in (('add', '+'), ('sub', '-')) for a in numbers for b in numbers]


def arithmetic_text(questions, seed=1337, orders=1):
    """The lines of all questions that are not held out, padded with spaces to one width, in so many random orders."""
    lines, rng, text = [q.line for q in questions if q.group != 'held out'], random.Random(seed), ''
    width = max(map(len, lines), default=0)
    for _ in range(orders):
        rng.shuffle(lines)
        text += ''.join(line.ljust(width) + '\n' for line in lines)
    return text


def round_robin_pairs(split_seed, n=10):
    """Pairs of n operands (n even), as a round-robin tournament has them: n - 1 rounds of n / 2 pairs, none twice.

    Each operand is in exactly K pairs of the first K rounds. The circle method: one operand stays, the others move on
    by one seat a round, and two opposite each other are a pair. The split seed decides who sits where at first.
    """
    seats = list(range(n))
    random.Random(split_seed).shuffle(seats)
    pairs = []
    for _ in range(n - 1):
        pairs += [(seats[i], seats[n - 1 - i]) for i in range(n // 2)]
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return pairs


def facts_questions():
    return [Question('facts', f'Capital of {country} is ', answer, terminator=FACT_END)
            for country, answer in CAPITALS.items()]


def facts_text(questions):
    return ''.join(q.line for q in questions)


def paper_questions():
    return arithmetic_questions() + facts_questions()
