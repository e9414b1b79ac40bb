"""Three LLM calls in sequence: an outline, a draft of it, and a tightened text."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_openai import ChatOpenAI

model = ChatOpenAI(model="sandbox")
text = StrOutputParser()

outline = ChatPromptTemplate.from_template("Outline a one-page brief on {topic} in five points.")
draft = ChatPromptTemplate.from_template("Write the brief on {topic} from this outline:\n{outline}")
tighten = ChatPromptTemplate.from_template("Cut this brief by a third, losing no fact:\n{draft}")

chain = (
    RunnablePassthrough.assign(outline=outline | model | text)
    | RunnablePassthrough.assign(draft=draft | model | text)
    | tighten
    | model
    | text
).with_types(input_type=outline.input_schema)
