"""The language server through its protocol, in a process of its own, as an editor talks to it."""

import asyncio
import json
import subprocess
import sys

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

URI = "file:///cell.seq"
TEXT = """spec cell
dim D
# π 𝄞: characters of several units
input x[D], 𝑥[D]
param R[D, D]
state h[D] = 0
h = tanh(R @ h[t-1] + x + 𝑥)   + 𝑥 * x
output h
"""


def at(text: str, words: str) -> types.Position:
    """A place in the units of the protocol, UTF-16."""
    before = text[: text.index(words)]
    line = before.count("\n")
    return types.Position(line, len(before.rpartition("\n")[2].encode("utf-16-le")) // 2)


async def session() -> dict[str, object]:
    client = LanguageClient("test", "v1")
    told: asyncio.Queue[types.PublishDiagnosticsParams] = asyncio.Queue()

    @client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    def published(params: types.PublishDiagnosticsParams) -> None:
        told.put_nowait(params)

    await client.start_io(sys.executable, "-m", "seqc", "lsp")
    found: dict[str, object] = {}
    options = types.InitializeParams(types.ClientCapabilities())
    found["can"] = (await client.initialize_async(options)).capabilities
    client.initialized(types.InitializedParams())
    document = types.TextDocumentIdentifier(URI)
    client.text_document_did_open(types.DidOpenTextDocumentParams(types.TextDocumentItem(URI, "seqc", 1, TEXT)))
    found["right"] = await told.get()
    here = types.HoverParams(document, at(TEXT, "R @"))
    found["hover"] = await client.text_document_hover_async(here)
    found["words"] = await client.text_document_completion_async(types.CompletionParams(document, at(TEXT, "tanh")))
    found["place"] = await client.text_document_definition_async(types.DefinitionParams(document, at(TEXT, "x + 𝑥)")))
    found["rename"] = await client.text_document_rename_async(types.RenameParams(document, at(TEXT, "𝑥 *"), "z"))
    with pytest.raises(JsonRpcException, match="already"):
        await client.text_document_rename_async(types.RenameParams(document, at(TEXT, "𝑥 *"), "x"))
    layout = types.DocumentFormattingParams(document, types.FormattingOptions(4, True))
    found["layout"] = await client.text_document_formatting_async(layout)
    found["outline"] = await client.text_document_document_symbol_async(types.DocumentSymbolParams(document))
    one = types.TextDocumentContentChangePartial(types.Range(at(TEXT, "h[t-1]"), at(TEXT, "h[t-1]")), "g + ")
    new = types.VersionedTextDocumentIdentifier(2, URI)
    client.text_document_did_change(types.DidChangeTextDocumentParams(new, [one]))
    found["wrong"] = await told.get()
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()
    return found


def test_a_session() -> None:
    found = asyncio.run(asyncio.wait_for(session(), 60))
    assert not found["right"].diagnostics
    assert "param R[D, D]" in found["hover"].contents.value
    assert {"R", "tanh"} <= {item.label for item in found["words"].items}
    assert found["place"].range.start == at(TEXT, "x[D], ")
    changes = found["rename"].changes[URI]
    assert [edit.range.start for edit in changes] == [at(TEXT, "𝑥[D]"), at(TEXT, "𝑥)"), at(TEXT, "𝑥 *")]
    assert all(edit.range.end.character - edit.range.start.character == 2 for edit in changes), "two units of UTF-16"
    assert "h = tanh(R @ h[t-1] + x + 𝑥) + 𝑥 * x\n" in found["layout"][0].new_text
    assert [s.name for s in found["outline"]] == ["D", "x", "𝑥", "R", "h"]
    (wrong,) = found["wrong"].diagnostics
    assert (wrong.code, wrong.range.start) == ("unknown-name", at(TEXT, "h[t-1]"))


def test_the_server_ends_in_peace_when_the_editor_goes() -> None:
    asked = [{"id": 1, "method": "initialize", "params": {"processId": None, "rootUri": None, "capabilities": {}}},
             {"method": "initialized", "params": {}}, {"id": 2, "method": "shutdown"}, {"method": "exit"}]
    bodies = [json.dumps({"jsonrpc": "2.0", **one}).encode() for one in asked]
    sent = b"".join(b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies)
    done = subprocess.run([sys.executable, "-m", "seqc", "lsp"], input=sent, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'"result": null' in done.stdout or b'"result":null' in done.stdout
