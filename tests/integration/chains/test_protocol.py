"""The LangServe protocol, spoken by its own Python client and by hand, through front and worker."""

import asyncio
import json
import uuid

import httpx
import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompt_values import PromptValue
from langserve import RemoteRunnable
from langserve.lzstring import LZString

KEY = {"authorization": "Bearer key"}


@pytest.fixture
def remote(front):
    return lambda name, **kw: RemoteRunnable(f"{front.url}/{name}", headers=KEY, **kw)


@pytest.fixture
def http(front):
    with httpx.Client(base_url=front.url, headers=KEY, timeout=30, trust_env=False) as client:
        yield client


def config_hash(config):
    return LZString.compressToEncodedURIComponent(json.dumps(config, separators=(",", ":")))


def test_invoke_batch_and_stream(remote):
    assert "ABC" == remote("upper").invoke("abc")
    assert ["A", "B"] == remote("upper").batch(["a", "b"])
    assert [] == remote("upper").batch([])
    assert ["t0 ", "t1 ", "t2 "] == list(remote("tokens").stream({"n": 3}))


def test_messages_come_back_as_they_went(remote):
    messages = [
        SystemMessage("s"),
        HumanMessage([{"type": "text", "text": "hi"}], name="bob"),
        AIMessage(
            "",
            id="x1",
            tool_calls=[{"name": "f", "args": {"a": 1}, "id": "c1"}],
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        ),
        ToolMessage("42", tool_call_id="c1", artifact={"k": 1}),
    ]

    assert messages == remote("ident_messages").invoke(messages)


def test_a_streamed_model_sums_to_its_message_with_usage_and_tool_calls(remote):
    first, *rest = remote("chat").stream("hello there")
    total = sum(rest, first)
    assert isinstance(total, AIMessageChunk)
    assert ("echo: hello there", 13) == (total.content, total.usage_metadata["total_tokens"])
    first, *rest = remote("chat").stream("tool:paris")
    assert {"q": "paris"} == sum(rest, first).tool_calls[0]["args"]


def test_documents_and_prompt_values_are_revived_by_the_client(remote):
    assert Document(page_content="q-1", metadata={"i": 1}) == remote("docs").invoke("q")[1]
    value = remote("prompt_only").invoke({"topic": "x"})
    assert isinstance(value, PromptValue)
    assert "about x" == value.to_messages()[1].content


def test_an_openai_style_conversation_is_understood(http):
    body = {"input": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]}
    assert "echo: hi" == http.post("/chat/invoke", json=body).json()["output"]["content"]
    body = {"input": {"messages": [{"role": "user", "content": "hi"}]}}
    [message] = http.post("/ident/invoke", json=body).json()["output"]["messages"]
    assert ("human", "hi") == (message["type"], message["content"])


def test_a_dict_with_lc_is_opaque_data(http):
    bait = {"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]}
    nested = {"lc": 1, "type": "constructor", "kwargs": {"type": "human", "content": "x"}}
    answer = http.post("/ident/invoke", json={"input": {"a": bait, "b": nested}})

    assert {"a": bait, "b": nested} == answer.json()["output"]


def test_the_run_id_of_the_answer_is_a_uuid_and_honoured_where_open(http):
    asked = str(uuid.uuid4())
    body = {"input": 1, "config": {"run_id": asked}}
    assert asked == http.post("/config_echo_open/invoke", json=body).json()["metadata"]["run_id"]
    closed = http.post("/config_echo/invoke", json=body).json()["metadata"]["run_id"]
    assert asked != closed
    assert uuid.UUID(closed)


def test_a_batch_is_runs_of_their_own(http):
    configs = [{"tags": ["a"]}, {"tags": ["b"]}]
    body = {"inputs": [1, 2], "config": configs, "kwargs": [{}, {}]}
    answer = http.post("/config_echo_open/batch", json=body).json()

    assert [["a"], ["b"]] == [output["tags"] for output in answer["output"]]
    assert 2 == len(set(answer["metadata"]["run_ids"]))
    shared = {"inputs": [1, 2], "config": {"tags": ["c"], "run_id": str(uuid.uuid4())}}
    answer = http.post("/config_echo_open/batch", json=shared).json()
    assert [["c"], ["c"]] == [output["tags"] for output in answer["output"]]
    assert shared["config"]["run_id"] == answer["metadata"]["run_ids"][0]
    assert 2 == len(set(answer["metadata"]["run_ids"]))


def test_a_config_hash_configures_and_the_body_overrules_it(http):
    loud = config_hash({"configurable": {"llm": "loud", "template": "ode to {topic}"}})
    answer = http.post(f"/configurable/c/{loud}/invoke", json={"input": {"topic": "x"}})
    assert "LOUD: ode to x" == answer.json()["output"]
    body = {"input": {"topic": "x"}, "config": {"configurable": {"template": "{topic}!"}}}
    answer = http.post(f"/configurable/c/{loud}/invoke", json=body)
    assert "LOUD: x!" == answer.json()["output"]
    schema = http.get(
        f"/configurable/c/{config_hash({'configurable': {'template': '{a}{b}'}})}/input_schema"
    )
    assert {"a", "b"} == set(schema.json()["properties"])
    assert 400 == http.post("/configurable/c/N4/invoke", json={"input": {}}).status_code


def test_schemas_are_bare_json_schema(http):
    assert ["name", "age"] == http.get("/person/input_schema").json()["required"]
    assert "string" == http.get("/upper/output_schema").json()["type"]
    config = http.get("/configurable/config_schema").json()
    assert {"llm", "template"} == set(config["$defs"]["Configurable"]["properties"])


def test_a_chain_whose_annotations_make_no_schema_runs_and_says_that_it_has_none(http):
    answer = http.post("/untold/invoke", json={"input": {"text": "a"}})
    assert {"text": "A"} == answer.json()["output"]
    schema = http.get("/untold/input_schema")
    assert 200 == schema.status_code
    assert {"text"} == set(schema.json().get("properties", {"text": "unknown"}))


# The client reads pydantic's model_fields from an instance, which is going out of fashion.
@pytest.mark.filterwarnings("ignore:Accessing the 'model_fields'")
def test_callback_events_bring_token_counts_to_the_caller_where_the_chain_tells_them(remote, http):
    counter = UsageMetadataCallbackHandler()
    remote("with_events").invoke({"topic": "cats"}, config={"callbacks": [counter]})
    assert 23 == counter.usage_metadata["echo-1"]["total_tokens"]
    counter = UsageMetadataCallbackHandler()
    remote("with_events").batch([{"topic": "a"}] * 2, config={"callbacks": [counter]})
    assert 46 == counter.usage_metadata["echo-1"]["total_tokens"]

    answer = http.post("/with_events/invoke", json={"input": {"topic": "cats"}}).json()
    events = answer["callback_events"]
    assert ("on_chain_start", "on_chain_end") == (events[0]["type"], events[-1]["type"])
    assert (answer["metadata"]["run_id"], None) == (
        events[0]["run_id"],
        events[0]["parent_run_id"],
    )
    closed = http.post("/prompt_chat/invoke", json={"input": {"topic": "cats"}}).json()
    assert "callback_events" not in closed


def test_what_a_run_used_is_told_beside_its_output_and_only_where_a_model_told_it(http):
    used = {"input_tokens": 20, "output_tokens": 3, "total_tokens": 23}
    body = {"input": {"topic": "cats"}}
    assert used == http.post("/prompt_chat/invoke", json=body).json()["metadata"]["usage"]
    answer = http.post("/prompt_chat/batch", json={"inputs": [{"topic": "cats"}] * 2}).json()
    assert [used, used] == [one["usage"] for one in answer["metadata"]["responses"]]
    frames = http.post("/prompt_chat/stream", json=body).text.strip().split("\n\n")
    assert "event: end" == frames[-1]
    name, data = frames[-2].split("\n")
    assert ("event: metadata", used) == (name, json.loads(data.removeprefix("data: "))["usage"])
    assert "usage" not in http.post("/upper/invoke", json={"input": "a"}).json()["metadata"]


def test_a_models_defaults_are_filled_in(http):
    answer = http.post("/person/invoke", json={"input": {"name": "Ada", "age": 36}})

    assert "Ada of Ulm is 36" == answer.json()["output"]


@pytest.mark.parametrize(
    ("chain", "endpoint", "content", "words"),
    [
        ("upper", "invoke", b"{", "Invalid JSON body"),
        ("upper", "invoke", b'{"input": NaN}', "Invalid JSON body"),
        ("upper", "invoke", b'{"input": 1e999}', "Invalid JSON body"),
        ("upper", "invoke", b'{"input": "\\ud800"}', "Invalid JSON body"),
        ("upper", "invoke", b"[" * 100_000, "Invalid JSON body"),
        ("upper", "invoke", b"[]", "must be a JSON object"),
        ("upper", "invoke", b'{"input": ' + b"[" * 70 + b"]" * 70 + b"}", "deeper than 64"),
        ("upper", "invoke", b'{"input": [' + b"1," * 100_001 + b"1]}", "more than 100000"),
        ("upper", "invoke", b"{}", "Field required"),
        ("upper", "invoke", b'{"input": 5}', "valid string"),
        ("add_one", "invoke", b'{"input": "x"}', "valid integer"),
        ("upper", "invoke", b'{"input": "a", "kwargs": {"x": 1}}', "kwargs"),
        ("upper", "invoke", b'{"input": "a", "config": 5}', "config must be"),
        ("upper", "invoke", b'{"input": "a", "config": {"configurable": {"x": 1}}}', "'x'"),
        ("upper", "stream", b'{"input": 5}', "valid string"),
        ("upper", "batch", b'{"inputs": null}', "must be a list"),
        ("upper", "batch", b'{"inputs": ["a", 5]}', "valid string"),
        ("upper", "batch", b'{"inputs": ["a", "b"], "config": [{}]}', "Number of configs (1)"),
        ("upper", "batch", b'{"inputs": [' + b'"a",' * 1000 + b'"a"]}', "at most 1000"),
        (
            "configurable",
            "invoke",
            b'{"input": {"topic": "t"}, "config": {"configurable": {"template": "{topic!r:>9}"}}}',
            "plain {name} fields only",
        ),
        (
            "configurable",
            "invoke",
            b'{"input": {"topic": "t"}, "config": {"configurable": {"llm": "none"}}}',
            "'loud' or 'default'",
        ),
        ("config_echo_open", "invoke", b'{"input": 1, "config": {"run_id": "../x"}}', "UUID"),
        ("config_echo_open", "invoke", b'{"input": 1, "config": {"tags": "x"}}', "strings"),
    ],
)
def test_bad_input_is_422_and_says_which_rule_without_repeating_it(
    http, chain, endpoint, content, words
):
    answer = http.post(f"/{chain}/{endpoint}", content=content)

    assert 422 == answer.status_code
    assert words in json.dumps(answer.json()["detail"])
    assert answer.elapsed.total_seconds() < 5


def test_null_config_and_unknown_keys_are_no_error(http):
    body = {"input": "a", "config": None, "kwargs": None, "more": 1}

    assert "A" == http.post("/upper/invoke", json=body).json()["output"]


def test_an_exceptions_text_never_reaches_the_caller(http):
    answers = [
        http.post("/fail/invoke", json={"input": "boom"}),
        http.post("/fail/stream", json={"input": "boom"}),
        http.post("/fail/batch", json={"inputs": ["ok", "boom"]}),
        http.post("/unencodable/invoke", json={"input": 1}),
    ]
    for answer in answers:
        assert 500 == answer.status_code
        assert "SECRET" not in answer.text
        assert answer.headers["x-request-id"] in answer.text


def test_a_failure_in_the_middle_of_a_stream_is_an_error_event_and_a_clean_end(http):
    body = {"input": {"n": 5, "fail_at": 2}}
    answer = http.post("/tokens/stream", json=body)

    assert 200 == answer.status_code
    assert "text/event-stream" == answer.headers["content-type"]
    events = [frame.split("\n") for frame in answer.text.strip().split("\n\n")]
    assert ["event: metadata", "event: data", "event: data", "event: error"] == [
        event[0] for event in events
    ]
    data = json.loads(events[-1][1].removeprefix("data: "))
    assert (500, "chain_failed") == (data["status_code"], data["code"])
    assert "SECRET" not in answer.text
    assert 200 == http.post("/tokens/stream", json={"input": {"n": 1}}).status_code


def test_a_stream_ends_with_an_end_event_without_data(http):
    answer = http.post("/tokens/stream", json={"input": {"n": 1}})

    assert answer.text.endswith('event: data\ndata: "t0 "\n\nevent: end\n\n')
    assert "no-cache" == answer.headers["cache-control"]


def test_a_run_over_its_time_limit_is_504(http):
    answer = http.post("/slow_limited/invoke", json={"input": 5})

    assert 504 == answer.status_code
    assert "timeout_seconds = 0.2" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/no_such/invoke", 404),
        ("POST", "/upper/no_such", 404),
        ("GET", "/upper/playground/index.html", 404),
        ("GET", "/upper/invoke", 405),
        ("POST", "/upper/input_schema", 405),
        ("POST", "/upper/stream_log", 403),
        ("POST", "/upper/stream_events", 403),
        ("POST", "/broken/invoke", 503),
        ("POST", "/upper/feedback", 400),
        ("HEAD", "/upper/feedback", 400),
        ("POST", "/upper/c/N4XyA/feedback", 400),
        ("POST", "/upper/token_feedback", 400),
        ("PUT", "/upper/public_trace_link", 400),
        ("HEAD", "/upper/public_trace_link", 400),
        ("GET", "/upper/feedback", 405),
        ("PUT", "/upper/invoke", 405),
    ],
)
def test_what_is_not_served_says_so(http, method, path, status):
    answer = http.request(method, path, content=b'{"input": "a"}' if method == "POST" else None)

    assert status == answer.status_code
    assert method == "HEAD" or answer.json()["detail"]


def test_a_key_sees_and_runs_its_own_chains_only(front):
    with httpx.Client(base_url=front.url, trust_env=False) as client:
        narrow = {"authorization": "Bearer narrow"}
        listed = client.get(front.url, headers=narrow).json()["chains"]
        assert ["upper"] == [chain["name"] for chain in listed]
        for name in ("chat", "no_such"):
            answer = client.post(f"/{name}/invoke", json={"input": "a"}, headers=narrow)
            assert 403 == answer.status_code
        assert 401 == client.post("/upper/invoke", json={"input": "a"}).status_code


@pytest.mark.parametrize(
    ("chain", "endpoint", "body"),
    [
        ("slow", "invoke", {"input": 30}),
        ("slow", "batch", {"inputs": [30, 30]}),
        ("slow_stream", "stream", {"input": 30}),
        ("slow", "stream", {"input": 30}),
        ("slow_shown", "stream_events", {"input": 30}),
        ("slow_shown", "stream_events", {"input": 30, "kwargs": {"version": "v1"}}),
        ("slow_shown", "stream_log", {"input": 30}),
    ],
)
def test_a_hang_up_cancels_the_run(front, http, chain, endpoint, body):
    def status(*, reset=False):
        return http.post("/slow_status/invoke", json={"input": reset}).json()["output"]

    async def until(condition):
        async with asyncio.timeout(20):
            while not condition(seen := status()):  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.02)
        return seen

    async def go():
        status(reset=True)
        runs = len(body.get("inputs", [1]))
        async with httpx.AsyncClient(base_url=front.url, headers=KEY, timeout=60) as client:
            request = asyncio.create_task(client.post(f"/{chain}/{endpoint}", json=body))
            await until(lambda seen: seen["started"] == runs)
            request.cancel()
            await asyncio.wait({request})
            seen = await until(lambda seen: seen["cancelled"])
        assert {"started": runs, "finished": 0, "cancelled": runs} == seen

    asyncio.run(go())
