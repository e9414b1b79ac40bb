"""Keywords of a text by TextRank: spaCy and numpy, no LLM, and hard work for the CPU.

Words are the nodes of a graph, nearness in the text its edges, and a word's rank is its share
in the graph's leading eigenvector. Ranks are averaged over many random halves of the text, so
that no single sentence decides; the seed is fixed, so the answer is always the same. It is a
plain synchronous function: it runs in a thread of a worker process and slows no other caller.
"""

import numpy as np
import spacy
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, Field

NEAR_WORDS = 6
POWER_STEPS = 40

TEXT = """A penstock leads the water of a reservoir down to the turbines. Its gate decides how
much water goes, and which turbine gets it first. When the reservoir is full the gate stands
open; when rain fails, the gate lets through what the mill needs now and holds back what can
wait for the night. A good gate wastes no water: the river below runs evenly, the mill never
stands still while there is water, and the miller knows at every hour how long the grain has
to wait. A bad gate opens for whoever shouts loudest, and the reservoir is empty by noon."""

nlp = spacy.blank("en")


class Request(BaseModel):
    """What the chain takes; every field may be left out."""

    text: str = Field(default=TEXT, max_length=20_000)
    count: int = Field(default=5, ge=1, le=50)
    samples: int = Field(default=3_000, ge=1, le=5_000, description="how many halves are ranked")


def rank(words: list[str], place: dict[str, int]) -> np.ndarray:
    """Each vocabulary word's share in the eigenvector of the graph of ``words``."""
    near = np.full((len(place), len(place)), 1e-3)
    for index, word in enumerate(words):
        for other in words[index + 1 : index + NEAR_WORDS]:
            near[place[word], place[other]] += 1
            near[place[other], place[word]] += 1
    ranks = np.ones(len(place))
    for _ in range(POWER_STEPS):
        ranks = near @ ranks
        ranks /= ranks.sum()
    return ranks


def keywords(fields: dict) -> list[str]:
    """The text's most central words, the first one first."""
    request = Request(**fields)
    words = [token.lower_ for token in nlp(request.text) if token.is_alpha and not token.is_stop]
    vocabulary = sorted(set(words))
    place = {word: index for index, word in enumerate(vocabulary)}
    chance = np.random.default_rng(seed=1)
    ranks = np.zeros(len(vocabulary))
    for _ in range(request.samples):
        half = [
            word for word, kept in zip(words, chance.random(len(words)) < 0.5, strict=True) if kept
        ]
        ranks += rank(half, place)
    best = sorted(vocabulary, key=lambda word: (-ranks[place[word]], word))
    return best[: request.count]


chain = RunnableLambda(keywords).with_types(input_type=Request, output_type=list[str])
