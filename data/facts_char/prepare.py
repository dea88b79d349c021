"""
Fifty capital cities, nothing held out: pure memorisation.

$ python data/facts_char/prepare.py

Writes input.txt, train.bin, val.bin and meta.pkl beside this file.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # the repository, wherever this is run from
from data.char_dataset import write_dataset

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


def facts_cases():
    """The evaluation questions: a list of (task, prompt, answer, held_out), e.g.
    ('facts', 'Capital of Japan is ', 'Tokyo', False)."""
    return [('facts', f'Capital of {country} is ', capital, False) for country, capital in CAPITALS.items()]


def facts_text(cases):
    """One line a fact, with the paper's blank before the newline."""
    return ''.join(f'{prompt}{answer} \n' for _, prompt, answer, _ in cases)


if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    cases = facts_cases()
    write_dataset(HERE, facts_text(cases), cases)
