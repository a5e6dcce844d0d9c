"""The language server: `seqc.editor.document` through the Language Server Protocol, by pygls. In: requests. Out: answers.

Served are diagnostics as one types, hover, completion, definition, references, rename, formatting and the outline. A text is
read as `seqc check` reads a file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlparse

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.workspace import ServerTextPosition, ServerTextRange, TextDocument

from seqc import __version__
from seqc.diagnostics import Diagnostic, Refusal, Source, Span
from seqc.editor.document import Document, Suggestion
from seqc.frontend.logical_lines import DECLARED
from seqc.frontend.sources import checked

SEVERITY = {
    "error": types.DiagnosticSeverity.Error,
    "unsupported": types.DiagnosticSeverity.Error,
    "warning": types.DiagnosticSeverity.Warning,
}
KINDS = {
    "statement": types.CompletionItemKind.Keyword,
    "mark": types.CompletionItemKind.Keyword,
    "function": types.CompletionItemKind.Function,
    "constant": types.CompletionItemKind.Constant,
    "dim": types.CompletionItemKind.TypeParameter,
    "name": types.CompletionItemKind.Variable,
}


SYMBOLS = {
    **dict.fromkeys(DECLARED, types.SymbolKind.Property),
    "dim": types.SymbolKind.TypeParameter,
    "axis": types.SymbolKind.TypeParameter,
    "input": types.SymbolKind.Field,
    "const": types.SymbolKind.Constant,
    "state": types.SymbolKind.Object,
    "output": types.SymbolKind.Event,
}
Answer = TypeVar("Answer")


class Server(LanguageServer):
    """A server, with the last version of every open text. The front end reads a version once, whatever is asked of it."""

    def __init__(self) -> None:
        super().__init__("seqc", f"v{__version__}")
        self._read: dict[str, tuple[str, Document | Refusal]] = {}

    def text(self, uri: str) -> TextDocument:
        """An open text as pygls keeps it."""
        return self.workspace.get_text_document(uri)

    def read(self, uri: str) -> Document | Refusal:
        """An open text as a document, or why no compiler should read it."""
        text = self.text(uri).source
        if uri not in self._read or self._read[uri][0] != text:
            name = unquote(urlparse(uri).path)
            try:
                document: Document | Refusal = Document(checked(Source(name, text)))
            except Refusal as refusal:
                document = refusal
            self._read[uri] = text, document
        return self._read[uri][1]

    def document(self, uri: str) -> Document | None:
        """An open text as a document; None where it holds what no spec may hold."""
        found = self.read(uri)
        return found if isinstance(found, Document) else None

    def offset(self, uri: str, document: Document, position: types.Position) -> int:
        """A client's place as an offset."""
        text = self.text(uri)
        place = text.position_codec.position_from_client_units(text.lines, position)
        starts = document.source.line_starts
        return starts[min(place.line, len(starts) - 1)] + place.character

    def range(self, uri: str, span: Span) -> types.Range:
        """The place of characters, in the client's units."""
        text = self.text(uri)
        start, end = (span.source.place(at) for at in (span.start, span.end))
        ends = (ServerTextPosition(line - 1, column - 1) for line, column in (start, end))
        return text.position_codec.range_to_client_units(text.lines, ServerTextRange(*ends))

    def asked(self, params: Any, answer: Callable[[Document, int], Answer]) -> Answer | None:
        """What a document answers about the place of a request; None of a text that no compiler should read."""
        uri = params.text_document.uri
        document = self.document(uri)
        return None if document is None else answer(document, self.offset(uri, document, params.position))

    def forget(self, uri: str) -> None:
        """Drop what was read of a closed text."""
        self._read.pop(uri, None)

    def told(self, uri: str, d: Diagnostic) -> types.Diagnostic:
        """A diagnostic for the client: the other places that explain it are related information."""
        notes = [f"{title}: {text}" for title, text in (("cause", d.cause), ("help", d.help)) if text]
        first, *others = d.labels
        related = [
            types.DiagnosticRelatedInformation(types.Location(uri, self.range(uri, label.span)), label.text or d.message)
            for label in others
        ]
        message = "\n".join([d.message + (f" ({first.text})" if first.text else ""), *notes])
        return types.Diagnostic(self.range(uri, first.span), message, SEVERITY[d.kind], d.code, source="seqc",
                                related_information=related or None)


def tell(server: Server, uri: str) -> None:
    """Send every mistake and warning of a text."""
    found = server.read(uri)
    diagnostics = found.diagnostics
    told = [server.told(uri, d) for d in diagnostics if d.labels]
    server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, told))


def opened(server: Server, params: types.DidOpenTextDocumentParams | types.DidChangeTextDocumentParams) -> None:
    """A text is there, or another version of it."""
    tell(server, params.text_document.uri)


def closed(server: Server, params: types.DidCloseTextDocumentParams) -> None:
    """A text is gone."""
    server.forget(params.text_document.uri)
    server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(params.text_document.uri, []))


def hover(server: Server, params: types.HoverParams) -> types.Hover | None:
    """What the word at a place means."""
    found = server.asked(params, Document.hover)
    if not found:
        return None
    span, words = found
    return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, words), server.range(params.text_document.uri, span))


def complete(server: Server, params: types.CompletionParams) -> types.CompletionList:
    """What may be written at a place."""
    words = server.asked(params, Document.suggestions) or []
    return types.CompletionList(False, [item(i, word) for i, word in enumerate(words)])


def definition(server: Server, params: types.DefinitionParams) -> types.Location | None:
    """Where a name is declared."""
    span = server.asked(params, Document.definition)
    return types.Location(params.text_document.uri, server.range(params.text_document.uri, span)) if span else None


def references(server: Server, params: types.ReferenceParams) -> list[types.Location]:
    """All places of a name."""
    uri = params.text_document.uri
    found = server.asked(params, Document.references) or []
    wanted = [one for one in found if params.context.include_declaration or not one.declares]
    return [types.Location(uri, server.range(uri, one.span)) for one in wanted]


def rename(server: Server, params: types.RenameParams) -> types.WorkspaceEdit:
    """The changes that give a name another one, or why they cannot be made."""
    uri, new = params.text_document.uri, params.new_name
    try:
        spans = server.asked(params, lambda document, offset: document.renamed(offset, new)) or []
    except ValueError as refused:
        raise JsonRpcException(str(refused), types.LSPErrorCodes.RequestFailed.value) from refused
    return types.WorkspaceEdit({uri: [types.TextEdit(server.range(uri, span), new) for span in spans]})


def layout(server: Server, params: types.DocumentFormattingParams) -> list[types.TextEdit] | None:
    """The text in its canonical layout; None where it is, or has syntax mistakes."""
    uri = params.text_document.uri
    document = server.document(uri)
    text = document.formatted() if document else None
    if document is None or text is None or text == document.source.text:
        return None
    return [types.TextEdit(server.range(uri, Span(document.source, 0, len(document.source.text))), text)]


def outline(server: Server, params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
    """What the spec declares and defines."""
    uri = params.text_document.uri
    document = server.document(uri)
    return [
        types.DocumentSymbol(one.name, SYMBOLS.get(line.split()[0], types.SymbolKind.Variable), server.range(uri, one.span),
                             server.range(uri, one.span), line.split("\n")[0])
        for one, line in (document.symbols() if document else [])
    ]


FEATURES: dict[str, Callable[..., Any]] = {
    types.TEXT_DOCUMENT_DID_OPEN: opened,
    types.TEXT_DOCUMENT_DID_CHANGE: opened,
    types.TEXT_DOCUMENT_DID_CLOSE: closed,
    types.TEXT_DOCUMENT_HOVER: hover,
    types.TEXT_DOCUMENT_COMPLETION: complete,
    types.TEXT_DOCUMENT_DEFINITION: definition,
    types.TEXT_DOCUMENT_REFERENCES: references,
    types.TEXT_DOCUMENT_RENAME: rename,
    types.TEXT_DOCUMENT_FORMATTING: layout,
    types.TEXT_DOCUMENT_DOCUMENT_SYMBOL: outline,
}
"""Request -> what answers it."""
OPTIONS = {types.TEXT_DOCUMENT_COMPLETION: types.CompletionOptions(trigger_characters=["["])}


def made() -> Server:
    """A server that answers."""
    server = Server()
    for request, answer in FEATURES.items():
        server.feature(request, OPTIONS.get(request))(partial(answer, server))
    return server


def item(i: int, word: Suggestion) -> types.CompletionItem:
    """A word of a list of completions, which keeps its order."""
    detail = word.detail.split("\n")[0]
    return types.CompletionItem(word.word, kind=KINDS[word.kind], detail=detail, sort_text=f"{i:03d}")
