"""The playground of a chain in a real Chromium: a form from its schemas, streamed output."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest


@pytest.fixture
def visit(browsing, service):
    """Opens a chain's playground with the key, and hands the page to a coroutine function."""

    def run(chain, act):
        async def go():
            url = f"{service.url}/chains/{chain}/playground/#key=dev"
            async with browsing(url) as page:
                await page.until("!document.querySelector('main').hidden")
                result = await act(page)
                assert page.complaints == []
                return result

        return asyncio.run(go())

    return run


OUTPUT = "document.getElementById('output').textContent"
STATE = "document.getElementById('state').textContent"


def test_a_form_is_made_from_the_schema_and_the_output_streams_into_the_page(visit):
    async def act(page):
        await page.evaluate("document.querySelector('#input textarea').value = 'rivers'")
        await page.evaluate("document.getElementById('run').requestSubmit()")
        await page.until(f"{STATE} === 'done'")
        assert "" == await page.evaluate("location.hash"), "the key is taken out of the address"
        facts = await page.evaluate("document.getElementById('facts').textContent")
        return await page.evaluate(OUTPUT), facts

    output, facts = visit("haiku", act)
    assert output.strip()
    assert "class interactive" in facts
    assert "run " in facts


def test_a_conversation_is_one_message_and_any_input_can_be_written_as_json(visit):
    async def act(page):
        await page.evaluate("document.querySelector('#input textarea').value = 'Hello'")
        await page.evaluate("document.getElementById('run').requestSubmit()")
        await page.until(f"{STATE} === 'done'")
        first = await page.evaluate(OUTPUT)
        await page.evaluate("document.getElementById('as-json').click()")
        await page.evaluate("document.querySelector('#input textarea').value = 'no json'")
        await page.evaluate("document.getElementById('run').requestSubmit()")
        await page.until(f"{STATE} === 'failed'")
        return first

    assert "messages" in visit("agent", act)


def test_escape_cancels_a_run_and_the_form_has_a_field_of_each_kind(visit):
    async def act(page):
        kinds = await page.evaluate(
            "[...document.querySelectorAll('#input input, #input textarea')]"
            ".map(one => one.type).join()"
        )
        samples = "document.querySelectorAll('#input input')[1]"
        await page.evaluate(f"{samples}.value = 5000")
        await page.evaluate("document.getElementById('run').requestSubmit()")
        await page.until(f"{STATE} === 'running'")
        key = {"key": "Escape", "code": "Escape", "windowsVirtualKeyCode": 27}
        await page.send("Input.dispatchKeyEvent", type="keyDown", **key)
        await page.until(f"{STATE} === 'cancelled'")
        return kinds

    assert "textarea,number,number" == visit("keywords", act)


@pytest.mark.parametrize("path", ["playground", "playground/"])
def test_the_page_is_public_strict_and_the_same_for_every_name(service, path):
    pages = [httpx.get(f"{service.url}/chains/{name}/{path}") for name in ("haiku", "no_such")]
    assert [200, 200] == [page.status_code for page in pages]
    assert pages[0].content == pages[1].content
    policy = pages[0].headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in pages[0].text


def test_there_is_no_page_under_a_config_hash(service):
    for path in ("c/N4XyA/playground", "c/N4XyA/playground/", "playground/playground.html"):
        answer = httpx.get(
            f"{service.url}/chains/haiku/{path}", headers={"Authorization": "Bearer dev"}
        )
        assert 404 == answer.status_code, path
        assert "html" not in answer.headers["content-type"]
        assert json.loads(answer.text)["status"] == 404
