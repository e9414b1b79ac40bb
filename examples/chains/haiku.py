"""A prompt, a model, a parser: the shortest chain that is one."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

prompt = ChatPromptTemplate.from_messages(
    [
        ("system", "You write haiku: three lines of five, seven and five syllables."),
        ("human", "Write one about {topic}."),
    ]
)

chain = prompt | ChatOpenAI(model="sandbox") | StrOutputParser()
