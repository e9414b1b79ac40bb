"""Keywords of a text by TextRank: spaCy and numpy, no LLM, and hard work for the CPU.

Words are the nodes of a graph, nearness in the text its edges, and a word's rank is its share
in the graph's leading eigenvector. It is a plain synchronous function: it runs in a thread of a
worker process and slows no caller in another one.
"""

import numpy as np
import spacy
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, Field

WINDOW = 8

nlp = spacy.blank("en")


class Request(BaseModel):
    """What the chain takes."""

    text: str = Field(default="the river carries the mill and the mill carries the river " * 20)
    count: int = Field(default=5, ge=1, le=50)
    sweeps: int = Field(default=400, ge=1, le=2000, description="Steps of the power iteration.")


def keywords(request: Request) -> list[str]:
    """The text's most central words, the first one first."""
    request = Request.model_validate(request)
    words = [token.lower_ for token in nlp(request.text) if token.is_alpha and not token.is_stop]
    vocabulary = sorted(set(words))
    if not vocabulary:
        return []
    place = {word: index for index, word in enumerate(vocabulary)}
    nearness = np.full((len(vocabulary), len(vocabulary)), 1e-3)
    for index, word in enumerate(words):
        for other in words[index + 1 : index + WINDOW]:
            nearness[place[word], place[other]] += 1
            nearness[place[other], place[word]] += 1
    ranks = np.ones(len(vocabulary))
    for _ in range(request.sweeps):
        ranks = nearness @ ranks
        ranks /= ranks.sum()
    order = sorted(vocabulary, key=lambda word: (-ranks[place[word]], word))
    return order[: request.count]


chain = RunnableLambda(keywords).with_types(input_type=Request, output_type=list[str])
