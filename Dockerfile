# Made by: penstock image dockerfile --new --lock requirements-chains.lock --python 3.13 --command 'penstock serve --config /app/project/penstock/examples/container.toml' --port 8787 --health /healthz
# What each part is for: docs/image.md of Penstock, `penstock image dockerfile`.
# A company's certificate authority: docker build --secret id=ca,src=/path/to/ca.crt .

FROM python:3.13-slim-trixie AS dependencies
ENV UV_CACHE_DIR=/cache/uv PIP_CACHE_DIR=/cache/pip \
    UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN --mount=type=secret,id=ca \
    --mount=type=cache,target=/cache/pip \
    [ ! -s /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca; \
    pip install uv==0.13.9
# Takes debug symbols out of what is installed; no byte that is loaded moves.
RUN printf '%s\n' \
    'import base64, csv, glob, hashlib, os, shutil, struct, sys' \
    'from typing import Any' \
    'def without_symbols(data: bytes) -> bytes:' \
    '    order = {b"\2\1": "<", b"\2\2": ">"}.get(data[4:6])' \
    '    if data[:4] != b"\x7fELF" or order is None or len(data) < 64:' \
    '        raise ValueError("no 64-bit ELF object")' \
    '    kind, _, _, _, heads, table, _, *sizes, names_at = struct.unpack_from(' \
    '        order + "HHIQQQIHHHHHH", data, 16' \
    '    )' \
    '    _, head_size, head_count, section_size, count = sizes' \
    '    if kind not in (2, 3) or (head_size, section_size) != (56, 64) or head_count > 256:' \
    '        raise ValueError("no executable or shared object as linkers write them")' \
    '    if not names_at < count or max(heads + 56 * head_count, table + 64 * count) > len(data):' \
    '        raise ValueError("its section table is cut short")' \
    '    end = max(64, heads + 56 * head_count)' \
    '    for index in range(head_count):' \
    '        segment = struct.unpack_from(order + "IIQQQQQQ", data, heads + 56 * index)' \
    '        end = max(end, segment[2] + segment[5])' \
    '    sections = [' \
    '        struct.unpack_from(order + "IIQQQQIIQQ", data, table + 64 * index) for index in range(count)' \
    '    ]' \
    '    known = (b".debug", b".zdebug", b".symtab", b".strtab", b".comment", b".gnu.build.attributes")' \
    '    names = data[sections[names_at][4] :][: sections[names_at][5]]' \
    '    dropped = {' \
    '        index' \
    '        for index, section in enumerate(sections)' \
    '        if index != names_at' \
    '        and not section[2] & 2' \
    '        and names[section[0] : section[0] + 24].startswith(known)' \
    '    }' \
    '    for index, section in enumerate(sections):' \
    '        if index not in dropped and section[6] in dropped:' \
    '            raise ValueError("it keeps relocations for a linker")' \
    '        if index not in dropped and index != names_at and section[1] != 8:' \
    '            end = max(end, section[4] + section[5])' \
    '    if end > len(data):' \
    '        raise ValueError("a segment is cut short")' \
    '    places = [(each[4], each[4] + each[5]) for each in sections if each[1] != 8]' \
    '    check_ending(data, end, [*places, (table, table + 64 * count)])' \
    '    kept = data[:end] + bytes(-end % 8)' \
    '    sections[names_at] = (*sections[names_at][:4], len(kept), *sections[names_at][5:])' \
    '    kept += names + bytes(-len(names) % 8)' \
    '    header = struct.pack(order + "Q", len(kept))' \
    '    for index, section in enumerate(sections):' \
    '        fields = (0,) * 10 if index in dropped else section' \
    '        kept += struct.pack(order + "IIQQQQIIQQ", *fields)' \
    '    kept = kept[:40] + header + kept[48:]' \
    '    return kept if len(kept) < len(data) else data' \
    'def check_ending(data: bytes, end: int, places: list[tuple[int, int]]) -> None:' \
    '    for start, stop in sorted([*places, (len(data), len(data))]):' \
    '        if data[end:start].strip(b"\0") or stop > len(data):' \
    '            raise ValueError("there is data behind its sections")' \
    '        end = max(end, stop)' \
    'def differences(before: bytes, after: bytes) -> list[str]:' \
    '    try:' \
    '        old, new = layout(before), layout(after)' \
    '    except struct.error as problem:' \
    '        return [f"cannot be read: {problem}"]' \
    '    found = [f"other {part}" for part in old if part != "end" and old[part] != new[part]]' \
    '    if new["end"] > len(after):' \
    '        found.append("a section table that is cut short")' \
    '    for kind, _, offset, address, _, size, _, alignment in new["segments"]:' \
    '        stop = offset + size' \
    '        if stop > len(after) or before[max(offset, 64) : stop] != after[max(offset, 64) : stop]:' \
    '            found.append(f"another content of the segment at {offset:#x}")' \
    '        if kind == 1 and alignment > 1 and (address - offset) % alignment:' \
    '            found.append(f"a segment at {offset:#x} that no loader takes: not page-aligned")' \
    '    return found' \
    'def layout(data: bytes) -> dict[str, Any]:' \
    '    order = ">" if data[5] == 2 else "<"' \
    '    heads, table = struct.unpack_from(order + "QQ", data, 32)' \
    '    head_size, heads_count, section_size, count = struct.unpack_from(order + "HHHH", data, 54)' \
    '    segments = [' \
    '        struct.unpack_from(order + "IIQQQQQQ", data, heads + index * head_size)' \
    '        for index in range(heads_count)' \
    '    ]' \
    '    sections = [' \
    '        struct.unpack_from(order + "IIQQQQIIQQ", data, table + index * section_size)' \
    '        for index in range(count)' \
    '    ]' \
    '    return {' \
    '        "header": data[:40] + data[48:64],' \
    '        "segments": segments,' \
    '        "loaded sections": {index: each for index, each in enumerate(sections) if each[2] & 2},' \
    '        "end": table + count * section_size,' \
    '    }' \
    'changed = {}' \
    'for folder, folders, names in os.walk(sys.argv[1]):' \
    '    for path in [os.path.join(folder, name) for name in names if ".libs/" not in folder + "/"]:' \
    '        if os.path.islink(path) or not os.path.isfile(path):' \
    '            continue' \
    '        with open(path, "rb") as file:' \
    '            before = file.read(4)' \
    '            before += file.read() if before == b"\x7fELF" else b""' \
    '        try:' \
    '            after = without_symbols(before)' \
    '        except ValueError:' \
    '            continue' \
    '        if len(after) >= len(before):' \
    '            continue' \
    '        with open(path + ".new", "wb") as file:' \
    '            file.write(after)' \
    '        with open(path + ".new", "rb") as file:' \
    '            found = differences(before, file.read())' \
    '        if found:' \
    '            print("left as it is:", path, *found)' \
    '            os.remove(path + ".new")' \
    '            continue' \
    '        shutil.copystat(path, path + ".new")' \
    '        os.replace(path + ".new", path)' \
    '        digest = base64.urlsafe_b64encode(hashlib.sha256(after).digest()).decode().rstrip("=")' \
    '        changed[os.path.normpath(path)] = ["sha256=" + digest, len(after)]' \
    'for record in glob.glob(sys.argv[1] + "/**/*.dist-info/RECORD", recursive=True):' \
    '    site = os.path.dirname(os.path.dirname(record))' \
    '    with open(record, newline="", encoding="utf-8") as file:' \
    '        rows = [row for row in csv.reader(file) if row]' \
    '    told = {row[0]: os.path.normpath(os.path.join(site, row[0])) for row in rows}' \
    '    if any(path in changed for path in told.values()):' \
    '        with open(record, "w", newline="", encoding="utf-8") as file:' \
    '            for row in rows:' \
    '                row[1:] = changed.get(told[row[0]], row[1:])' \
    '                csv.writer(file, lineterminator=chr(10)).writerow(row)' \
    >/usr/local/lib/strip_symbols.py
RUN --mount=type=secret,id=ca \
    --mount=type=cache,target=/cache/uv \
    --mount=type=bind,source=requirements-chains.lock,target=/src/requirements-chains.lock \
    [ ! -s /run/secrets/ca ] || export SSL_CERT_FILE=/run/secrets/ca; \
    uv venv --python /usr/local/bin/python /app/.venv && \
    uv pip sync --python /app/.venv/bin/python --require-hashes requirements-chains.lock && \
    python /usr/local/lib/strip_symbols.py /app/.venv

FROM dependencies AS project
COPY . .
RUN --mount=type=secret,id=ca \
    --mount=type=cache,target=/cache/uv \
    [ ! -s /run/secrets/ca ] || export SSL_CERT_FILE=/run/secrets/ca; \
    uv pip install --python /app/.venv/bin/python --target /app/project --no-deps .

FROM python:3.13-slim-trixie
# What is installed is compiled, so nothing has to be written to be run.
ENV PATH=/app/project/bin:/app/.venv/bin:$PATH PYTHONPATH=/app/project \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
RUN mkdir /data && chown 10001:10001 /data
WORKDIR /data
COPY --from=dependencies /app/.venv /app/.venv
COPY --from=project /app/project /app/project
LABEL org.opencontainers.image.title="penstock" \
    org.opencontainers.image.description="Serves LangChain chains and every LLM call of a company, and decides which call goes next when a provider's rate limit is the bottleneck." \
    org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
EXPOSE 8787
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8787/healthz', timeout=3)"]
CMD ["penstock", "serve", "--config", "/app/project/penstock/examples/container.toml"]
