"""
Little models and vocabularies for the tests of single functions, and the plain loops that are their oracles.
"""

import torch
from torch.nn import functional as F

from common.dataset import Meta
from common.evaluate import NEW_TOKENS
from common.questions import (arithmetic_questions, arithmetic_text, completion_of, facts_questions, facts_text,
                              paper_questions)
from common.tokenizer import char_tokenizer
from model import GPT, GPTConfig


def paper_text():
    return arithmetic_text(arithmetic_questions()) + facts_text(facts_questions())


def paper_meta():
    """The Meta of both_math_and_facts, without the disk."""
    stoi = {ch: i for i, ch in enumerate(sorted(set(paper_text())))}
    return Meta(char_tokenizer(stoi), paper_questions(), has_questions=True)


def little_model(vocab_size, seed=0, std=None, **changes):
    """A GPT in eval mode; std: of all its weights, so that an untrained one says something, too."""
    torch.manual_seed(seed)
    shape = dict(block_size=24, vocab_size=vocab_size, n_layer=2, n_head=2, n_embd=16, bias=False)
    model = GPT(GPTConfig(**{**shape, **changes}))
    for p in model.parameters():
        if p.dim() > 1 and std is not None:
            torch.nn.init.normal_(p, std=std)
    return model.eval()


def train(model, ids, steps):
    """A few steps of AdamW on random windows of a text, one longer than the context."""
    windows = torch.tensor(ids).unfold(0, model.config.block_size + 1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = windows[torch.randint(len(windows), (64,), generator=generator)]
        loss = model(batch[:, :-1], batch[:, 1:])[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def plain_answer(model, tokenizer, question, temperature=0.01, top_k=10):
    """One sample of one question by GPT.generate, up to and without the character that ends an answer."""
    idx = torch.tensor([tokenizer.encode(question.prompt)])
    out = model.generate(idx, NEW_TOKENS[question.kind], temperature, top_k)
    return completion_of(question, tokenizer.decode(out[0, idx.size(1):].tolist()))


def plain_prob(model, tokenizer, question):
    """The exact probability of an answer and its terminator, a step at a time."""
    ids, prob = tokenizer.encode(question.prompt), 1.0
    for token in tokenizer.encode(question.answer + question.terminator):
        logits = model(torch.tensor([ids[-model.config.block_size:]]))[0][0, -1]
        prob *= F.softmax(logits, dim=-1)[token].item()
        ids.append(token)
    return prob
