"""
How low can the loss on as_math be, if a model knows every answer, and if it also knows the order of the lines?

$ python paper/floors.py

A window of training begins anywhere in the text. So even a model that knows every answer cannot know the operands that
come next, unless it has memorised the order of the lines. The two floors are the entropies of what comes next, given
what the window has shown: once over all pairs of lines that could follow one another, and once over the text as it is.
"""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parents[1]))
from common.errors import report_errors

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import numpy as np

from common.questions import arithmetic_questions, arithmetic_text

BLOCK_SIZE = 9  # characters of context, which is one line


def floor(texts):
    """The least mean loss over all windows of these texts, in nats per character. texts: list of str."""
    windows = [text[i:i + BLOCK_SIZE + 1] for text in texts for i in range(len(text) - BLOCK_SIZE)]
    loss = 0.0
    for t in range(1, BLOCK_SIZE + 1):
        shown, continued = Counter(w[:t] for w in windows), Counter(w[:t + 1] for w in windows)
        loss -= sum(n * np.log(n / shown[w[:t]]) for w, n in continued.items())
    return loss / BLOCK_SIZE / len(windows)


if __name__ == '__main__':
    text = arithmetic_text(arithmetic_questions())
    lines = text.splitlines(keepends=True)
    pairs = [first + second for first in lines for second in lines if first != second]
    print(f"every answer is known, but not the order: {floor(pairs):.4f}\n"
          f"every answer and the order are known:     {floor([text]):.4f}")
