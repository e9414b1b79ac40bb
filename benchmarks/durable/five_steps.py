"""A chain of five LLM calls in sequence, each of which needs the answer before."""

from langchain_core.runnables import RunnableLambda
from openai import AsyncOpenAI

STEPS = 5


async def five_steps(name: str) -> str:
    client = AsyncOpenAI(max_retries=0)
    said = "begin"
    for step in range(STEPS):
        prompt = f"{name} {step} {said}"
        answer = await client.chat.completions.create(
            model="counted", messages=[{"role": "user", "content": prompt}]
        )
        said = answer.choices[0].message.content
    return said


chain = RunnableLambda(five_steps)
