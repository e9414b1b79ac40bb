"""A request's config reaches a chain only as far as its author opened it."""

import uuid

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda

from penstock.chains.worker.config_rules import ConfigRules
from penstock.chains.worker.faults import InvalidInput

ALL = ["configurable", "tags", "metadata", "run_id"]

model = FakeListChatModel(responses=["a"]).configurable_fields(
    responses=ConfigurableField(id="responses")
)
runnable = PromptTemplate.from_template("{a}").configurable_fields(
    template=ConfigurableField(id="template")
) | model.configurable_alternatives(
    ConfigurableField(id="llm"),
    default_key="quiet",
    loud=FakeListChatModel(responses=["A"]),
)


def settings(*configs, keys=ALL, chain=runnable, tenant="acme"):
    return ConfigRules(chain, keys).settings(*configs, tenant=tenant)


def refused(*configs, **options):
    with pytest.raises(InvalidInput) as raised:
        settings(*configs, **options)
    return raised.value.message


def test_only_the_open_keys_are_taken():
    config = {"tags": ["t"], "metadata": {"a": "b"}, "recursion_limit": 9, "callbacks": ["x"]}
    came = settings(config, keys=["tags"])

    assert (["t"], {}, {}) == (came.tags, came.metadata, came.configurable)


def test_a_configurable_that_is_not_open_is_refused_unless_empty():
    assert "not open" in refused({"configurable": {"llm": "loud"}}, keys=["tags"])
    assert {} == settings({"configurable": {}}, keys=["tags"]).configurable


def test_later_configs_overrule_earlier_ones():
    first = {"configurable": {"llm": "loud", "template": "{x}"}, "tags": ["a"]}
    came = settings(first, None, {"configurable": {"llm": "quiet"}})

    assert ({"llm": "quiet", "template": "{x}"}, ["a"]) == (came.configurable, came.tags)


@pytest.mark.parametrize(
    "name", ["other", "__pregel_send", "langgraph_auth_user", "checkpoint_ns", "thread_id"]
)
def test_ids_that_the_runnable_does_not_declare_are_refused_by_name(name):
    assert name in refused({"configurable": {name: "x"}})


def test_even_a_declared_id_is_refused_when_it_is_reserved():
    chain = PromptTemplate.from_template("{a}").configurable_fields(
        template=ConfigurableField(id="__template")
    )

    assert "__template" in refused({"configurable": {"__template": "x"}}, chain=chain)


def test_an_alternative_must_be_one_of_those_there_are():
    assert "loud" in refused({"configurable": {"llm": "unknown"}})


@pytest.mark.parametrize(
    "template",
    ["{a!r}", "{a:>900000000}", "{a.b}", "{a[0]}", "{}", "{0}", "{a:{b}}", "{a", "}"],
)
def test_a_template_may_hold_plain_fields_only(template):
    assert "template" in refused({"configurable": {"template": template}})


def test_a_plain_template_is_taken():
    config = {"configurable": {"template": "{{literal}} {a} {b_1}"}}

    assert "{{literal}} {a} {b_1}" == settings(config).configurable["template"]


def written_in(language, text="{{ a }}"):
    return PromptTemplate.from_template(text, template_format=language).configurable_fields(
        template=ConfigurableField(id="template")
    )


@pytest.mark.parametrize(
    ("language", "template"),
    [
        ("jinja2", "{{ a.__class__ }}"),
        ("jinja2", "{{ 'x' * 900000000 }}"),
        ("jinja2", "{% for i in range(10**9) %}x{% endfor %}"),
        ("jinja2", "{{ a }}{# hidden #}"),
        ("jinja2", "{{{{ a.b }}}}"),
        ("mustache", "{{a.b}}"),
        ("mustache", "{{#a}}{{.}}{{/a}}"),
        ("mustache", "{{> partial}}"),
    ],
)
def test_in_jinja_and_mustache_too_only_plain_fields_are_taken(language, template):
    chain = written_in(language)
    assert "plain" in refused({"configurable": {"template": template}}, chain=chain)
    for plain in ("{{ b }} and {{c}}", 'a brace { and {"json": 1}'):
        came = settings({"configurable": {"template": plain}}, chain=chain)
        assert plain == came.configurable["template"]


def test_the_language_of_a_template_cannot_be_changed():
    chain = PromptTemplate.from_template("{a}").configurable_fields(
        template=ConfigurableField(id="template"), template_format=ConfigurableField(id="language")
    )
    assert "f-string" in refused({"configurable": {"language": "jinja2"}}, chain=chain)
    came = settings({"configurable": {"language": "f-string"}}, chain=chain)
    assert {"language": "f-string"} == came.configurable


def test_the_messages_of_a_prompt_are_templates_in_any_language():
    chain = ChatPromptTemplate.from_messages([("human", "{a}")]).configurable_fields(
        messages=ConfigurableField(id="messages")
    )
    for template in ("{a!r:>900000000}", "{{ a.b }}", "{a.b}"):
        config = {"configurable": {"messages": [["human", template]]}}
        assert "plain" in refused(config, chain=chain)


def test_the_rule_for_templates_does_not_hold_for_other_fields():
    config = {"configurable": {"responses": ['{"json": 1}']}}

    assert ['{"json": 1}'] == settings(config).configurable["responses"]


def test_a_prompt_deep_inside_of_a_function_is_found():
    inner = ChatPromptTemplate.from_messages(
        [PromptTemplate.from_template("{a}").template]
    ).configurable_fields(messages=ConfigurableField(id="messages"))

    def ask(value):
        return inner.invoke(value)

    chain = RunnableLambda(ask)
    assert "plain {name}" in refused({"configurable": {"messages": ["{a!r}"]}}, chain=chain)


def test_memory_is_kept_under_the_tenant():
    class Graph(RunnableLambda):
        checkpointer = True

    chain = Graph(str)
    keys = {
        settings({"configurable": {"thread_id": "1"}}, chain=chain, tenant=tenant).configurable[
            "thread_id"
        ]
        for tenant in ("acme", "other")
    }
    assert {"acme/1", "other/1"} == keys


@pytest.mark.parametrize(
    "config",
    [
        {"tags": "x"},
        {"tags": [1]},
        {"tags": ["x"] * 17},
        {"tags": ["x" * 513]},
        {"metadata": []},
        {"metadata": {"a": {"b": 1}}},
        {"metadata": {str(i): "x" for i in range(17)}},
        {"metadata": {"a": "x" * 512}},
        {"run_id": "x"},
        {"run_id": 5},
        {"configurable": []},
        [],
        "x",
    ],
)
def test_what_breaks_a_rule_is_refused(config):
    assert "config" in refused(config)


def test_what_surrounding_runs_add_to_metadata_is_left_out():
    came = settings({"metadata": {"__x": 1, "ls_provider": "p", "langgraph_step": 1, "own": "o"}})

    assert {"own": "o"} == came.metadata


def test_a_run_id_is_a_uuid():
    run_id = uuid.uuid4()

    assert run_id == settings({"run_id": str(run_id)}).run_id


def test_concurrency_is_read_in_both_spellings_and_only_when_it_makes_sense():
    assert 3 == settings({"max_concurrency": 3}).concurrency_max
    assert 4 == settings({"maxConcurrency": 4}).concurrency_max
    assert settings({"max_concurrency": -1}).concurrency_max is None
