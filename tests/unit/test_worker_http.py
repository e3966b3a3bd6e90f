"""The subset of HTTP that workers parse by hand."""

from __future__ import annotations

import urllib.parse

import hypothesis
import testtools
from hypothesis import strategies

from funcplat.worker import http


class ParseTest(testtools.TestCase):
    def test_a_head_is_a_line_headers_and_a_length(self) -> None:
        head = b"POST /invoke HTTP/1.1\r\nhost: w\r\nx-secret:  abc \r\ncontent-length: 20"
        expected = {b"host": b"w", b"x-secret": b"abc", b"content-length": b"20"}
        self.assertEqual((b"POST /invoke", expected, 20), http.parse(head))

    def test_a_query_belongs_to_the_line(self) -> None:
        line, _headers, length = http.parse(b"GET /log?execution=1 HTTP/1.1\r\ncontent-length: 0")
        self.assertEqual((b"GET /log?execution=1", 0), (line, length))

    def test_what_breaks_the_rules_is_refused(self) -> None:
        for head in (
            b"",
            b"POST /invoke HTTP/1.1",
            b"post /invoke HTTP/1.1\r\ncontent-length: 0",
            b"POST invoke HTTP/1.1\r\ncontent-length: 0",
            b"POST /invoke HTTP/1.1 \r\ncontent-length: 0",
            b"POST /invoke HTTP/1.1\r\ncontent-length:",
            b"POST /invoke HTTP/1.1\r\ncontent-length: +1",
            b"POST /invoke HTTP/1.1\r\ncontent-length: 1, 1",
            b"POST /invoke HTTP/1.1\r\ncontent-length: 12345678901",
            b"POST /invoke HTTP/1.1\r\ncontent-length: \xb2",
            b"POST /invoke HTTP/1.1\r\ncontent-length: 1\r\nx-a",
            b"POST /invoke HTTP/1.1\r\ncontent-length: 1\r\n: a",
            b"POST /invoke HTTP/1.1\r\ncontent-length: 1\r\nX-A: b",
            b"POST /invoke HTTP/1.1\r\ncontent-length: 1\r\nx a: b",
            b"POST /invoke HTTP/1.1\r\ncontent-length: 1\rx-a: b",
            b"POST /invoke HTTP/1.1\r\ncontent-length: 1\nx-a: b",
            b"POST /invoke HTTP/1.1\r\ncontent-length: 1\r\nx-a: \x7f",
            b"POST /invoke HTTP/1.1\r\ncontent-length: 1\r\nx-a: b\r\nx-a: b",
            b"POST /invoke HTTP/1.1\r\ncontent-length: 1\r\nupgrade: h2c",
        ):
            self.assertRaises(http.BadRequest, http.parse, head)

    @hypothesis.settings(deadline=None)
    @hypothesis.given(strategies.binary(max_size=200))
    def test_no_bytes_do_worse_than_bad_request(self, data: bytes) -> None:
        for head in (data, b"GET / HTTP/1.1\r\n" + data, b"GET / HTTP/1.1\r\ncontent-length: 0\r\n" + data):
            try:
                http.parse(head)
            except http.BadRequest as error:
                self.assertTrue(str(error))


class AnswerTest(testtools.TestCase):
    def test_an_answer_carries_its_length(self) -> None:
        self.assertEqual(
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nx: y\r\n\r\nno",
            http.answer(404, b"no", b"x: y\r\n"),
        )

    def test_a_plain_success_has_result_and_log(self) -> None:
        self.assertEqual(
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-secret: known\r\nx-status: success\r\n"
            b"x-duration: 0.250000\r\nx-result-length: 1\r\n\r\n5log",
            http.success(b"5", b"log", 0.25),
        )

    def test_a_remark_is_encoded(self) -> None:
        answer = http.remarked(b"failed", b'"x"', b"", 1.0, "timeout", "50 %\r\nx: \u20ac", 7)
        self.assertIn(
            b"x-reason: timeout\r\nx-message: 50 %25%0D%0Ax: %E2%82%AC\r\nx-log-dropped: 7\r\n", answer
        )

    @hypothesis.settings(deadline=None)
    @hypothesis.given(strategies.text())
    def test_what_is_quoted_can_be_read_again_and_is_one_header_line(self, text: str) -> None:
        quoted = http.quote(text).decode("ascii")
        self.assertTrue(quoted.isprintable() or not quoted)
        self.assertEqual(text.encode("utf-8", "replace").decode(), urllib.parse.unquote(quoted))

    def test_a_long_text_is_cut_between_characters(self) -> None:
        for shift in range(12):
            for filling in "a%\u20ac\U0001f600":
                text = "x" * shift + filling * http.MAX_QUOTED
                quoted = http.quote(text)
                self.assertTrue(http.MAX_QUOTED - 12 < len(quoted) <= http.MAX_QUOTED)
                self.assertTrue(text.startswith(urllib.parse.unquote(quoted.decode(), errors="strict")))
