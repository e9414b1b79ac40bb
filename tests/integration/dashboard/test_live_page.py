"""The live page in a real browser: it shows the numbers, obeys its policy, keeps its key."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

SHOWN = "!document.getElementById('live').hidden && document.body.innerText"


def url(server, fragment: str = "") -> str:
    return f"http://127.0.0.1:{server.port}/live{fragment}"


def test_the_page_shows_the_queue_against_the_limits_and_goes_on(serving, browsing) -> None:
    async def scenario() -> None:
        async with serving() as (server, source), browsing(url(server, "#key=admin-key")) as page:
            text = await page.until(SHOWN)
            for expected in (
                "gpt-main",
                "87.4 of 600 · 10/s · configured",
                "1.25 M of 2.00 M",
                "learnt",
                "claude-eu",
                "3 \u00d7 429 this minute · takes nothing for 7.2 s",
                "grants per second",
                "worker-2",
            ):
                assert expected in text
            rows = "[...document.querySelectorAll('#classes tbody tr')].map(r => r.innerText)"
            assert [row.split("\t")[0] for row in await page.evaluate(rows)] == [
                "interactive",
                "standard",
                "batch",
            ]
            kept = "window.kept = document.querySelector('#classes tbody tr')"
            await page.evaluate(f"void ({kept})")
            source.waiting = 777
            await page.until("document.body.innerText.includes('777')")
            assert await page.evaluate(kept.replace("window.kept =", "window.kept ==="))
            width = "document.querySelector('.free').style.width"
            assert await page.evaluate(width) == "14.5667%"
            mark = "document.querySelector('.mark').style.left"
            assert await page.evaluate(mark) == "10%"
            assert page.complaints == []

    asyncio.run(scenario())


def test_names_are_text_never_markup(serving, browsing) -> None:
    async def scenario() -> None:
        async with serving() as (server, _), browsing(url(server, "#key=admin-key")) as page:
            text = await page.until(SHOWN)
            assert "<img src=x onerror=document.title='owned'>" in text
            assert await page.evaluate("document.images.length") == 0
            assert await page.evaluate("document.title") == "Penstock live"

    asyncio.run(scenario())


def test_the_policy_refuses_inline_code_markup_and_strangers(serving, browsing) -> None:
    async def scenario() -> None:
        async with serving() as (server, _), browsing(url(server, "#key=admin-key")) as page:
            await page.until(SHOWN)
            blocked = await page.evaluate(
                """new Promise(async (done) => {
                    const seen = [];
                    document.addEventListener("securitypolicyviolation",
                        (event) => seen.push(event.effectiveDirective));
                    const script = document.createElement("script");
                    try {
                        script.textContent = "document.title = 'owned'";
                    } catch { seen.push("tt"); }
                    document.head.append(script);
                    try { document.body.innerHTML = "<b>x</b>"; } catch { seen.push("tt"); }
                    await fetch("http://127.0.0.1:9/").catch(() => 0);
                    setTimeout(() => done(seen), 50);
                })"""
            )
            assert "connect-src" in blocked
            assert "tt" in blocked
            assert await page.evaluate("document.title") == "Penstock live"

    asyncio.run(scenario())


def test_the_key_leaves_the_address_and_is_asked_for_when_it_is_wrong(serving, browsing) -> None:
    async def scenario() -> None:
        async with serving() as (server, source), browsing(url(server, "#key=wrong")) as page:
            why = "document.getElementById('why').textContent"
            assert await page.until(why) == "That key is not known."
            assert await page.evaluate("location.hash") == ""
            assert await page.evaluate("sessionStorage.length") == 0
            type_key = (
                "document.getElementById('key').value = {};"
                "document.querySelector('form').requestSubmit()"
            )
            await page.evaluate(type_key.format(json.dumps("user-key")))
            assert await page.until(f"{why}.includes('admin') && {why}") == (
                "That key is no admin key."
            )
            assert source.asked == 0
            await page.evaluate(type_key.format(json.dumps(" admin-key ")))
            assert "gpt-main" in await page.until(SHOWN)
            assert await page.evaluate("document.cookie") == ""
            assert await page.evaluate("localStorage.length") == 0

    asyncio.run(scenario())


def test_a_service_that_is_away_is_said_and_found_again(serving, browsing) -> None:
    async def scenario() -> None:
        async with serving() as (server, _), browsing(url(server, "#key=admin-key")) as page:
            await page.until(SHOWN)
            await page.send("Network.enable")
            away = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
            await page.send("Network.emulateNetworkConditions", offline=True, **away)
            state = "document.getElementById('state').textContent"
            await page.until(f"{state}.startsWith('No answer')")
            await page.send("Network.emulateNetworkConditions", offline=False, **away)
            await page.until(f"!{state}.startsWith('No answer')")

    asyncio.run(scenario())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("device", "width"), [("desk", 1100), ("phone", 375)])
def test_the_page_fits_and_is_readable(serving, browsing, tmp_path, scheme, device, width) -> None:
    """No sideways scrolling, and text at least 4.5:1 against what is behind it (WCAG 2.2 AA).

    With PENSTOCK_SCREENSHOTS set to a directory, pictures of the page are left there.
    """
    pictures: list[bytes] = []

    async def scenario() -> None:
        async with serving() as (server, _), browsing(url(server, "#key=admin-key")) as page:
            await page.send(
                "Emulation.setEmulatedMedia",
                features=[{"name": "prefers-color-scheme", "value": scheme}],
            )
            await page.send(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=900,
                deviceScaleFactor=1,
                mobile=device == "phone",
            )
            await page.until(SHOWN)
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert await page.evaluate(wide) == 0
            worst = await page.evaluate(CONTRAST)
            assert worst["ratio"] >= 4.5, worst
            pictures.append(await page.screenshot())

    asyncio.run(scenario())
    kept = Path(os.environ.get("PENSTOCK_SCREENSHOTS", tmp_path))
    (kept / f"live-{device}-{scheme}.png").write_bytes(pictures[0])


CONTRAST = """(() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const parts = parse(getComputedStyle(one).backgroundColor);
            if (parts.length < 4 || parts[3] > 0) return parts;
        }
        return [255, 255, 255];
    };
    let worst = {ratio: 99};
    for (const element of document.querySelectorAll("body *")) {
        if (!element.innerText || element.children.length) continue;
        const [one, other] = [light(parse(getComputedStyle(element).color)),
            light(ground(element))].sort((a, b) => b - a);
        const ratio = (one + 0.05) / (other + 0.05);
        if (ratio < worst.ratio) worst = {ratio, text: element.innerText};
    }
    return worst;
})()"""
