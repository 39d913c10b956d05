"""Stand-ins for the models' APIs: as much of each as its own command line needs to print a reply no model made."""

from __future__ import annotations

import json
import secrets
from typing import Any

from tests.parts.upstream_tls import Arrived, RequestHandler, Upstream, body_of

REPLY = "the stand-in has answered"
ROUTING = {"workspace_backend_origin": "https://chatgpt.com", "account_routing_override": "NO_CONSTRAINT"}
CLAUDE_HOST, OPENAI_HOST, CHATGPT_HOST = "api.anthropic.com", "api.openai.com", "chatgpt.com"


def fake_model_api(upstream: Upstream) -> type[RequestHandler]:
    """Return a handler that answers like either API on the paths that make a reply, and 404 elsewhere."""

    class Handler(RequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = body_of(self)
            upstream.requests.append(Arrived(self.command, self.path, list(self.headers.items()), body))
            path = self.path.partition("?")[0]
            if self.command == "POST" and path == "/v1/messages":
                self.stream(claude_events())
            elif self.command == "POST" and path.endswith("/responses"):
                self.stream(codex_events())
            elif path.endswith("/responses"):
                self.say(426, {"detail": "no WebSocket here"})
            elif path.endswith("/wham/accounts/check"):
                account = self.headers.get("chatgpt-account-id", "")
                self.say(200, {"accounts": [{"id": account, **ROUTING}], "account_ordering": [account]})
            elif path.endswith("/codex/models"):
                self.say(200, {"models": []})
            else:
                self.say(404, {"type": "error", "error": {"type": "not_found_error", "message": "no such thing here"}})

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer

        def say(self, status: int, found: dict[str, Any]) -> None:
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def stream(self, events: list[dict[str, Any]]) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for event in events:
                data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: object) -> None:
            """The list of requests is the log."""

    return Handler


def claude_events() -> list[dict[str, Any]]:
    """Return one message as Anthropic's Messages API streams it (its documentation of streaming)."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    message: dict[str, Any] = {
        "id": f"msg_{secrets.token_hex(8)}", "type": "message", "role": "assistant", "model": "claude-stand-in",
        "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": REPLY}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]


def codex_events() -> list[dict[str, Any]]:
    """Return one message as OpenAI's Responses API streams it (its documentation of streaming)."""
    text = {"type": "output_text", "text": REPLY, "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
    usage = {
        "input_tokens": 10, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15,
    }  # fmt: skip
    response = {"id": f"resp_{secrets.token_hex(8)}", "object": "response", "status": "completed"}
    return [
        {"type": "response.created", "response": {**response, "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {
            "type": "response.output_text.delta",
            "output_index": 0,
            "item_id": "msg_1",
            "content_index": 0,
            "delta": REPLY,
        },
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**response, "output": [item], "usage": usage}},
    ]
